"""Sets scored by short trainings that go on from the fine-tuned model."""

from dataclasses import replace
from pathlib import Path

import pytest

from layerdrop import execute as module
from layerdrop.errors import UserError
from layerdrop.runs.record import Cut, RunRecord
from layerdrop.runs.store import Store
from layerdrop.search import METHODS, greedy
from layerdrop.spec import DataSpec, ModelSpec, Options, RunSpec
from layerdrop.trials import Trials
from layerdrop.warm_start import SHARE, WarmStarts
from tests.made_up import MadeUp

SPEC = RunSpec(ModelSpec("m"), DataSpec("rte", hold_out=0.15))
N = 4


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.001)


def outcome(job, steps=200):
    """A record whose accuracy rises with the ids, but for layer 1; the model is a file."""
    ids = job.spec.drop.layers
    if job.spec.start:
        assert Path(Store(job.options.prior_store).folder(job.spec.start), "model.safetensors").exists()
    folder = Path(job.options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if job.options.save_model:
        (folder / "model.safetensors").touch()
    cuts = [Cut(0, list(ids), [i for i in range(N) if i not in ids], "")]
    metrics = {"loss": 0.0, "accuracy": 0.5 + 0.1 * sum(ids) - 0.3 * (1 in ids) + 0.01 * job.spec.seed}
    steps = job.spec.train.max_steps if job.spec.start else steps
    return RunRecord(job.spec, str(folder), "success", metrics=metrics, n_layers=N, cuts=cuts, steps=steps)


@pytest.fixture
def warm(tmp_path):
    """warm(**changes) -> (WarmStarts over runs that are made up, their engine, their Trials), in one store."""

    def make(outcome=outcome, seeds=(1,), **changes):
        engine = MadeUp(outcome)
        trials = Trials(
            RunRecord(SPEC, ""), Options("unused", save_model=False), Store(str(tmp_path)), engine,
            seeds=seeds, total=99, **changes,
        )  # fmt: skip
        return WarmStarts(trials), engine, trials

    return make


def dropped(engine):
    return [job.spec.drop.layers for job in engine.started]


def test_sets_go_on_from_the_model_in_full_depth(warm):
    evaluate, engine, _ = warm()
    levels = list(greedy(range(N), 3, evaluate))
    assert [sorted(level.best) for level in levels] == [[3], [2, 3], [0, 2, 3]]
    assert dropped(engine) == [(), (0,), (1,), (2,), (3,), (0, 3), (1, 3), (2, 3), (0, 2, 3), (1, 2, 3)]
    assert [job.options.save_model for job in engine.started] == [True] + 9 * [False]
    assert engine.started[0].spec == replace(SPEC, seed=1)
    assert all(job.spec.start == replace(SPEC, seed=1) for job in engine.started[1:])
    assert len(engine.started) == METHODS["warm-greedy"].trainings(N, 3)


def test_short_trainings(warm):
    """A share of the whole training's steps, at a learning rate that does not fall; all else is the recipe's."""
    evaluate, engine, trials = warm()
    evaluate([frozenset({0})])
    train = engine.started[1].spec.train
    assert train == replace(SPEC.train, max_steps=16, lr_scheduler_type="constant_with_warmup", warmup_steps=0.2)
    assert trials.cost == {"trainings": 2, "steps": 200 + 16, "seconds": 0}


@pytest.mark.parametrize("steps", [50, 99, 270, 2001])
def test_at_most_a_tenth_of_greedys_steps(warm, steps):
    """For K = 6 of 12, whatever the length of a training."""
    evaluate, _, trials = warm(lambda job: outcome(job, steps))
    evaluate([frozenset({0})])
    short = trials.cost["steps"] - steps
    assert steps + 57 * short <= 0.1 * 57 * steps and short == int(SHARE * steps)


def test_every_seed_goes_on_from_its_own_model(warm):
    evaluate, engine, _ = warm(seeds=(1, 2))
    assert evaluate([frozenset({0})]) == [(pytest.approx(0.51), pytest.approx(0.52))]
    assert all(job.spec.start is None or job.spec.start.seed == job.spec.seed for job in engine.started)
    assert len(engine.started) == 4


def test_going_on(warm, tmp_path):
    """After a kill; the model that candidates go on from is made again where it is gone."""
    evaluate, engine, _ = warm()
    list(greedy(range(N), 2, evaluate))
    lost = next(job for job in engine.started if job.spec.drop.layers == (1, 3))
    Path(lost.options.folder, "record.json").unlink()
    evaluate, engine, trials = warm()
    list(greedy(range(N), 2, evaluate))
    assert dropped(engine) == [(1, 3)] and trials.cost["trainings"] == 8

    Path(lost.options.folder, "record.json").unlink()
    for path in tmp_path.glob("*/model.safetensors"):
        path.unlink()
    evaluate, engine, trials = warm()
    assert [sorted(level.best) for level in greedy(range(N), 2, evaluate)] == [[3], [2, 3]]
    assert dropped(engine) == [(), (1, 3)] and trials.cost["trainings"] == 8


def test_a_failed_candidate_is_not_chosen(warm):
    evaluate, _, _ = warm(lambda job: "diverged" if job.spec.drop.layers == (3,) else outcome(job))
    assert [sorted(level.best) for level in greedy(range(N), 1, evaluate)] == [[2]]


def test_without_the_full_depth_there_is_no_start(warm):
    evaluate, _, _ = warm(lambda job: "diverged" if job.spec.seed == 2 else outcome(job), seeds=(1, 2))
    with pytest.raises(UserError, match="the training in full depth with seed 2 failed: diverged"):
        evaluate([frozenset({0})])
