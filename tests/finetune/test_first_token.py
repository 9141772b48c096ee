import copy
from contextlib import nullcontext

import pytest
import torch
from transformers import BertForTokenClassification

from layerdrop.finetune.speedups.dropout import cheap_dropout
from layerdrop.finetune.speedups.first_token import MODEL_TYPES, first_token_only, has_first_token_classifier
from layerdrop.finetune.speedups.no_sync import no_sync
from tests import tiny
from tests.finetune.test_no_sync import arguments

LABELS = {"labels": torch.tensor([0, 1, 1, 0])}


def last_states(model) -> torch.Tensor:
    return model.base_model(**tiny.batch()).last_hidden_state


def results(model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits and the gradients by name."""
    model.zero_grad()
    output = model(**tiny.batch(), **LABELS)
    output.loss.backward()
    return output.logits, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "cheap", "masked"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_same_logits_and_same_gradients(model_type, attention, tmp_path):
    """In training, with a dropout that drops nothing: of every weight, also of the other tokens' queries."""
    plain = tiny.model(model_type)
    for module in plain.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 1e-9 if attention == "cheap" else 0.0
    short = copy.deepcopy(plain)
    contexts = {
        "sdpa": nullcontext(),
        "cheap": cheap_dropout(short),
        "masked": no_sync(short, arguments(tmp_path)),
    }
    assert has_first_token_classifier(short)
    logits, gradients = results(plain.train())
    with first_token_only(short), contexts[attention]:
        short_logits, short_gradients = results(short.train())
        assert last_states(short).shape[1] == 1
        assert short.state_dict().keys() == plain.state_dict().keys()
    assert torch.allclose(short_logits, logits, atol=1e-6) and short_gradients.keys() == gradients.keys()
    assert all(torch.allclose(short_gradients[name], gradients[name], atol=1e-6) for name in gradients)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_afterwards_every_state_has_its_full_shape(model_type):
    """Bit for bit as before, also after an error inside."""
    model, batch = tiny.model(model_type), tiny.batch()
    before = model(**batch, output_hidden_states=True).hidden_states
    with pytest.raises(KeyboardInterrupt), first_token_only(model):
        assert last_states(model).shape[1] == 1
        raise KeyboardInterrupt
    after = model(**batch, output_hidden_states=True).hidden_states
    assert len(before) == len(after) == tiny.N_LAYERS + 1
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert torch.equal(last_states(model), before[-1])
    assert not any("forward" in vars(module) for module in model.modules())
    assert not model.base_model._forward_pre_hooks


def test_hidden_states_are_of_full_shape_inside_where_they_are_asked_for():
    """Distillation and probing read them; the next pass is short again."""
    model, batch = tiny.model("bert"), tiny.batch()
    before = model(**batch, output_hidden_states=True).hidden_states
    with first_token_only(model):
        inside = model(**batch, output_hidden_states=True).hidden_states
        assert all(torch.equal(a, b) for a, b in zip(inside, before, strict=True))
        assert last_states(model).shape[1] == 1
        model.config.output_hidden_states = True
        assert torch.equal(model(**batch).hidden_states[-1], before[-1])
        assert model(**batch, output_hidden_states=False).hidden_states is None
        assert last_states(model).shape == before[-1].shape


def test_attention_at_the_first_token_drops_in_training_alone():
    """Attention of the one layer is the only place with dropout."""
    changes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5, "num_hidden_layers": 1}
    model, batch = tiny.model("bert", **changes), tiny.batch()
    with first_token_only(model):
        assert torch.equal(model(**batch).logits, model(**batch).logits)
        model.train()
        assert not torch.equal(model(**batch).logits, model(**batch).logits)


def test_a_replaced_forward_comes_back():
    model = tiny.model("bert")
    attention = model.bert.encoder.layer[-1].attention
    attention.forward = own = attention.forward
    with first_token_only(model):
        assert attention.forward is not own
    assert vars(attention)["forward"] is own


def test_without_padding_and_with_one_layer():
    model, ids = tiny.model("bert", num_hidden_layers=1), tiny.batch()["input_ids"]
    before = model(ids).logits
    with first_token_only(model):
        assert torch.allclose(model(ids).logits, before, atol=1e-6)


@pytest.mark.parametrize("model_type", sorted(set(tiny.CONFIGS) - set(MODEL_TYPES)))
def test_not_for_other_types(model_type):
    assert not has_first_token_classifier(tiny.model(model_type))


def test_not_for_other_heads_decoders_or_attention():
    assert not has_first_token_classifier(BertForTokenClassification(tiny.config("bert")))
    assert not has_first_token_classifier(tiny.model("bert").base_model)
    assert not has_first_token_classifier(tiny.model("bert", is_decoder=True))
    assert not has_first_token_classifier(tiny.model("bert", attn_implementation="eager"))
