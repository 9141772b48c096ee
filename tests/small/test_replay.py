"""The head on the states after a layer."""

import copy

import pytest
import torch

from layerdrop.states import is_replaying, record_outputs, replay
from layerdrop.surgery import drop_layers, layer_list
from tests import tiny
from tests.small.test_surgery import MODEL_TYPES

KEPT = (1, 2, 4, 6)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_head_on_the_states_after_a_layer_is_the_cut_models(model_type):
    """Bit for bit, and with the same gradients, in every family.

    Longformer pads to its largest window, and zeros that are added to a sum can change its rounding: equal windows.
    """
    changes = {"attention_window": [8] * tiny.N_LAYERS} if model_type == "longformer" else {}
    model, batch = tiny.model(model_type, **changes), tiny.batch(left=model_type == "xlnet")
    with record_outputs(model) as outputs:
        model(**batch)
    assert len(outputs) == tiny.N_LAYERS
    for n_kept in KEPT:
        cut = drop_layers(copy.deepcopy(model), range(n_kept, tiny.N_LAYERS))
        with replay(model, outputs[:n_kept]):
            assert model.config.num_hidden_layers == n_kept
            logits = model(**batch).logits
        expected = cut(**batch).logits
        assert torch.equal(logits, expected), n_kept
        model.zero_grad()
        logits.square().sum().backward(retain_graph=True)
        expected.square().sum().backward()
        theirs = dict(cut.named_parameters())
        for name, parameter in model.named_parameters():
            if name in theirs and parameter.grad is not None:
                assert torch.allclose(parameter.grad, theirs[name].grad, atol=1e-5), (n_kept, name)
    assert model.config.num_hidden_layers == tiny.N_LAYERS
    assert not any("forward" in vars(layer) or layer._forward_hooks for layer in layer_list(model))


def test_an_error_inside_restores_the_model():
    model, batch = tiny.model("bert"), tiny.batch()
    first = layer_list(model)[0]
    first.forward = own = first.forward  # as of a library that wraps layers
    before = model(**batch).logits
    with record_outputs(model) as outputs:
        model(**batch)
    with pytest.raises(RuntimeError, match="inside"), replay(model, outputs[:2]):
        assert is_replaying(model)
        raise RuntimeError("inside")
    assert torch.equal(model(**batch).logits, before)
    assert vars(first)["forward"] is own and not is_replaying(model)
