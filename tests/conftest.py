import gc
import os
from contextlib import suppress
from functools import cache

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("LAYERDROP_TEST_GPU", "")

import pytest
import torch

from layerdrop.cli.command import recipe, run_command
from tests import tiny
from tests.made_up import InProcessEngine
from tests.running import QUICK, read_record

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def quiet_machine():
    """No run waits 0.1 s to measure the load of other processes, and no write waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("layerdrop.runs.describe.busy_note", lambda: None)
        patch.setattr(os, "fsync", lambda number: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def frozen_imports():
    """Exclude imported modules from garbage collection: the Trainer collects garbage after each training."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def operators_once():
    """PyTorch's ONNX exporter reads its table of operators once. Otherwise each export reads it again."""
    with pytest.MonkeyPatch.context() as patch:
        with suppress(ImportError, AttributeError):  # another version of PyTorch has another exporter
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> str:
    """A BERT of 6 layers, as a checkpoint folder."""
    return tiny.save(tmp_path_factory.mktemp("models") / "tinybert")


@pytest.fixture(scope="session")
def glue(tmp_path_factory):
    """A folder with every GLUE task, artificial."""
    folder = tmp_path_factory.mktemp("glue")
    for name in tiny.HEADERS:
        tiny.glue(folder, name)
    return str(folder)


@pytest.fixture
def in_process(monkeypatch):
    """Commands execute their runs in this process, instead of in workers that import torch first.

    `cost` also measures the memory in this process.
    """
    from layerdrop.deploy.cost import _peaks_here

    monkeypatch.setattr("layerdrop.cli.engines.make_engine", lambda *rest: InProcessEngine(recipe().run))
    monkeypatch.setattr("layerdrop.deploy.measure.peaks", _peaks_here)


@pytest.fixture
def run(bert, glue, tmp_path, monkeypatch, capsys):
    """run("--flags ...") -> (exit code, record, stdout, stderr); in a working folder of its own."""

    monkeypatch.chdir(tmp_path)

    def call(words: str = "", model: str = bert, data: str | None = glue, output: str | None = "out"):
        argv = ["--model_name_or_path", model, *QUICK]
        argv += ["--data_dir", data] if data else []
        argv += ["--output_dir", output] if output else []
        code = run_command("run", [*argv, *words.split()])
        out, err = capsys.readouterr()
        return code, read_record(output) if output else None, out, err

    return call
