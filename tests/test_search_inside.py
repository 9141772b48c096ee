"""A run that searches its layers itself: --drop_strategy shortlist."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import run_glue
from layerdrop.cli.parsing import parse, parse_settings
from layerdrop.errors import UserError
from layerdrop.report.records import read_store
from layerdrop.runs.spec import RunSpec
from layerdrop.search.methods import Level
from layerdrop.search.record import SearchRecord
from layerdrop.sweeps.study import read_study
from tests.running import QUICK, ROOT, read_record, same, weights

WORDS = "--task_name rte --num_train_epochs 1 --learning_rate 1e-3 --drop_strategy shortlist --drop_k 2"


def candidates(folder="out/prior"):
    return [read_record(path.parent) for path in Path(folder).glob("*/record.json")]


def test_search_and_fine_tuning_in_one_command(run):
    code, record, out, err = run(WORDS)
    assert code == 0 and len(record["dropped"]) == 2 and record["spec"]["drop"]["found"] == []
    assert (
        "shortlist: 5 trainings at most" in err
        and "K = 2: drop" in err
        and f"search     {record['search']['trainings']} trainings" in out
    )
    found = candidates()
    assert record["search"]["trainings"] == len(found) <= 5 and record["search"]["steps"] > 5
    assert {r["spec"]["data"]["hold_out"] for r in found} == {0.15} and {r["spec"]["seed"] for r in found} == {42}
    assert {r["data"]["validation"]["rows"] for r in found} != {record["data"]["validation"]["rows"]}

    # the layers that were found, by --drop_layers, give the same model
    code, other, _, err = run(WORDS.split(" --drop_strategy")[0] + f" --drop_layers {ids(record)}", output="other")
    assert code == 0 and same(weights("out"), weights("other")) and other["metrics"] == record["metrics"]

    # candidates of a search are no rows of a table
    assert [r.spec.drop.strategy for r in read_store(["."]).done] == ["list", "shortlist"]
    assert len(read_store(["out/prior"]).done) == len(found)

    # again: done already; started again: the search is not
    assert "already done" in run(WORDS)[3]
    code, again, _, err = run(WORDS + " --overwrite_output_dir")
    assert code == 0 and "done  " not in err and again["dropped"] == record["dropped"]
    assert again["search"]["trainings"] == len(found) and same(weights("out"), weights("other"))


@pytest.mark.parametrize(
    "when", ["gradual --drop_every_epochs 1 --drop_step 2", "finetuned", "pretrained --teacher auto --distill logits"]
)
def test_candidates_are_plain_whatever_the_run_is(run, monkeypatch, when):
    """They choose the layers; how the run itself trains is another matter."""
    import layerdrop.search.run as module

    asked = []

    def instead(method, layers, k, full_run, choose, options, store, run):
        asked.append(full_run.spec)
        return SearchRecord(
            method, full_run.spec, (42,), levels=[Level({frozenset({1}): (1.0,)}), Level({frozenset({1, 4}): (1.0,)})]
        )

    monkeypatch.setattr(module, "search_inside", instead)
    code, record, _, err = run(f"{WORDS} --drop_when {when}")
    assert code == 0 and record["dropped"] == [1, 4], err
    (spec,) = asked
    assert spec == RunSpec(spec.model, spec.data, train=spec.train, seed=42)


def ids(record):
    return ",".join(map(str, record["dropped"]))


def test_after_a_kill_the_same_command_goes_on(bert, glue, tmp_path):
    words = [sys.executable, str(ROOT / "run_glue.py"), *WORDS.split(), "--model_name_or_path", bert, *QUICK]
    words += ["--data_dir", glue, "--output_dir", str(tmp_path / "out")]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder, end = tmp_path / "out" / "prior", time.monotonic() + 100
    while len(list(folder.glob("*/record.json"))) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    times = {path: os.stat(path).st_mtime_ns for path in folder.glob("*/record.json")}
    again = subprocess.run(words, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert times and all(os.stat(path).st_mtime_ns == before for path, before in times.items())
    assert read_record(tmp_path / "out")["search"]["trainings"] > again.stderr.count("done  ")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--dry_run", "finds its layers by trainings, and this run does not train. Search with layerdrop search"),
        ("--do_eval", "finds its layers by trainings, and this run does not train"),
        ("--hold_out 0.2", "chooses by held-out rows, which --hold_out would report on"),
        ("--drop_k 6", "--drop_k 6: of 6 layers choose 1 to 5"),
    ],
)
def test_what_cannot_search(run, more, said):
    code, record, _, err = run(f"{WORDS} {more}")
    assert code == 2 and said in err and len(err.splitlines()) == 1 and record is None, err
    assert not Path("out").exists()


def test_several_processes_cannot_search(run, bert, glue):
    words = [*WORDS.split(), "--model_name_or_path", bert, "--data_dir", glue, *QUICK, "--output_dir", "out"]
    spec, options = parse(words).to_spec()
    with pytest.raises(UserError, match="searches in one process, not in 2"):
        run_glue.run(replace(spec, processes=2), options)


def test_the_runs_of_a_study_share_a_search(run, bert, glue, tmp_path):
    study = {"settings": {"model_name_or_path": bert, "data_dir": glue, "use_cpu": True}, "grid": {"k": [1, 2]}}
    study["grid"] |= {"tasks": "rte", "strategies": "shortlist"}
    Path("study.yaml").write_text(json.dumps(study))
    jobs = read_study("study.yaml", "store", parse_settings).jobs
    assert {job.options.prior_store for job in jobs} == {"store/prior"} and len(jobs) == 2
