"""README and docs as a whole: length, links and anchors, every command line, names."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from layerdrop.cli.command import COMMANDS, command_parser, flag_name, unknown_flags
from layerdrop.cli.cut import SHARED
from layerdrop.cli.parsing import parse, run_parser
from layerdrop.errors import UserError

ROOT = Path(__file__).parent.parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
MOST_LINES, MOST_LINES_README = 150, 140
PATCHED = "extending.md"
"""The page whose commands need its own patches. test_extending.py runs them."""
FENCE = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)


def of_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=of_page)


@pytest.mark.parametrize("page", [page for page in DOCS if page.parent.name != "results"], ids=of_page)
def test_a_page_is_short(page):
    assert len(page.read_text().splitlines()) <= MOST_LINES


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES_README


# ---- links -----------------------------------------------------------------------------------------------------------
@cache
def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    names: list[str] = []
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()).replace(" ", "-")
        names.append(f"{name}-{names.count(name)}" if name in names else name)
    return set(names)


def links(page: Path) -> list[tuple[Path, str]]:
    """(file or folder, anchor) of every relative link outside code."""
    text = re.sub(r"`[^`]*`", "", FENCE.sub("", page.read_text()))
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:", target)]
    return [
        ((page.parent / path).resolve() if path else page, anchor)
        for path, _, anchor in (target.partition("#") for target in targets)
    ]


def test_anchors():
    text = "# The `cost` of K = 6\n## [Links](a.md)\n## Links\n```\n# B\n```\n"
    assert anchors(text) == {"the-cost-of-k--6", "links", "links-1"}


@every_page
def test_links_and_anchors(page):
    for path, anchor in links(page):
        assert path.exists(), path
        assert not anchor or anchor in anchors(path.read_text()), f"{path.name}#{anchor}"


def test_every_page_is_reachable_from_the_readme():
    seen, new = set(), {ROOT / "README.md"}
    while new:
        seen |= new
        new = {path for page in new for path, _ in links(page) if path.suffix == ".md"} - seen
    assert set(DOCS) <= seen, set(DOCS) - seen


def test_links_of_the_site_stay_inside():
    """mkdocs --strict refuses a link from docs/ to a file outside."""
    outside = [(page.name, path) for page in DOCS for path, _ in links(page) if ROOT / "docs" not in path.parents]
    assert not outside


# ---- commands --------------------------------------------------------------------------------------------------------
def commands(page: Path) -> list[list[str]]:
    """[subcommand, words] of every command line in a code block, with or without a prompt."""
    found = []
    for block in FENCE.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"^\$ ", "", line)
            if re.match(r"layerdrop [a-z]|python run_glue\.py |torchrun ", line):
                words = shlex.split(line, comments=True)
                at = words.index("run_glue.py") if "run_glue.py" in words else None
                found.append(words[1:] if at is None else ["run", *words[at + 1 :]])
    return found


def check(command: str, words: list[str]) -> None:
    """Parse a command line as the command does. Raises UserError or AssertionError."""
    if command == "run" and "..." not in words:
        parse(words)
        return
    words = [word for word in words if word != "..."]
    parser = command_parser(command) if command != "run" else run_parser()
    if command in ("compare", "cost", "cut", "export", "predict", "report"):
        parser.parse_args(words)
        return
    _, rest = parser.parse_known_args(words)
    rest = rest[1:] if command == "search" and rest and rest[0].endswith(".yaml") else rest
    _, unknown = run_parser().parse_known_args(rest)
    assert not unknown, unknown


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != PATCHED], ids=of_page)
def test_command_lines_parse(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command, *words in commands(page):
        assert command in COMMANDS, command
        check(command, words)


def test_wrong_command_lines_do_not_parse(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = tmp_path / "page.md"
    wrong = ("sweep", "s.yaml --no_such 1"), ("report", "a --no_such"), ("run", "--no_such"), ("choose-k", "--k x")
    for command, words in wrong:
        page.write_text(f"```\n$ layerdrop {command} {words}\n```\n")
        (found,) = commands(page)
        with pytest.raises((UserError, AssertionError)):
            check(found[0], found[1:])


@every_page
def test_flags_of_commands_in_the_text_exist(page):
    """`layerdrop COMMAND --flag ...` in a sentence or a table."""
    of_run = set(run_parser()._option_string_actions)
    for span in re.findall(r"`(layerdrop [a-z-]+[^`]*|python run_glue\.py [^`]*)`", FENCE.sub("", page.read_text())):
        words = span.split()
        command, words = ("run", words[2:]) if words[0] == "python" else (words[1], words[2:])
        assert command in COMMANDS, span
        unknown = [] if command == "run" else unknown_flags(command_parser(command), words)
        if command == "run":
            unknown = [word for word in words if word.startswith("--")]
        takes = {"cut": SHARED, "report": (), "compare": (), "cost": (), "export": (), "predict": ()}.get(command)
        for flag in unknown:
            known = f"--{flag_name(flag)}" in of_run if takes is None else flag_name(flag) in takes
            assert known or flag in ("--help", "--help_all"), span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_a_page_compiles(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        compile(block, page.name, "exec")
