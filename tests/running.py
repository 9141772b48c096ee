"""What tests of the whole script share."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent
QUICK = ["--use_cpu", "--report_to", "none", "--precision", "fp32", "--per_device_train_batch_size", "8"]


def read_record(folder) -> dict | None:
    """The record in a folder, as JSON; None without one that can be read."""
    try:
        return json.loads((Path(folder) / "record.json").read_text())
    except (FileNotFoundError, ValueError):
        return None


def weights(folder) -> dict[str, torch.Tensor]:
    """The saved model's."""
    return load_file(Path(folder) / "model.safetensors")


def same(a: dict, b: dict) -> bool:
    """Whether two models are equal to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_same_results(folder, other) -> None:
    """Two folders have the same files, and the same bytes in all weights and predictions."""
    files, others = (
        sorted(p.relative_to(root) for p in Path(root).rglob("*") if p.is_file()) for root in (folder, other)
    )
    assert files == others
    for name in (name for name in files if name.suffix in (".safetensors", ".tsv")):
        assert Path(folder, name).read_bytes() == Path(other, name).read_bytes(), name


def write_table(path, header, rows) -> None:
    """Write a tab-separated file, without quoting."""
    lines = ["\t".join(map(str, row)) for row in (header, *rows)]
    Path(path).write_text("\n".join(lines) + "\n")


def predictions(path) -> list[list[str]]:
    """The rows of a file of predictions, without its header."""
    return [line.split("\t") for line in Path(path).read_text().splitlines()[1:]]
