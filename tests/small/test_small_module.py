"""The files directly in layerdrop/ work without the rest of the project, under another package name."""

import shutil
import subprocess
import sys
from pathlib import Path

import layerdrop
from tests import tiny

PACKAGE = Path(layerdrop.__file__).parent
FILES = ("errors", "strategies", "architectures", "surgery", "checkpoints", "loading", "states")
SCRIPT = """
import sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from reduced.errors import UserError
from reduced.loading import load_classifier
from reduced.states import layer_states
from reduced.strategies import select
from reduced.surgery import drop_layers, without

folder, saved = sys.argv[1:]
batch = AutoTokenizer.from_pretrained(folder)(["w1 w2 w3", "w4"], padding=True, return_tensors="pt")
full = AutoModelForSequenceClassification.from_pretrained(folder).eval()
dropped = select("symmetric", 6, k=2)
assert dropped == [2, 3]
with torch.no_grad():
    before = full(**batch).logits
    with without(full, dropped):
        expected = full(**batch).logits
    assert torch.equal(full(**batch).logits, before) and not torch.equal(expected, before)
    assert len(layer_states(full, batch).outputs) == 6
    read, new = load_classifier(folder, dropped)
    assert torch.equal(read(**batch).logits, expected) and new == []
    assert torch.equal(drop_layers(full, dropped)(**batch).logits, expected)
    read.save_pretrained(saved)
    again = AutoModelForSequenceClassification.from_pretrained(saved).eval()
    assert again.config.num_hidden_layers == 4 and torch.equal(again(**batch).logits, expected)
try:
    drop_layers(full, [9])
except UserError as error:
    assert "no layer 9 in a model of 4 layers" in str(error)
assert not [name for name in sys.modules if name.partition(".")[0] in ("layerdrop", "run_glue")]
print("done")
"""


def test_the_small_module_is_these_files():
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"} == set(FILES)


def test_a_copy_works_alone(tmp_path):
    (tmp_path / "reduced").mkdir()
    for name in FILES:
        shutil.copy(PACKAGE / f"{name}.py", tmp_path / "reduced")
    model = tiny.save(tmp_path / "model")
    words = [sys.executable, "-c", SCRIPT, model, str(tmp_path / "saved")]
    result = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, env={"PATH": "", "HF_HUB_OFFLINE": "1"}
    )
    assert result.returncode == 0 and result.stdout == "done\n", result.stderr
