"""layerdrop search on small models: the result, the files, going on after a kill, wrong words."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from layerdrop.cli.command import run_command
from layerdrop.criteria.orders import read_order_file, read_sets_file
from layerdrop.runs.record import read_record
from layerdrop.search.methods import PROPOSED_BY
from tests import tiny
from tests.processes import kill_at_checkpoint, start_command
from tests.running import assert_same_results

RECIPE = "task_name: rte\nprecision: fp32\nper_device_train_batch_size: 8\nnum_train_epochs: 1\n"


@pytest.fixture
def words_of_workers(tmp_path, monkeypatch, bert):
    """The words of a small search on RTE, of which the validation set cannot be read; the working folder is new."""
    monkeypatch.chdir(tmp_path)
    tiny.glue(tmp_path / "glue", "rte", rows=24)
    Path("glue/RTE/dev.tsv").write_text("poison")
    Path("small.yaml").write_text(RECIPE)
    return ["small.yaml", "--model_name_or_path", bert, "--data_dir", "glue", "--use_cpu", "--workers", "1"]


@pytest.fixture
def words(words_of_workers, in_process):
    """The same words, of a search whose runs execute in this process."""
    return words_of_workers


def test_greedy_then_optimal_then_a_run(words, bert, capsys):
    assert run_command("search", [*words, "--max_k", "2", "--round", "3", "--hold_out", "0.25"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(Path("runs/search/tinybert_rte_greedy.json").read_text())
    order = read_order_file("runs/search/tinybert_rte_greedy.txt")
    assert [len(level["scores"]) for level in found["levels"]] == [6, 5] and list(order) == found["order"]
    assert found["cost"]["trainings"] == 11 and found["cost"]["steps"] == 11 * 3  # 18 rows in batches of 8
    assert f"order of dropping: {order[0]} {order[1]}" in out and "25% of the training set held out, 1 seed" in out
    assert "[11/11" in err and "greedy: at most 11 trainings, 1 at once" in err
    records = [read_record(path.parent) for path in Path("runs/search").glob("*/record.json")]
    assert len(records) == 11 and {record.data["validation"]["rows"] for record in records} == {6}
    assert len({json.dumps(record.data) for record in records}) == 1  # the same rows for every candidate
    best = next(r for r in records if r.dropped == sorted(order))
    assert found["levels"][1]["scores"]["-".join(map(str, sorted(order)))] == [best.metrics["accuracy"]]

    # the optimal search trains what is not there, and finds at least as good a set
    assert run_command("search", [*words, "--max_k", "2", "--method", "optimal", "--hold_out", "0.25"]) == 0
    out, err = capsys.readouterr()
    every = json.loads(Path("runs/search/tinybert_rte_optimal.json").read_text())
    sets = read_sets_file("runs/search/tinybert_rte_optimal.txt")
    assert [len(level["scores"]) for level in every["levels"]] == [6, 15] and [list(ids) for ids in sets] == every[
        "sets"
    ]
    assert err.count("done  ") == 21 - 11
    scores = [next(iter(level["scores"].values()))[0] for level in every["levels"]]
    assert all(
        best >= next(iter(level["scores"].values()))[0] for best, level in zip(scores, found["levels"], strict=True)
    )

    # the command that the search prints, on data whose validation set can be read
    tiny.glue(Path("glue"), "rte", rows=24)
    printed = out.split("\nlayerdrop run ")[1].split()
    assert (
        run_command("run", [*printed, "--use_cpu", "--output_dir", "used", "--max_steps", "1", "--save_model", "no"])
        == 0
    )
    assert read_record("used").dropped == list(sets[1]) and read_record("used").spec.data.hold_out is None


def test_seeds_and_loss(words, capsys):
    assert run_command("search", [*words, "--max_k", "1", "--seeds", "1", "2", "--select_on", "loss"]) == 0
    out, _ = capsys.readouterr()
    found = json.loads(Path("runs/search/tinybert_rte_greedy.json").read_text())
    (level,) = found["levels"]
    assert all(len(scores) == 2 and max(scores) < 0 for scores in level["scores"].values()) and level["spread"] > 0
    assert "loss (negated)" in out and "2 seeds" in out
    assert ("less than the spread" in out) == (0 < level["margin"] < level["spread"])


def test_shortlist(words, capsys):
    """Each set that is proposed is trained once; the order is that of the best; nothing is trained or scored again; the
    command that it prints works."""
    words = [*words, "--method", "shortlist", "--max_k", "3"]
    assert run_command("search", words) == 0
    out, err = capsys.readouterr()
    found = json.loads(Path("runs/search/tinybert_rte_shortlist.json").read_text())
    order = read_order_file("runs/search/tinybert_rte_shortlist.txt")
    (level,) = found["levels"]
    proposed = level["proposed"]
    by = {name: p["order"] for p in proposed.values() for name in p["by"]}
    assert set(by) == set(PROPOSED_BY) and by["top"] == [5, 4, 3]
    assert list(order) == found["order"] == proposed["-".join(map(str, sorted(order)))]["order"]
    assert found["sets"] == [sorted(order[:k]) for k in (1, 2, 3)] and "shortlist: at most 5 trainings" in err
    records = {tuple(r.dropped): r for r in (read_record(p.parent) for p in Path("runs/search").glob("*/record.json"))}
    assert set(records) == {(), *(tuple(sorted(p["order"])) for p in proposed.values())}
    assert found["cost"]["trainings"] == len(records) and found["cost"]["steps"] == 3 * len(records)
    stored = [json.loads(path.read_text()) for path in Path("runs/search/scores").glob("*.json")]
    scoring = sum(entry["seconds"] for of in stored for entry in of.values())
    assert found["cost"]["scoring_seconds"] == pytest.approx(scoring) and scoring > 0 and "min of scoring" in out
    scores = {ids: r.metrics["accuracy"] for ids, r in records.items() if ids}
    best = "-".join(map(str, level["best"]))
    assert max(scores.values()) == scores[tuple(sorted(order))] and f"(by {', '.join(proposed[best]['by'])})" in out
    kept = {ids for ids, record in records.items() if Path(record.folder, "model.safetensors").exists()}
    assert kept == {()}
    # what they propose is what they drop in a run with scores of the same rows
    tuned = records[()].folder
    for name, more in (("block-influence", []), ("logit-kl", ["--score_on", tuned]), ("fisher", ["--score_on", tuned])):
        dry = ["--dry_run", "--json", "--hold_out", "0.15", "--drop_strategy", name, "--drop_k", "3", *more]
        assert run_command("run", [*words[: words.index("--workers")], *dry]) == 0
        assert json.loads(capsys.readouterr().out)["dropped"] == sorted(by[name]), name

    files = {path: path.stat().st_mtime_ns for path in Path("runs/search/scores").glob("*.json")}
    assert run_command("search", words) == 0 and "done  " not in capsys.readouterr().err and files
    again = json.loads(Path("runs/search/tinybert_rte_shortlist.json").read_text())
    assert again["cost"] == pytest.approx(found["cost"])
    assert files == {path: path.stat().st_mtime_ns for path in Path("runs/search/scores").glob("*.json")}

    tiny.glue(Path("glue"), "rte", rows=24)
    printed = out.split("\nlayerdrop run ")[1].split()
    assert (
        run_command("run", [*printed, "--use_cpu", "--output_dir", "used", "--max_steps", "1", "--save_model", "no"])
        == 0
    )
    used = read_record("used")
    assert used.dropped == sorted(order) and used.spec.drop.strategy == "shortlist"


def test_candidates_share_what_must_be_trained_first(words, capsys):
    """Layers go after one fine-tuning: a search without any training of candidates. A teacher is trained once, too."""
    assert run_command("search", [*words, "--max_k", "1", "--drop_when", "after", "--store", "after"]) == 0
    err = capsys.readouterr().err
    assert "greedy: at most 7 trainings" in err and "[7/7, " in err and "/6, " not in err
    found = json.loads(Path("after/tinybert_rte_greedy.json").read_text())
    assert found["cost"] == found["cost"] | {"trainings": 7, "steps": 3}
    assert run_command("search", [*words, "--max_k", "1", "--teacher", "auto", "--store", "distilled"]) == 0
    records = [json.loads(path.read_text()) for path in Path("distilled").glob("*/record.json")]
    assert len(records) == 7 and sum(record["spec"]["distil"] is None for record in records) == 1
    assert not list(Path("distilled").glob("*/prior"))
    capsys.readouterr()
    shortlist = ["--method", "shortlist", "--max_k", "2", "--drop_when", "after", "--store", "after"]
    assert run_command("search", [*words, *shortlist]) == 0
    assert "shortlist: at most 5 trainings" in capsys.readouterr().err
    assert read_order_file("after/tinybert_rte_shortlist.txt")


def test_killed_in_the_middle_of_a_level(words_of_workers):
    """No finished run is trained again. Files that a worker could not write after a record are added."""
    words = [*words_of_workers, "--max_k", "1"]
    process = start_command("search", words)
    end = time.monotonic() + 100
    while len(list(Path("runs/search").glob("*/record.json"))) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(workers, timeout=60)  # they end by themselves
    times = {path: os.stat(path).st_mtime_ns for path in Path("runs/search").glob("*/record.json")}
    again = start_command("search", words).wait()
    assert again.code == 0, again.err
    completed = again.err.count("done  ") - (6 - len(times))
    assert 2 <= len(times) < 6 and 0 <= completed <= 1  # one worker
    assert all(os.stat(path).st_mtime_ns == before for path, before in times.items())


def test_a_candidate_continues_from_a_checkpoint_within_its_epoch(words, capsys):
    words = [*words, "--max_k", "1", "--learning_rate", "1e-3"]
    assert run_command("search", [*words, "--store", "whole"]) == 0
    kill_at_checkpoint(3, lambda: run_command("search", [*words, "--store", "killed"]))
    assert run_command("search", [*words, "--store", "killed"]) == 0
    assert "min of runs (1 resumed: only the last part)\n" in capsys.readouterr().out
    found, whole = (json.loads(Path(store, "tinybert_rte_greedy.json").read_text()) for store in ("killed", "whole"))
    assert found.pop("cost") | {"seconds": 0, "resumed": 0} == whole.pop("cost") | {"seconds": 0} and found == whole
    assert_same_results("killed", "whole")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--method greed", "--method: unknown value 'greed'. Did you mean 'greedy'?"),
        ("--max_k 6", "--max_k 6: must be from 1 to 5 for a model of 6 layers"),
        ("--dry_run", "--dry_run: previews a single run. Leave --dry_run out.\n"),
        ("--max_k 0", "--max_k 0: must be from 1 to 5 for a model of 6 layers"),
        ("--metod greedy", "--metod: no such flag. Did you mean --method?"),
        (
            "--k 3",
            "--k: no such flag. Did you mean --max_k? All flags: layerdrop search --help, layerdrop run --help_all.",
        ),
        ("--strategy top", "--strategy: no such flag. All flags: layerdrop search --help"),
        ("--hold_out 2", "--hold_out 2.0: must be above 0 and below 1"),
        (
            "--drop_strategy top --drop_k 2",
            "--drop_strategy, --drop_k: a search selects the layers, for every K up to --max_k",
        ),
        ("--drop_k 4", "error: --drop_k: a search selects the layers, for every K up to --max_k. Leave --drop_k out."),
        ("--drop_when gradual --drop_strategy top --drop_k 2", "a search selects the layers"),
        ("--num_train_epochs 0", "To evaluate without training, use layerdrop run with --do_eval."),
        ("--drop_when gradual", "--drop_when gradual: not available in a search. Use"),
        ("--drop_when elastic --elastic_k 2 3", "--drop_when elastic: not available in a search. Use"),
        ("--drop_when finetuned --freeze_dropped", "--freeze_dropped: needs the layers to drop"),
        ("--do_eval", "error: --do_eval: a search trains and evaluates"),
        ("--max_k 5 --teacher auto --distill patient", "the model keeps only one layer"),
        ("--output_dir x", "--output_dir: is the folder of a single run. Use --store"),
        ("--learning_rat 1", "Did you mean --learning_rate"),
        ("--workers 0", "--workers 0: must be 1 or more"),
        ("--select_on f1", "--select_on f1: not a metric of rte"),
    ],
)
def test_wrong_words(words, more, said, capsys):
    assert run_command("search", [*words, *more.split()]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1, err
    assert not Path("runs").exists()


def test_too_few_rows_to_hold_out(words, capsys):
    lines = Path("glue/RTE/train.tsv").read_text().splitlines()
    rare = [line for line in lines[1:] if line.endswith("not_entailment")][:2]
    rest = [line for line in lines[1:] if not line.endswith("not_entailment")]
    Path("glue/RTE/train.tsv").write_text("\n".join([lines[0], *rest, *rare]) + "\n")
    assert run_command("search", [*words, "--max_k", "1"]) == 2
    err = capsys.readouterr().err
    assert "class 'not_entailment' has 2 rows, too few" in err.splitlines()[-1]
