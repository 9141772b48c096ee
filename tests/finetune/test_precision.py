"""The head in fp32, and nothing else."""

import pytest
import torch

from layerdrop.errors import UserError
from layerdrop.finetune.precision import FP32_ONLY, autocast, check_precision, head_in_fp32
from tests import tiny


def heads(model):
    return [child for name, child in model.named_children() if name != model.base_model_prefix]


@pytest.mark.parametrize("model_type", FP32_ONLY)
def test_fp32_only(model_type):
    """If this fails, the library computes the model in bf16 now: take it out of FP32_ONLY."""
    model, bf16 = tiny.model(model_type), autocast(torch.device("cpu"), "bf16")
    with pytest.raises(RuntimeError, match="overflow"), torch.no_grad(), bf16:
        model(**tiny.batch())
    with pytest.raises(UserError, match=f"computes {model_type} only in fp32. Add --precision fp32."):
        check_precision("bf16", model.config)
    check_precision("fp32", model.config)
    check_precision("bf16", tiny.config("bert"))


@pytest.mark.parametrize("model_type", sorted(tiny.CONFIGS.keys() - set(FP32_ONLY)))
def test_the_head_alone_computes_in_fp32(model_type):
    model = tiny.model(model_type)
    inputs = tiny.batch(left=model_type == "xlnet")
    before = [dict(vars(module)) for module in model.modules()]
    seen = []
    hook = next(
        m for head in heads(model)[::-1] for m in head.modules() if isinstance(m, torch.nn.Linear)
    ).register_forward_hook(lambda _, args, output: seen.append((args[0].dtype, output.dtype)))
    with torch.no_grad(), head_in_fp32(model), autocast(torch.device("cpu"), "bf16"):
        logits = model(**inputs).logits
    assert logits.dtype == torch.float32 and seen == [(torch.float32, torch.float32)]
    with torch.no_grad(), autocast(torch.device("cpu"), "bf16"):
        assert model.base_model(**inputs)[0].dtype in (torch.bfloat16, torch.float32)
    hook.remove()
    assert all("forward" not in vars(module) for module in model.modules())
    assert [set(vars(module)) for module in model.modules()] == [set(names) for names in before]


def test_it_is_undone_after_an_error():
    model = tiny.model("bert")
    with pytest.raises(ZeroDivisionError), head_in_fp32(model):
        assert "forward" in vars(model.classifier)
        raise ZeroDivisionError
    assert "forward" not in vars(model.classifier)


def test_what_was_there_before_comes_back():
    """A speed-up that replaces the head's method is left alone."""
    model = tiny.model("bert")
    own = model.classifier.forward
    model.classifier.forward = own
    with head_in_fp32(model):
        pass
    assert vars(model.classifier)["forward"] is own


def test_fp32_is_no_autocast():
    with autocast(torch.device("cpu"), "fp32"):
        assert not torch.is_autocast_enabled("cpu")
    with autocast(torch.device("cpu"), "bf16"):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
