import math

import pytest
import torch
from torch import nn

from layerdrop.finetune.speedups.dropout import ATTENTION, Dropout, attention, cheap_dropout, drop
from tests import tiny


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_has_its_probability_and_scale(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(1001, 999, dtype=dtype)
    y = drop(x, p)
    assert set(y.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - p), dtype=dtype))}
    dropped = (y == 0).double().mean()
    assert abs(dropped - p) < 4 * math.sqrt(p * (1 - p) / x.numel())  # four standard deviations
    neighbours = ((y[:, :-1] == 0) & (y[:, 1:] == 0)).double().mean()
    assert abs(neighbours - p * p) < 4 * math.sqrt(p * p / x.numel())  # the elements of one draw are independent


def test_dropout_follows_torchs_generator_and_its_gradient_its_mask():
    x = torch.randn(7, 5, requires_grad=True)
    torch.manual_seed(3)
    y = drop(x, 0.4)
    torch.manual_seed(3)
    assert torch.equal(y, drop(x, 0.4)) and not torch.equal(y, drop(x, 0.4))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, (y != 0) / (1 - 0.4)) and 0 < (y == 0).sum() < 35


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_extremes_and_evaluation(p):
    x = torch.randn(9, 9)
    assert torch.equal(Dropout(p)(x), x * (1 - p)) and torch.equal(Dropout(0.5).eval()(x), x)


@pytest.mark.parametrize("form", ["none", "boolean", "additive"])
def test_attention_is_sdpas_formula(form):
    """With a probability that drops nothing, against PyTorch's own in evaluation mode."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4) for _ in range(3))
    keep = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    keep[1, :, :, 3:] = False
    mask = {"none": None, "boolean": keep, "additive": torch.where(keep, 0.0, torch.finfo(torch.float32).min)}[form]
    module = nn.Module()
    module.is_causal = False
    ours, _ = attention(module, query, key, value, mask, dropout=1e-9)
    theirs, _ = attention(module, query, key, value, mask, dropout=0.0)
    assert ours.shape == (2, 5, 3, 4) and torch.allclose(ours, theirs, atol=1e-6)
    scaled, _ = attention(module, query, key, value, mask, dropout=1e-9, scaling=1.0)
    assert torch.allclose(scaled, attention(module, query, key, value, mask, scaling=1.0)[0], atol=1e-6)


def test_a_row_that_attends_to_nothing_has_numbers_in_bf16():
    """The least number in fp32 would be minus infinity in bf16."""
    module = nn.Module()
    module.is_causal = False
    query, key, value = torch.randn(3, 1, 2, 4, 8)
    mask = torch.full((1, 1, 1, 4), torch.finfo(torch.float32).min)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(module, query, key, value, mask, dropout=0.1)[0].isfinite().all()


def test_attention_drops_weights_with_their_probability():
    torch.manual_seed(0)
    module = nn.Module()
    module.is_causal = False
    zero, one = torch.zeros(50, 4, 100, 8), torch.eye(100).expand(50, 4, 100, 100)
    weights = attention(module, zero, zero, one, None, dropout=0.1)[0]
    assert torch.allclose(weights.unique(), torch.tensor([0.0, 1 / 90]))
    assert abs((weights == 0).double().mean() - 0.1) < 4 * math.sqrt(0.1 * 0.9 / weights.numel())


@pytest.mark.parametrize("tokens", [5, 20, 32, 40, 70])
def test_attention_in_bf16_is_within_its_rounding(tokens):
    torch.manual_seed(0)
    exact = [torch.randn(2, 3, tokens, 4) for _ in range(3)]
    module = nn.Module()
    module.is_causal = False
    rounded, _ = attention(module, *(x.bfloat16() for x in exact), None, dropout=1e-9)
    assert rounded.dtype == torch.bfloat16
    assert torch.allclose(rounded.float(), attention(module, *exact, None, dropout=0.0)[0], atol=0.03)


@pytest.mark.parametrize("model_type", sorted(tiny.CONFIGS))
def test_every_family_computes_the_same(model_type):
    """No bit differs in evaluation; in training the generator alone decides what is dropped."""
    model, batch = tiny.model(model_type), tiny.batch(left=model_type == "xlnet")
    before = model(**batch).logits
    with cheap_dropout(model):
        assert not any(type(module) is nn.Dropout for module in model.modules())
        assert torch.equal(model(**batch).logits, before)
        assert ATTENTION not in str(model.config.to_dict())  # a checkpoint saved inside is an ordinary one
        model.train()
        torch.manual_seed(0)
        first = model(**batch).logits
        drops = any(module.p for module in model.modules() if isinstance(module, Dropout))  # ModernBERT's are 0
        assert torch.equal(first, model(**batch).logits) != drops
        torch.manual_seed(0)
        assert torch.equal(first, model(**batch).logits)


@pytest.mark.parametrize("model_type", sorted(tiny.CONFIGS))
def test_the_modules_and_the_attention_of_before_come_back(model_type):
    model = tiny.model(model_type)
    modules, attention_name = list(model.named_modules()), model.config._attn_implementation
    with pytest.raises(KeyboardInterrupt), cheap_dropout(model):
        model.train()
        raise KeyboardInterrupt
    assert [(name, id(module)) for name, module in model.named_modules()] == [(n, id(m)) for n, m in modules]
    assert model.config._attn_implementation == attention_name
    assert all(module.training for module in model.modules())


def test_attention_inside_a_model_drops_too(monkeypatch):
    """A model without any other dropout."""
    model, batch = tiny.model("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5).train(), tiny.batch()
    with cheap_dropout(model):
        monkeypatch.setattr("layerdrop.finetune.speedups.dropout._keep_mask", lambda x, p: torch.zeros_like(x))
        nothing = model(**batch).logits
        monkeypatch.setattr("layerdrop.finetune.speedups.dropout._keep_mask", lambda x, p: torch.full_like(x, 1 - p))
        everything = model(**batch).logits
    assert torch.allclose(everything, model.eval()(**batch).logits, atol=1e-5)
    assert not torch.allclose(everything, nothing, atol=1e-2)
