"""benchmarks/trackers.py: what it counts and measures, with made-up ledgers and studies. No other tool is needed."""

import json
import sys

import pytest

from benchmarks import tracker_studies, trackers
from benchmarks.trackers import count, main, moment, overhead, training_processes


def ledger(text: str) -> list[list[str]]:
    return [line.split() for line in text.split(", ")]


WHOLE = "0 train 1 0, 1 trained 1 0, 1 success 1 0, 2 train 1 1, 4 trained 1 1, 4 success 1 1"


@pytest.mark.parametrize(
    ("lines", "results", "faults"),
    [
        (WHOLE, {0: 0.5, 1: 0.5}, {}),
        (f"0 train 2 1, {WHOLE}", {0: 0.5, 1: 0.5}, {}),
        (f"{WHOLE}, 5 train 2 0, 6 trained 2 0, 6 success 2 0", {0: 0.5, 1: 0.5}, {"again": [0]}),
        (f"{WHOLE}, 5 train 2 0, 6 train 3 0, 7 trained 3 0, 8 success 3 0", {0: 0.5, 1: 0.5}, {"again": [0]}),
        (WHOLE, {0: 0.5}, {"lost": [1]}),
        ("0 train 1 0, 1 trained 1 0, 1 success 1 0", {0: 0.5}, {"never": [1]}),
        ("0 train 1 0, 1 trained 1 0, 1 success 1 0, 2 train 1 1, 3 trained 1 1", {0: 0.5}, {"never": [1]}),
        (WHOLE, {0: 0.5, 1: None}, {"differs": [1]}),
        (WHOLE, {0: 0.4, 1: 0.5}, {"differs": [0]}),
        (WHOLE, None, {"hand": [1]}),
    ],
)
def test_kinds_of_faults(lines, results, faults):
    found = count(ledger(lines), results, {0: 0.5, 1: 0.5})
    assert {kind: numbers for kind, numbers in found.items() if numbers} == faults


def test_moment_of_a_kill():
    lines = ledger(WHOLE)
    assert [moment(lines, event, 0.5) for event in (1, 2, 3, 4)] == [0, 1.5, 2.5, 4 + 0.5 * 4 / 3]
    assert moment(lines, 5, 0.5) == moment([], 1, 0) == float("inf")


def test_processes_of_the_running_trainings():
    lines = ledger("0 train 1 0, 1 train 2 1, 2 train 3 2, 3 trained 2 1, 4 trained 1 0, 5 train 1 3")
    assert training_processes(lines) == [1, 3]


def test_time_beside_the_training():
    lines = ledger("10 train 1 0, 11 train 2 1, 12 trained 1 0, 13 trained 2 1, 14 success 2 1")
    # two workers for 4 s, of which 2 s + 2 s are training; 2 trainings
    assert overhead(lines, start=7, end=15) == {"start": 3, "each": 2000, "end": 1}


SCRIPT = """\
import json, sys
from pathlib import Path
from benchmarks import tracker_studies
tracker_studies.STEP_SECONDS = 0.004
results = Path("results.json")
done = json.loads(results.read_text()) if results.exists() else {}
for number in range(int(sys.argv[-1])):
    if REMEMBERS and str(number) in done:
        continue
    done[str(number)] = tracker_studies.train(number)
    new = Path("new")
    new.write_text(json.dumps(done))
    new.rename(results)
"""


@pytest.mark.parametrize("remembers", [True, False])
def test_kills_of_a_small_study(remembers, tmp_path, monkeypatch, capsys):
    (tmp_path / "study.py").write_text(SCRIPT.replace("REMEMBERS", str(remembers)))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] || exec {sys.executable} {tmp_path}/study.py "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(trackers, "TRAININGS", 4)
    words = ["--tools", "optuna", "--python", str(python), "--folder", str(tmp_path / "out")]
    assert main(["kill", *words, "--kills", "3"]) == 0
    path = tmp_path / "out/optuna/kills.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:9])  # the benchmark itself was killed
    assert main(["kill", *words, "--kills", "3"]) == 0
    first, second = capsys.readouterr().out.split("| tool")[1:]
    assert first == second
    cells = first.splitlines()[-1].strip("| ").split(" | ")
    assert cells[:2] == ["Optuna, SQLite", "3"] and (cells[3] == "0") == remembers
    assert [*cells[2:3], *cells[4:]] == ["0"] * 5
    assert {tuple(json.loads(line).get("codes")) for line in path.read_text().splitlines()[1:]} == {(-9, 0)}
    assert main(["overhead", *words, "--trainings", "4"]) == 0


def test_missing_packages(tmp_path, capsys):
    assert main(["kill", "--python", "/bin/false", "--folder", str(tmp_path)]) == 2
    assert "/bin/false -m pip install ray[tune]" in capsys.readouterr().err


def test_kills_of_another_seed_are_not_counted(tmp_path, monkeypatch):
    folders = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trackers, "kill_tool", lambda folder, *_, **__: folders.append(folder))
    for words in ([], ["--seed", "2"], ["--folder", "x"]):
        assert main(["kill", "--tools", "layerdrop", *words]) == 0
    assert folders == [tmp_path / name / "layerdrop" for name in ("runs/trackers_seed1", "runs/trackers_seed2", "x")]


def test_the_training_of_the_other_tools(tmp_path, monkeypatch):
    monkeypatch.setenv(tracker_studies.LEDGER, str(tmp_path / "ledger"))
    monkeypatch.setattr(tracker_studies, "STEP_SECONDS", 0)
    assert tracker_studies.train(3) == pytest.approx(3 * (1 - 0.8**20))
    words = [line.split()[1] for line in (tmp_path / "ledger").read_text().splitlines()]
    assert words == ["train", "trained", "success"] and trackers.WORKERS == 2
