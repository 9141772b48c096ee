import copy

import pytest
import torch

from layerdrop.cpu import use_fast_dropout
from layerdrop.first_token import MODEL_TYPES, compute_first_token_alone
from tests import tiny


@pytest.mark.parametrize("fast_dropout", [False, True])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_same_logits_and_same_gradients(model_type, fast_dropout):
    """In training, without dropout: of every weight, also the queries that the other tokens would have had."""
    plain = tiny.model(model_type)
    if fast_dropout:
        use_fast_dropout(plain)
    for module in plain.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 1e-9 if fast_dropout else 0.0
    short = copy.deepcopy(plain)
    assert compute_first_token_alone(short)
    batch = tiny.batch() | {"labels": torch.tensor([0, 1, 1, 0])}
    found = []
    for model in (plain.train(), short.train()):
        output = model(**batch)
        output.loss.backward()
        found.append((output.logits, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (logits, gradients), (short_logits, short_gradients) = found
    assert torch.allclose(short_logits, logits, atol=1e-6) and short_gradients.keys() == gradients.keys()
    assert all(torch.allclose(short_gradients[name], gradients[name], atol=1e-6) for name in gradients)
    assert short.base_model(**tiny.batch()).last_hidden_state.shape[1] == 1
    assert short.state_dict().keys() == plain.state_dict().keys()


def test_without_padding_and_with_one_layer():
    plain = tiny.model("bert", num_hidden_layers=1)
    short = copy.deepcopy(plain)
    compute_first_token_alone(short)
    ids = tiny.batch()["input_ids"]
    assert torch.allclose(short(ids).logits, plain(ids).logits, atol=1e-6)


@pytest.mark.parametrize("model_type", sorted(set(tiny.CONFIGS) - set(MODEL_TYPES)))
def test_other_types_are_left_alone(model_type):
    model = tiny.model(model_type)
    batch = tiny.batch(left=model_type == "xlnet")
    before = model(**batch).logits
    assert not compute_first_token_alone(model) and torch.equal(model(**batch).logits, before)
