"""The library's settings of a run: what they are built from, and what of them is written to disk."""

import pickle

import pytest
import torch
from transformers import TrainingArguments

from layerdrop.architectures import ModelSpec
from layerdrop.cli.command import run_command
from layerdrop.data.spec import DataSpec
from layerdrop.errors import UserError
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.training_arguments import check_checkpointing, training_arguments
from tests import tiny


def built(tmp_path, precision="fp32", **trainer):
    options = Options(str(tmp_path / "out"), use_cpu=True, trainer={"report_to": [], **trainer})
    return training_arguments(RunSpec(ModelSpec("x"), DataSpec("rte"), precision=precision), options)


def test_a_setting_that_the_library_refuses(tmp_path):
    """The advice holds for flags, too."""
    with pytest.raises(UserError, match=r"^TrainingArguments: .*Correct the training settings\.$") as error:
        built(tmp_path, no_such_setting=1)
    assert "TrainSpec" not in str(error.value) and "Options" not in str(error.value)


def test_saved_settings_are_the_librarys_own(tmp_path):
    """Readable where this project is not installed: the file names none of its modules."""
    args, path = built(tmp_path, hub_token="hf_secret", run_name="a name"), tmp_path / "training_args.bin"
    torch.save(args, path)
    assert b"layerdrop" not in path.read_bytes()
    read = torch.load(path, weights_only=False)
    assert type(read) is TrainingArguments and read.run_name == "a name" and str(read).startswith("TrainingArguments(")


def test_saved_settings_hold_no_secret(tmp_path):
    args = built(tmp_path, hub_token="hf_secret", push_to_hub=True)
    again = pickle.loads(pickle.dumps(args))
    assert type(again) is TrainingArguments and again.hub_token is None and args.hub_token == "hf_secret"
    assert (again.push_to_hub, again.learning_rate, again.device) == (True, args.learning_rate, args.device)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("launcher", ["no", "bf16", "fp16"])
def test_the_precision_is_the_runs_whatever_a_launcher_says(precision, launcher, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    assert built(tmp_path, precision).mixed_precision == {"fp32": "no"}.get(precision, precision)


def test_no_column_of_a_batch_is_removed(tmp_path):
    """A teacher's rows are found by a column that the model does not know."""
    assert built(tmp_path, remove_unused_columns=True).remove_unused_columns is False


@pytest.mark.parametrize(
    ("model_type", "supports"), [("bert", True), ("mpnet", False), ("albert", False), ("xlnet", False)]
)
def test_activation_checkpointing_needs_a_model_that_supports_it(model_type, supports, tmp_path):
    config = tiny.config(model_type)
    check_checkpointing(built(tmp_path), config)
    for name in ("activation_checkpointing", "gradient_checkpointing"):
        args = built(tmp_path, **{name: True})
        if supports:
            check_checkpointing(args, config)
        else:
            with pytest.raises(UserError, match=f"^--gradient_checkpointing, --activation_.*: .* {model_type} models"):
                check_checkpointing(args, config)


def test_a_negative_maximum_loss_is_refused_before_anything_is_read(capsys):
    assert run_command("choose-k", ["--max_loss", "1", "-1", "--model_name_or_path", "nowhere/at-all"]) == 2
    assert capsys.readouterr().err == "error: --max_loss -1.0: must be 0 or more.\n"
