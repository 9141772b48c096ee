"""The patches of docs/extending.md, applied to a copy of the repository as the page says, work."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
INSTRUCTION = re.compile(r"^In `(\S+)`, (above|as the last row of) `([^`]+)`:\n\n```(?:python)?\n(.*?)```", re.M | re.S)
END_OF_TABLE = re.compile(r"^(    \)\n\}|\)|\})$", re.M)


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """A copy of the repository with all patches."""
    root = tmp_path_factory.mktemp("patched")
    for name in ("layerdrop", "tests", "configs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run_glue.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    patches = INSTRUCTION.findall((ROOT / "docs/extending.md").read_text())
    assert len(patches) == 7
    for file, where, name, block in patches:
        text = (root / file).read_text()
        if where == "above":
            at, block = text.index(f"\n{name}\n") + 1, f"{block}\n\n"
        else:
            at = END_OF_TABLE.search(text, text.index(f"\n{name} = ")).start()
        (root / file).write_text(text[:at] + block + text[at:])
    return root


SCRIPT = """
import contextlib, io, json, sys
import numpy as np
import pytest
from layerdrop.cli.command import run_command
from safetensors.numpy import load_file
flags = ["configs/demo.yaml", "--use_cpu", "--dry_run", "--json", "--drop_k", "4", "--drop_strategy"]
results = {}
for name in ("ends", "weight-norm"):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run_command("run", [*flags, name]) == 0
    results[name] = json.loads(out.getvalue())
weights = load_file("layerdrop/demo/checkpoint/model.safetensors")
norms = [(key, float(np.linalg.norm(w.astype(float)))) for key, w in weights.items()
         if key.endswith("output.dense.weight") and "attention" not in key]
results["norms"] = [norm for _, norm in sorted(norms, key=lambda pair: int(pair[0].split("layer.")[1].split(".")[0]))]
print(json.dumps(results))
files = [f"tests/{name}.py" for name in ("small/test_surgery", "criteria/test_scorers", "criteria/test_criteria")]
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "gemma", *files]))
"""


@pytest.fixture(scope="module")
def results(patched) -> list[str]:
    """Lines of the output of SCRIPT in the copy: the results of dry runs, then the tests of the new model type."""
    result = subprocess.run([sys.executable, "-c", SCRIPT], cwd=patched, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


def test_strategy_and_criterion(results):
    """Each strategy's layers in a dry run. `weight-norm` has the scores that numpy computes from the weights."""
    found = json.loads(results[0])
    assert found["ends"]["dropped"] == [0, 1, 10, 11]
    scores, norms = found["weight-norm"]["scores"], found["norms"]
    assert scores == pytest.approx(norms, rel=1e-6) and len(scores) == 12
    assert found["weight-norm"]["dropped"] == sorted(sorted(range(12), key=lambda i: norms[i])[:4])


def test_family(results):
    """The contract tests of the new model type pass in the copy."""
    assert int(re.search(r"(\d+) passed", results[-1])[1]) > 15, results
