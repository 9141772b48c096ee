"""Trainings as scores of sets: each once, whoever asks; failures, seeds, metrics, contents that have changed."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from layerdrop.architectures import ModelSpec
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.errors import UserError
from layerdrop.finetune.spec import WhenSpec
from layerdrop.runs.record import Cut, RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.status import INPUTS
from layerdrop.runs.store import Store
from layerdrop.search.candidates import Candidates, Stopped
from layerdrop.search.methods import greedy
from layerdrop.search.run import search
from layerdrop.sweeps import execute as module
from layerdrop.sweeps.engines.base import Job
from tests.made_up import MadeUp

SPEC = RunSpec(ModelSpec("m"), DataSpec("rte", hold_out=0.15))
N = 4
CONTENTS = {"fingerprints": {"model": "a"}, "data": {"train": {"rows": 85}, "validation": {"rows": 15}}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.001)


def record_of(job, dropped=None, **changes):
    dropped = list(job.spec.drop.layers) if dropped is None else dropped
    kept = [i for i in range(N) if i not in dropped]
    values = {
        "metrics": {"loss": 0.1 * sum(dropped), "accuracy": 0.5 + 0.1 * sum(dropped) + 0.01 * job.spec.seed},
        "seconds": {"total": 10.0}, "n_layers": N, "cuts": [Cut(0, dropped, kept, "list")], "steps": 7,
        **CONTENTS,
    }  # fmt: skip
    return RunRecord(job.spec, job.options.folder, "success", **values | changes)


@pytest.fixture
def candidates(tmp_path):
    """candidates(**changes) -> Candidates over runs that are made up, in one store."""

    def make(outcome=record_of, seeds=(1,), slots=2, contents=CONTENTS, **changes):
        engine = MadeUp(outcome, slots)
        values = {"seeds": seeds, "total": 7} | changes
        return Candidates(
            RunRecord(SPEC, "", **contents), Options("unused", save_model=False), Store(str(tmp_path)), engine, **values
        ), engine

    return make


def sets(*all_ids):
    return [frozenset(ids) for ids in all_ids]


def test_scores_are_the_main_metric_one_a_seed(candidates):
    evaluate, engine = candidates(seeds=(1, 2))
    assert evaluate(sets([3], [0, 1])) == [pytest.approx((0.81, 0.82)), pytest.approx((0.61, 0.62))]
    drops = {(job.spec.drop, job.spec.seed) for job in engine.started}
    assert drops == {(DropSpec("list", layers=ids), seed) for ids in ((3,), (0, 1)) for seed in (1, 2)}
    assert all(job.spec.data.hold_out == 0.15 and not job.options.save_model for job in engine.started)
    assert evaluate.cost == {"trainings": 4, "steps": 28, "seconds": 40.0, "resumed": 0}
    assert evaluate.metric == "accuracy"


def test_loss_counts_with_the_sign_turned_round(candidates):
    assert candidates(select_on="loss")[0](sets([3])) == [(pytest.approx(-0.3),)]
    with pytest.raises(UserError, match="--select_on f1: not a metric of rte. Allowed: loss, accuracy"):
        candidates(select_on="f1")[0](sets([2]))


def test_a_choice_that_predicts_one_class_is_noted(candidates):
    """It stays the choice: the scores decide. One of several seeds is enough."""

    def outcome(job):
        collapsed = job.spec.drop.layers == (2, 3) and job.spec.seed == 2
        return record_of(job, distinct_predictions={"validation": 1 if collapsed else 2})

    found = search("greedy", range(N), 3, candidates(outcome, seeds=(1, 2))[0], select=None)
    assert found.sets == [[3], [2, 3], [1, 2, 3]] and found.constant == [2]
    assert search("greedy", range(N), 3, candidates(outcome, seeds=(1,))[0], select=None).constant == []


def test_nothing_is_trained_twice(candidates):
    first, _ = candidates()
    first(sets([3], [2]))
    again, engine = candidates()
    levels = list(greedy(range(N), 2, again))
    assert [sorted(level.best) for level in levels] == [[3], [2, 3]]
    assert {job.spec.drop.layers for job in engine.started} == {(0,), (1,), (0, 3), (1, 3), (2, 3)}
    assert again.cost["trainings"] == 7
    # the empty set is the full model
    evaluate, engine = candidates()
    evaluate(sets([]))
    assert engine.started[0].spec == SPEC.__class__(SPEC.model, SPEC.data, seed=1)


def test_the_sets_that_are_trained_with_every_seed(candidates, tmp_path):
    candidates(seeds=(1, 2))[0](sets([3], [0, 1]))
    candidates(seeds=(1,))[0](sets([2]))
    for spec in (RunSpec(SPEC.model, SPEC.data, DropSpec("top", 2), seed=1), replace(SPEC, seed=1, precision="bf16")):
        record = record_of(Job(spec, Options(Store(str(tmp_path)).folder(spec))), dropped=[2, 3])
        record.write()
    assert set(candidates(seeds=(1, 2))[0].trained()) == set(sets([3], [0, 1]))
    assert set(candidates(seeds=(1,))[0].trained()) == set(sets([3], [0, 1], [2], [2, 3]))
    assert candidates(seeds=(3,))[0].trained() == []


def test_a_run_with_another_strategy_that_dropped_the_same_is_the_same_training(candidates, tmp_path):
    for strategy, ids in (("top", (3,)), ("contribution", (1,))):
        spec = RunSpec(SPEC.model, SPEC.data, DropSpec(strategy, 1), seed=1)
        folder = Store(str(tmp_path)).folder(spec)
        cuts, metrics = [Cut(0, list(ids), [], "")], {"accuracy": 0.9}
        RunRecord(spec, folder, "success", cuts=cuts, n_layers=N, metrics=metrics, **CONTENTS).write()
    evaluate, engine = candidates()
    assert evaluate(sets([3], [1])) == [(0.9,), (0.9,)] and not engine.started
    assert candidates(seeds=(2,))[0](sets([3])) == [(pytest.approx(0.82),)]  # another seed is another training


def test_ids_of_a_checkpoint_that_was_cut_before(candidates, tmp_path):
    """Sets count the layers that the checkpoint still has; records count those of the original."""

    def cut_before(job):
        return record_of(job, [1, *[(0, 2, 3)[i] for i in job.spec.drop.layers]], dropped_before=[1])

    first, engine = candidates(cut_before)
    first(sets([0], [2]))
    again, engine = candidates(cut_before)
    again(sets([0], [2], [1], [0, 1]))
    assert [job.spec.drop.layers for job in engine.started] == [(1,), (0, 1)]


def test_failures_have_no_score_and_are_counted(candidates):
    evaluate, _ = candidates(lambda job: "diverged" if 2 in job.spec.drop.layers else record_of(job))
    ((failed,), (score,)) = evaluate(sets([2], [1]))
    assert math.isnan(failed) and score == pytest.approx(0.61) and len(evaluate.failed) == 1
    with pytest.raises(
        UserError, match="none of 1 trainings has a score. .*list_2.* failed .diverged.. Correct the cause, then repeat"
    ):
        candidates(lambda job: "diverged")[0](sets([2]))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"fingerprints": {"model": "b"}}, "the model"),
        ({"data": {"train": {"rows": 85}, "validation": {"rows": 16}}}, "the rows of validation"),
        ({"data": {"train": {"rows": 84}, "validation": {"rows": 15}}}, "the rows of train"),
    ],
)
def test_other_contents_under_the_same_name(candidates, now, said):
    candidates()[0](sets([3]))
    changed, _ = candidates(contents=CONTENTS | now)
    with pytest.raises(UserError, match=f": {said} changed since this run. Choose another"):
        changed(sets([3]))


def test_stop(candidates):
    evaluate, engine = candidates(stop=lambda: len(engine.started) >= 2, slots=1)
    with pytest.raises(Stopped):
        evaluate(sets([0], [1], [2]))
    assert len(engine.started) == 2
    evaluate, engine = candidates()
    evaluate(sets([0], [1], [2]))
    assert len(engine.started) == 1


def test_progress_is_that_of_the_whole_search(candidates):
    seen = []

    def tell(p, result):
        if result:
            seen.append((len(p.already) + len(p.done) + len(p.failed), p.total, p.remaining))

    list(greedy(range(N), 2, candidates(on_progress=tell, slots=1)[0]))
    assert seen == [(over, 7, 10.0 * (7 - over)) for over in range(1, 8)]


def test_only_a_plain_run_is_a_candidate(candidates, tmp_path):
    """Runs that dropped the same layers at another time, or froze them, are other trainings."""
    for when in (WhenSpec(step=1, every_epochs=2), WhenSpec(frozen=True)):
        spec = RunSpec(SPEC.model, SPEC.data, DropSpec("top", 1), when, seed=1)
        record_of(Job(spec, Options(Store(str(tmp_path)).folder(spec))), dropped=[3]).write()
    evaluate, engine = candidates()
    evaluate(sets([3]))
    assert len(engine.started) == 1 and engine.started[0].spec.when == WhenSpec()


@pytest.mark.parametrize("name", ["model", "tokenizer", "start", "teacher", "score_on"])
def test_a_candidate_on_other_inputs_is_refused(candidates, name):
    candidates(contents=CONTENTS | {"fingerprints": {name: "a"}}, outcome=with_fingerprint(name))[0](sets([3]))
    changed, _ = candidates(contents=CONTENTS | {"fingerprints": {name: "b"}}, outcome=with_fingerprint(name))
    with pytest.raises(UserError, match=f": {INPUTS[name]} changed since"):
        changed(sets([3]))


def with_fingerprint(name):
    return lambda job: record_of(job, fingerprints={name: "a"})


def test_a_model_that_vanishes_is_an_error(candidates, tmp_path):
    evaluate, engine = candidates(outcome=lambda job: record_of(job, steps=3))
    spec = replace(SPEC, seed=1)
    evaluate.store = Store(str(tmp_path / "elsewhere"))  # where the engine's runs are not
    engine.outcome = lambda job: replace(record_of(job), folder=str(tmp_path / "lost"))
    with pytest.raises(
        UserError, match="the run is done, but its model is not in .* Delete the folder to repeat the run"
    ):
        evaluate.model(spec)
    assert len(engine.started) == 1


def test_a_model_that_was_not_kept_is_trained_again(candidates, tmp_path):
    evaluate, engine = candidates()
    evaluate(sets([]))
    spec = replace(SPEC, seed=1)
    folder = evaluate.model(spec)
    assert [job.options.save_model for job in engine.started] == [False, True]
    assert folder == Store(str(tmp_path)).folder(spec) and evaluate.cost["trainings"] == 1
    assert evaluate.model(spec) == folder and len(engine.started) == 2


def test_files_that_a_kill_prevented_are_added(candidates):
    """The run of the candidate itself is reused only if it is done: a record is not enough."""
    evaluate, engine = candidates()
    scores = evaluate(sets([3], [0]))
    Path(engine.started[0].options.folder, "all_results.json").unlink()
    again, engine = candidates()
    assert again(sets([3], [0])) == scores and [job.spec.drop.layers for job in engine.started] == [(3,)]
    assert Path(engine.started[0].options.folder, "all_results.json").exists()
