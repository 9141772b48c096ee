"""benchmarks/records.py: its studies, and its commands on a few records."""

import math

from benchmarks.records import COMMANDS, make, studies
from layerdrop.cli.command import run_command


def cells(study: dict) -> int:
    grids = ([len(v) if isinstance(v, list) else 1 for v in grid.values()] for grid in study["grid"])
    return sum(map(math.prod, grids))


def test_studies_have_as_many_cells_as_asked_for():
    assert {name: cells(study) for name, study in studies(10_000).items()} == {"seeds": 10_250, "sets": 10_004}


def test_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, studies(8)["sets"])
    make(tmp_path, studies(8)["sets"])  # keeps the records
    for name, (command, *words) in COMMANDS.items():
        assert run_command(command, words) == 0, name
        out = capsys.readouterr().out
        assert "12 runs: 12 done" in out or name != "sweep --plan, all done"
    assert (tmp_path / "report.html").stat().st_size > 20_000
