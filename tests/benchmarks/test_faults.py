"""benchmarks/faults.py: what it counts, and that it finds faults only in a layerdrop without one of its parts."""

import io
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tqdm.std import TqdmDefaultWriteLock
from transformers import TrainingArguments

from benchmarks.faults import WAYS, compare, lost, main, result, trained_again
from benchmarks.kill import Kill, execute

SOME = ["plain run", "distilled run", "2 sweeps on one store", "export", "report"]
"""Scenarios of a test. All scenarios take a minute."""


def ledger(text: str) -> list[list[str]]:
    return [line.split() for line in text.split(", ")]


@pytest.mark.parametrize(
    ("lines", "again"),
    [
        ("train 1 a, trained 1 a, success 1 a, train 1 b, trained 1 b, success 1 b", {}),
        ("train 1 a, killed 1, train 2 a, trained 2 a, success 2 a", {}),
        ("train 1 a, trained 1 a, killed 1, train 2 a, trained 2 a, success 2 a", {}),
        ("train 1 a, trained 1 a, success 1 a, killed 1, train 2 a, trained 2 a, success 2 a", {"a": 1}),
        ("train 1 a, trained 1 a, success 1 a, train 1 a, killed 1, train 2 a, trained 2 a, success 2 a", {"a": 1}),
        ("train 1 a, train 2 a, trained 2 a, trained 1 a", {"a": 1}),
        ("train 1 a, train 2 a, trained 1 a, trained 2 a", {"a": 1}),
        ("train 1 a, train 2 b, trained 1 a, trained 2 b", {}),
        ("train 1 a, train 2 a, trained 1 a, killed 2", {"a": 1}),
    ],
)
def test_trainings_after_a_success_or_at_the_same_time(lines, again):
    assert +trained_again(ledger(lines)) == again


def test_a_lost_run():
    lines, whole = ledger("success 1 a, success 1 b c, success 2 d"), b'{"status": "success"}'
    ended = {"a/record.json": whole, "b c/record.json": b'{"status": "failed"}'}
    assert lost(lines, ended) == ["b c", "d"]
    assert lost(lines, {f"{name}/record.json": whole for name in ("a", "b c", "d")}) == []
    assert lost(lines, {f"{name}/record.json": whole[:9] for name in ("a", "b c", "d")}) == ["a", "b c", "d"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"record.json": b'{"accuracy": 0.5, "seconds": {"total": 2}, "notes": ["x"], "train_loss": 0.1234561}'}, {}),
        ({"record.json": b'{"accuracy": 0.5000001, "train_loss": 0.123456}'}, {"differs": ["record.json"]}),
        ({"record.json": b'{"accuracy": 0.5, "train_loss": 0.2}'}, {"differs": ["record.json"]}),
        ({"record.json": b'{"accuracy": 0.'}, {"torn": ["record.json"]}),
        ({"predictions.tsv": b"1\t"}, {"torn": ["predictions.tsv"]}),
        ({"predictions.tsv": b""}, {"torn": ["predictions.tsv"]}),
        ({"predictions.tsv": b"1\t1"}, {"differs": ["predictions.tsv"]}),
        ({".layerdrop-tmp-x": b""}, {"leftover": [".layerdrop-tmp-x"]}),
        ({"folder": None}, {"leftover": ["folder"]}),
        ({"log.txt": b"other"}, {}),
    ],
)
def test_kinds_of_differences(changes, expected):
    undisturbed = {
        "record.json": b'{"accuracy": 0.5, "seconds": {"total": 1}, "train_loss": 0.123456}',
        **{"predictions.tsv": b"1\t0", "log.txt": b"text"},
    }
    faults = compare(undisturbed | changes, undisturbed)
    assert {kind: names for kind, names in faults.items() if names} == expected
    assert compare({"log.txt": b""}, undisturbed)["differs"] == ["predictions.tsv", "record.json"]


def test_a_process_dies_before_an_event_or_within_a_write(tmp_path):
    work = tmp_path / "work"
    work.mkdir()

    def write() -> int:
        for name in ("a", "b"):
            with open(work / name, "w") as file:
                file.write("12345")
        os.rename(work / "b", work / "c")
        (tmp_path / "outside").touch()
        return 3

    def result(kill):
        for path in work.iterdir():
            path.unlink()
        attempt = execute([write], work, lambda process: None, kill)
        return attempt.codes, attempt.killed, {path.name: path.read_text() for path in work.iterdir()}

    assert execute([write], work, lambda process: None).events == "oor"
    assert result(Kill(1)) == ([-signal.SIGKILL], True, {})
    assert result(Kill(2)) == ([-signal.SIGKILL], True, {"a": "12345"})
    assert result(Kill(3)) == ([-signal.SIGKILL], True, {"a": "12345", "b": "12345"})
    assert result(Kill(2, cut=2)) == ([-signal.SIGXFSZ], True, {"a": "12345", "b": "12"})
    assert result(Kill(4)) == ([3], False, {"a": "12345", "c": "12345"})


def test_forked_processes_do_not_share_the_lock_of_progress_bars(tmp_path):
    from tqdm.auto import tqdm

    class Bar(tqdm):
        """A subclass with a lock of its own, as other libraries have."""

        _lock = TqdmDefaultWriteLock()

    (tmp_path / "work").mkdir()
    for bar in (Bar, tqdm):
        with ThreadPoolExecutor(1) as other:
            other.submit(bar.get_lock().acquire).result()
            attempt = execute([lambda bar=bar: len(list(bar([1])))], tmp_path / "work", id, timeout=20)
            other.submit(bar.get_lock().release).result()
        assert attempt.codes == [1], attempt.output


def test_ten_kills_without_a_fault(tmp_path, capsys):
    words = ["--kills", "10", "--folder", str(tmp_path), "--scenarios", *SOME]
    assert main(words) == 0, capsys.readouterr().err
    table = capsys.readouterr().out
    assert "| all | 10 | 0 | 0 | 0 | 0 | 0 | 0 |" in table
    path = tmp_path / "kills.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert {json.loads(line)["scenario"] for line in lines} == set(SOME)
    path.write_text("".join(lines[:-1]) + lines[-1][:20])  # the benchmark itself was killed
    assert main([*words[:1], "9", *words[2:]]) == 0
    assert "| all | 9 | 0" in capsys.readouterr().out and len(path.read_text().splitlines()) == 9


def test_a_process_of_two_fails(tmp_path, capsys):
    """One is killed, one raises, both get Ctrl-C: none waits for the other one, and the same command ends with the
    same bits."""
    words = ["--kills", "3", "--scenarios", "plain run", "--folder", str(tmp_path)]
    code = main([*words, "--processes", "2", "--ways", *WAYS])
    assert code == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "kills.jsonl").read_text().splitlines()]
    assert [line["way"] for line in lines] == list(WAYS) and all(len(line["codes"][0]) == 2 for line in lines)


def test_several_processes_need_a_run(capsys):
    with pytest.raises(SystemExit):
        main(["--processes", "2", "--scenarios", "report"])
    assert "--processes 2: only with a scenario of one run: plain run" in capsys.readouterr().err


def test_settings_are_compared_by_value():
    def saved(args) -> bytes:
        file = io.BytesIO()
        torch.save(args, file)
        return file.getvalue()

    content, other = (saved(TrainingArguments(folder, use_cpu=True)) for folder in ("out", "x"))
    assert result("out/training_args.bin", content) == result("training_args.bin", content)
    assert result("training_args.bin", content) != result(
        "training_args.bin", saved(TrainingArguments("x", use_cpu=True))
    )
    with pytest.raises(ValueError):
        result("training_args.bin", content[:500])


@pytest.mark.parametrize(
    ("part", "scenario", "kinds", "first"),
    [
        ("atomic", "report", {"torn", "hand"}, 2),
        ("lock", "2 sweeps on one store", {"again"}, 1),
        ("status", "sweep with 2 workers", {"again"}, 1),
    ],
)
def test_it_finds_the_faults_of_a_broken_layerdrop(part, scenario, kinds, first, tmp_path, capsys):
    """first: number of the first kill that finds one. If layerdrop writes its files in another order: one of six."""
    words = ["--scenarios", scenario, "--folder", str(tmp_path), "--break", part]
    assert any(main(["--kills", str(kills), *words]) == 1 for kills in (first, 6))
    lines = [json.loads(line) for line in (tmp_path / "kills.jsonl").read_text().splitlines()]
    assert kinds & {kind for line in lines for kind in line["faults"]}
