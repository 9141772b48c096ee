"""What the project overrides or uses of the library and is not promised to stay: each name is still there.

A method that was renamed would no longer be overridden, and say nothing.
"""

import importlib
import inspect

import pytest
import transformers
from transformers import AutoTokenizer, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from layerdrop.finetune.interrupt import Interrupt
from layerdrop.finetune.log import Bar, LogLine, Losses
from layerdrop.finetune.trainer import FineTuner, OneGPU

OWN = {"__init__", "restore_signals", "save_run", "_ask", "_unwrap_model", "add", "logged", "mean"}
"""Methods of subclasses that override nothing."""
USED = (
    ("transformers.modeling_utils", "PreTrainedModel._init_weights"),
    ("transformers.modeling_utils", "PreTrainedModel.base_model_prefix"),
    ("transformers.trainer", "Trainer._train_batch_size"),
    ("transformers.trainer_utils", "seed_worker"),
    ("transformers.trainer_pt_utils", "nested_gather"),
    ("transformers", "TrainerState.stateful_callbacks"),
    ("transformers.utils.hub", "extract_commit_hash"),
    ("transformers.utils", "cached_file"),
    ("transformers", "TrainingArguments.n_gpu"),
    ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
    ("accelerate", "Accelerator.unwrap_model"),
)


@pytest.mark.parametrize("own", [FineTuner, OneGPU, LogLine, Losses, Bar, Interrupt], ids=lambda kind: kind.__name__)
def test_an_overridden_method_is_still_there(own):
    """With every parameter that its override names."""
    overridden = {name: value for name, value in vars(own).items() if inspect.isfunction(value) and name not in OWN}
    assert overridden or own is OneGPU
    for name, method in overridden.items():
        theirs = getattr(own.__mro__[1], name)
        named = [p for p in inspect.signature(method).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        allowed = inspect.signature(theirs).parameters
        keywords = any(p.kind is p.VAR_KEYWORD for p in allowed.values())
        assert keywords or {p.name for p in named} <= set(allowed), name


def test_the_trainer_calls_what_is_overridden():
    """Each of these methods is what training goes through."""
    source = inspect.getsource(Trainer)
    for call in ("self.get_train_dataloader()", "self.training_step(", "self.compute_loss(", "self.evaluate("):
        assert call in source or call in inspect.getsource(inspect.getmodule(Trainer))
    for name in ("model_accepts_loss_kwargs", "loss_is_scaled_for_ga"):
        assert name in inspect.getsource(inspect.getmodule(Trainer)), name
    assert "_original_forward" in inspect.getsource(importlib.import_module("accelerate.utils.other"))


@pytest.mark.parametrize(("module", "name"), USED)
def test_a_used_name_is_still_there(module, name):
    found = importlib.import_module(module)
    owner, _, attribute = name.rpartition(".")
    for part in filter(None, owner.split(".")):
        found = getattr(found, part)
    assert hasattr(found, attribute) or attribute in inspect.getsource(found)


def test_a_switch_of_cached_file_is_still_there():
    assert "_raise_exceptions_for_missing_entries" in inspect.getsource(transformers.utils.hub)
    assert "_commit_hash" in inspect.getsource(transformers.configuration_utils)


def test_names_that_are_imported_from_the_library():
    assert issubclass(Interrupt, TrainerCallback) and issubclass(Bar, ProgressCallback) and PrinterCallback
    assert issubclass(FineTuner, Trainer) and issubclass(OneGPU, TrainingArguments)
    assert AutoTokenizer and PreTrainedModel
