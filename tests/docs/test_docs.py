"""README and docs: every command in a bash block runs on the miniature, shortened.

Commands that need a hub, a GPU or models of one's own stand in blocks without a language.
"""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification

from layerdrop.architectures import FAMILIES
from layerdrop.cli.command import run_command
from layerdrop.criteria.table import STRATEGIES
from layerdrop.surgery import drop_layers
from tests import tiny

pytestmark = pytest.mark.usefixtures("operators_once")
ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FEW_ROWS = ["--max_train_samples", "48", "--max_eval_samples", "32"]
SHORT = [*FEW_ROWS, "--max_steps", "1", "--use_cpu", "--report_to", "none", "--disable_tqdm", "True"]
SHORTENED = {
    "run": SHORT,
    "sweep": [*"--tasks demo-rte --strategies top --k 0 6 --seeds 1 --workers 1".split(), *SHORT],
    "choose-k": ["--k", "1", "--workers", "1", *SHORT],
    "search": ["--max_k", "1", "--workers", "1", *SHORT],
    "cut": ["--use_cpu"],
    "layers": ["--max_train_samples", "16", "--use_cpu"],
    "cost": "--texts 4 --repeats 1 --length 16 --use_cpu".split(),
    "report": [],
}
"""Command -> flags that make it short."""
ELSEWHERE = ("git clone", "bash scripts/demo.sh", "bash scripts/test.sh", ". .venv", "pip install")
"""What makes an environment: continuous integration does it."""


def commands(page):
    """Of the bash blocks, without comments."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and not line.startswith(ELSEWHERE):
                yield words


IN_ORDER = ROOT / "docs" / "getting_started.md"
"""Its commands need each other's results: they run with all their rows, and train for one epoch."""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != IN_ORDER and list(commands(page))], ids=lambda page: page.name
)
def test_commands_run(page, tmp_path, monkeypatch, in_process):
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "docs", "README.md"):
        Path(name).symlink_to(ROOT / name)
    for program, command, *words in commands(page):
        if (program, command) == ("python", "run_glue.py"):
            program, command = "layerdrop", "run"
        assert program == "layerdrop" and command in SHORTENED, (command, words)
        words = [word.replace("random:bert", "demo") for word in words]
        assert run_command(command, [*words, *SHORTENED[command]]) == 0, (command, words)


def test_getting_started(tmp_path, monkeypatch, in_process, capsys):
    """Its data and its five commands, and the lines of their output that do not depend on the machine."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "reviews"
    folder.mkdir()
    monkeypatch.chdir(folder)
    text = IN_ORDER.read_text()
    exec(re.search(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1], {})
    run = list(commands(IN_ORDER))
    assert [words[1] for words in run] == ["run", "run", "report", "export", "predict"]
    for _, command, *words in run:
        if command == "run":
            words += ["--use_cpu", "--max_steps", "8"]
        assert run_command(command, words) == 0, (command, words)
    out = capsys.readouterr().out
    for line in ("kept       0, 1, 2, 3, 4, 5", "parameters 2,515,458 -> 1,325,826 (-47.3%)", "reviews acc"):
        assert line in text and line in out
    assert len(Path("train.csv").read_text().splitlines()) == 1001
    assert len(Path("predictions.tsv").read_text().splitlines()) == 501
    assert Path("runs/top6/export/model.onnx").is_file()


def listed(page: str, column: int) -> list[str]:
    """The names in a column of a page's first table."""
    table = (ROOT / page).read_text().partition("\n| ")[2].partition("\n\n")[0]
    return [name for row in table.splitlines()[2:] for name in re.findall(r"`([\w-]+)`", row.split("|")[column])]


def test_model_types_and_strategies_are_listed():
    assert sorted(listed("docs/families.md", 2)) == sorted(name for family in FAMILIES for name in family.model_types)
    assert sorted(listed("docs/strategies.md", 1)) == sorted(STRATEGIES)


def test_extras_are_installed_from_the_clone():
    """No release has them: `pip install 'layerdrop[onnx]'` finds nothing."""
    extras = re.findall(
        r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text().partition("optional-dependencies]")[2], re.M
    )
    named = {name for page in PAGES for name in re.findall(r"pip install -e '\.\[(\w+)\]'", page.read_text())}
    assert {"onnx", "ray"} <= named <= set(extras)
    assert not [page.name for page in PAGES if "layerdrop[" in page.read_text()]


def test_the_same_layers_in_plain_transformers(tmp_path, monkeypatch):
    """The lines of docs/deploy.md: what they make gives the same logits when it is loaded again."""
    monkeypatch.chdir(tmp_path)
    tiny.save(tmp_path / "bert-base-uncased")
    kept, lines = (
        [0, 2, 3, 5],
        re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL | re.M),
    )
    Path("layers.json").write_text(json.dumps({"kept": kept}))
    names = {}
    exec("\n".join(lines), names)
    names["model"].save_pretrained("cut")
    again, batch = AutoModelForSequenceClassification.from_pretrained("cut"), tiny.batch()
    expected = drop_layers(AutoModelForSequenceClassification.from_pretrained("bert-base-uncased"), [1, 4])
    assert len(again.bert.encoder.layer) == again.config.num_hidden_layers == len(kept)
    with torch.no_grad():
        logits = [model.eval()(**batch).logits for model in (again, names["model"], expected)]
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])


def test_every_page_is_in_the_sites_navigation():
    """And each page of measurements is linked from a page on its subject."""

    def paths(entry):
        return [entry] if isinstance(entry, str) else [path for part in entry for path in paths_of(part)]

    def paths_of(part):
        return paths(*part.values()) if isinstance(part, dict) else [part]

    navigation = paths(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(navigation) == sorted([*pages, "index.md", "CONTRIBUTING.md"])
    text = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert [page for page in pages if page.startswith("results/") and f"({page}" not in text] == []


def test_citation():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert [paper["authors"][0]["family-names"] for paper in cited] == ["Sajjad", "Peer"]
    assert all(paper["doi"].startswith("10.1016/") for paper in cited)
