"""Sets scored by short trainings that go on from the best set's model of the level before."""

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
from layerdrop.warm_start import WarmStarts
from tests.made_up import MadeUp

SPEC = RunSpec(ModelSpec("m"), DataSpec("rte", hold_out=0.15))
N = 4
LOSS = {
    **{(0,): 0.4, (1,): 0.2, (2,): 0.3, (3,): 0.5},
    **{(0, 1): 0.1, (1, 2): 0.3, (1, 3): 0.2, (0, 1, 2): 0.5, (0, 1, 3): 0.4},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.001)


def outcome(job, steps=200):
    """A record whose loss is that of LOSS; the model is a file."""
    ids = job.spec.drop.layers
    if job.spec.start:
        assert Path(job.options.start, "model.safetensors").exists()
        assert Store(str(Path(job.options.start).parent)).folder(job.spec.start) == job.options.start
    folder = Path(job.options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if job.options.save_model:
        (folder / "model.safetensors").touch()
    cuts = [Cut(0, list(ids), [i for i in range(N) if i not in ids], "")]
    metrics = {"loss": LOSS.get(ids, 0.0) + 0.01 * job.spec.seed, "accuracy": 0.5 + 0.1 * sum(ids)}
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


def saved(engine):
    return [job.spec.drop.layers for job in engine.started if job.options.save_model]


def test_each_level_goes_on_from_the_best_set_before(warm):
    evaluate, engine, _ = warm()
    levels = list(greedy(range(N), 3, evaluate))
    assert [sorted(level.best) for level in levels] == [[1], [0, 1], [0, 1, 3]]
    assert dropped(engine) == [
        *((), (0,), (1,), (2,), (3,)),
        *((1,), (0, 1), (1, 2), (1, 3)),
        *((0, 1), (0, 1, 2), (0, 1, 3)),
    ]
    assert saved(engine) == [(), (1,), (0, 1)]
    full, first, second = (job.spec for job in engine.started if job.options.save_model)
    assert full == replace(SPEC, seed=1) and first.start == full and second.start == first
    assert all(job.spec.start == full for job in engine.started[1:6])
    assert [job.spec.start for job in engine.started[6:]] == [first] * 4 + [second] * 2
    assert len(engine.started) == METHODS["warm-greedy"].trainings(N, 3)


def test_short_trainings(warm):
    """A share of the whole training's steps, at a learning rate that does not fall; all else is the recipe's."""
    evaluate, engine, _ = warm()
    evaluate([frozenset({0})])
    train = engine.started[1].spec.train
    assert train == replace(SPEC.train, max_steps=15, lr_scheduler_type="constant_with_warmup", warmup_steps=0.2)


def test_sets_are_compared_by_loss_unless_a_metric_is_named(warm):
    assert warm()[0]([frozenset({0}), frozenset({1})]) == [(pytest.approx(-0.41),), (pytest.approx(-0.21),)]
    assert warm(select_on="accuracy")[0]([frozenset({3})]) == [(pytest.approx(0.8),)]


def test_cost(warm):
    evaluate, _, _ = warm()
    list(greedy(range(N), 2, evaluate))
    assert evaluate.cost == {"trainings": 9, "steps": 200 + 8 * 15, "seconds": 0}
    again, engine, _ = warm()
    list(greedy(range(N), 2, again))
    assert not engine.started and again.cost == evaluate.cost


def test_every_seed_goes_its_own_way(warm):
    evaluate, engine, _ = warm(seeds=(1, 2))
    list(greedy(range(N), 2, evaluate))
    for job in engine.started:
        start = job.spec.start
        while start:
            assert start.seed == job.spec.seed
            start = start.start
    assert saved(engine) == [(), (), (1,), (1,)]


def test_going_on(warm, tmp_path):
    """After a kill in the second level; the models that the missing candidate goes on from are made again."""
    evaluate, engine, _ = warm()
    list(greedy(range(N), 2, evaluate))
    lost = next(job for job in engine.started if job.spec.drop.layers == (1, 3))
    Path(lost.options.folder, "record.json").unlink()
    evaluate, engine, trials = warm()
    list(greedy(range(N), 2, evaluate))
    assert dropped(engine) == [(1, 3)] and not trials.again

    Path(lost.options.folder, "record.json").unlink()
    for path in tmp_path.glob("*/model.safetensors"):
        path.unlink()
    evaluate, engine, trials = warm()
    assert [sorted(level.best) for level in greedy(range(N), 2, evaluate)] == [[1], [0, 1]]
    assert dropped(engine) == [(), (1,), (1, 3)] and saved(engine) == [(), (1,)] and len(trials.again) == 2


def test_a_failed_candidate_is_not_chosen(warm):
    evaluate, _, _ = warm(lambda job: "diverged" if job.spec.drop.layers == (1,) else outcome(job))
    assert [sorted(level.best) for level in greedy(range(N), 1, evaluate)] == [[2]]


def test_without_the_full_depth_there_is_no_start(warm):
    evaluate, _, _ = warm(lambda job: "diverged" if job.spec.seed == 2 else outcome(job), seeds=(1, 2))
    with pytest.raises(UserError, match="the training in full depth with seed 2 failed: diverged"):
        evaluate([frozenset({0})])
