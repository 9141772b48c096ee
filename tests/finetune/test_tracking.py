"""The project and the end of a training's run in trackers, which are stand-ins here."""

import os
import signal
import sys
import time
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback, TrainingArguments
from transformers.integrations import integration_utils
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from layerdrop.cli.command import run_command
from layerdrop.finetune import interrupt
from layerdrop.finetune import tracking as module
from layerdrop.finetune.tracking import VARIABLES, missing_package, tracking
from tests.processes import kill_at_checkpoint
from tests.running import QUICK


class Tracker:
    """W&B, MLflow or trackio with at most one open run."""

    def __init__(self):
        self.run, self.ended = None, []
        self.context_vars = SimpleNamespace(current_run=SimpleNamespace(get=lambda: self.run))

    def active_run(self):
        return self.run

    def finish(self, exit_code=None):
        self.run = None
        self.ended.append(exit_code)

    end_run = finish


@pytest.fixture
def trackers(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    trackers = {name: Tracker() for name in ("wandb", "mlflow", "trackio")}
    for name, tracker in trackers.items():
        monkeypatch.setitem(sys.modules, name, tracker)
    return trackers


def settings(folder, **values):
    return TrainingArguments(str(folder), use_cpu=True, report_to=[], **values)


def test_project_of_every_integration(trackers, tmp_path, monkeypatch):
    """During the training only. The user's variable counts, and so does the library's default of each integration."""
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with tracking(settings(tmp_path, project="study")):
        assert [os.environ[name] for name in VARIABLES] == ["mine"] + ["study"] * (len(VARIABLES) - 1)
    with tracking(settings(tmp_path)):
        assert [name for name in VARIABLES if name in os.environ] == ["WANDB_PROJECT"]
    assert [name for name in VARIABLES if name in os.environ] == ["WANDB_PROJECT"]


@pytest.mark.parametrize("fails, ended", [(False, [0, "FINISHED", None]), (True, [1, "FAILED", None])])
def test_open_runs_end_with_the_training(trackers, tmp_path, fails, ended):
    with suppress(ZeroDivisionError), tracking(settings(tmp_path)):
        for tracker in trackers.values():
            tracker.run = "a run"
        1 / (not fails)
    assert [tracker.ended for tracker in trackers.values()] == [[end] for end in ended]


def test_a_run_of_the_caller_stays_open(trackers, tmp_path):
    trackers["wandb"].run = "the caller's"
    with tracking(settings(tmp_path)):
        trackers["mlflow"].run = "the training's"
    assert trackers["wandb"].run == "the caller's" and trackers["mlflow"].ended == ["FINISHED"]


def test_trackers_are_not_imported(tmp_path, monkeypatch):
    for name in ("wandb", "mlflow", "trackio"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with tracking(settings(tmp_path)):
        pass
    assert not {"wandb", "mlflow", "trackio"} & sys.modules.keys()


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        ("--drop_when elastic --elastic_k 2 --drop_k 2", ["prior"]),  # nothing else trains
        ("--drop_when after --drop_strategy top --drop_k 2", ["prior"]),
        ("--drop_when finetuned --drop_strategy top --drop_k 2", ["out"]),
        ("--drop_strategy top --drop_k 2", ["out"]),
    ],
)
def test_one_training_of_each_run_is_reported(run, monkeypatch, words, reported):
    folders = []

    class Tracker(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            """See TrainerCallback."""
            folder = Path(args.output_dir)
            assert args.run_name == folder.name
            folders.append(folder.parent.name if folder.parent.name == "prior" else folder.name)

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Tracker)
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    code, _, _, err = run(f"--task_name rte --max_steps 1 --report_to tensorboard {words}")
    assert code == 0 and folders == reported, err


class Writer:
    """TensorBoard's SummaryWriter: one file for each writer."""

    purged = []
    """`purge_step` of each writer: from this step on, the values of earlier files are hidden."""

    def __init__(self, log_dir, filename_suffix="", purge_step=None):
        self.purged.append(purge_step)
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        self.file = Path(log_dir) / f"events.out.tfevents.{time.time_ns()}.host{filename_suffix}"
        self.file.write_text("")
        self.words = ""

    def add_text(self, *words):
        self.words += "x"

    add_scalar = add_text

    def flush(self):
        self.file.write_text(self.words)

    def close(self):
        self.flush()
        (self.file.parent / "events.out.tfevents.other").write_text("of another writer, during the run")


@pytest.fixture
def tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    monkeypatch.setattr(Writer, "purged", [])
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)


REPORTED = "--task_name rte --max_steps 2 --logging_steps 1 --report_to tensorboard"


def events(folder="out") -> set[str]:
    """The event files, except the one of another writer, which is never deleted."""
    found = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("events.out*")}
    return found - {"events.out.tfevents.other"}


def test_tensorboards_run_is_the_runs_folder(run, tensorboard, monkeypatch):
    """A repeated run replaces its own curves. Event files of the user are never deleted."""
    assert run(REPORTED)[0] == 0 and len(first := events()) == 1 and not Path("out/runs").exists()
    assert run(REPORTED)[0] == 0 and events() == first  # already done
    Path("out/runs").mkdir()
    Path("out/runs/events.out.tfevents.mine").write_text("mine")
    assert run(f"{REPORTED} --overwrite_output_dir")[0] == 0
    assert len(second := events()) == 2 and first.isdisjoint(second) and "runs/events.out.tfevents.mine" in second
    Path("out/events.out.tfevents.mine").write_text("mine")
    mine = {"events.out.tfevents.mine", "runs/events.out.tfevents.mine"}
    assert run(f"{REPORTED} --overwrite_output_dir")[0] == 0 and events() > mine and events().isdisjoint(second - mine)
    assert run(f"{REPORTED.replace('tensorboard', 'none')} --overwrite_output_dir")[0] == 0 and events() == mine
    assert Path("out/events.out.tfevents.other").exists()
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "elsewhere")
    assert run(REPORTED, output="other")[0] == 0 and not events("other") and len(events("elsewhere")) == 1


@pytest.mark.parametrize("resumed", ["", "--report_to none"])
def test_a_resumed_run_continues_its_curves(run, tensorboard, monkeypatch, resumed):
    usual = interrupt.Interrupt.on_step_end

    def stop(self, args, state, control, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        usual(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(interrupt.Interrupt, "on_step_end", stop)
        assert run(REPORTED)[0] == 130 and len(first := events()) == 1
    code, _, _, err = run(f"{REPORTED} {resumed} --resume_from_checkpoint")
    assert code == 0 and first <= events() and len(events()) == (1 if resumed else 2), err
    assert Writer.purged == ([None] if resumed else [None, 2])
    assert run(f"{REPORTED} --overwrite_output_dir")[0] == 0 and len(events()) == 1 and first.isdisjoint(events())


def test_a_killed_elastic_run_continues_the_curves_of_its_training(run, bert, glue, tensorboard):
    """In the folder of the training, which alone is reported. Files of other folders stay."""
    words = "--task_name rte --drop_when elastic --elastic_k 2 4 --num_train_epochs 1 --report_to tensorboard"
    words += " --resume_from_checkpoint auto"
    argv = ["--model_name_or_path", bert, "--data_dir", glue, *QUICK, "--output_dir", "out", *words.split()]
    mine = {"mine/events.out.tfevents.1.layerdrop", "prior/events.out.tfevents.1.layerdrop"}
    for name in mine:
        (path := Path("out", name)).parent.mkdir(parents=True)
        path.write_text("mine")
    kill_at_checkpoint(2, lambda: run_command("run", argv))
    (killed,) = events() - mine
    code, _, _, err = run(words)
    assert code == 0 and Writer.purged == [3], err
    resumed = {name for name in events() - mine - {killed} if name.endswith(".layerdrop")}
    assert events() > {killed, *mine} and len(resumed) == 1
    assert {Path(name).parent.name[:35] for name in (killed, *resumed)} == {"tinybert_rte_full_k0_elastic_seed42"}


def test_the_missing_package_of_every_tracker(monkeypatch):
    """tensorboard, for example, also runs with tensorboardX: the library decides if the module is missing."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    for name in [name for name in dir(integration_utils) if name.startswith("is_") and name.endswith("_available")]:
        monkeypatch.setattr(integration_utils, name, lambda: False)
    packages = {name: missing_package(name) for name in INTEGRATION_TO_CALLBACK}
    others = {"azure_ml": "azureml-sdk", "comet_ml": "comet-ml", "flyte": "flytekit", "kubeflow": None}
    assert packages == {name: name for name in INTEGRATION_TO_CALLBACK} | others
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    assert missing_package("tensorboard") is None
    found = {"comet_ml": ModuleSpec("comet_ml", None, origin="__init__.py"), "wandb": ModuleSpec("wandb", None)}
    monkeypatch.setattr(module, "find_spec", found.get)  # wandb is a folder of logs
    assert missing_package("comet_ml") is None and missing_package("wandb") == "wandb"
