"""benchmarks/search.py on made-up scores and on a small model."""

import sys
from pathlib import Path

import pytest

from benchmarks import search
from benchmarks.search import EVERY, RANDOM, Choice, Task, spread, table
from tests import tiny
from tests.made_up import InProcessEngine
from tests.search.test_search_command import RECIPE

PAIR = frozenset([1, 2])


@pytest.fixture
def task():
    choices = [
        Choice("greedy", 2, [0, 1], (90.0, 80.0, 70.0)),
        Choice("top", 2, [2, 3], (85.0, 60.0, 75.0)),
        Choice("top", 3, None),
        Choice(RANDOM, 2, [0, 2], (60.0,)),
        Choice(RANDOM, 2, [1, 3], (50.0,)),
        *(Choice(EVERY, 2, [i, 4], (float(score),)) for i, score in enumerate(range(70, 81))),
    ]
    trained = {frozenset(c.dropped): c.score for c in choices if c.dropped} | {PAIR: 80.0, frozenset([4]): 99.0}
    return Task("rte", 5, choices, {"greedy": {"steps": 200.0, "trainings": 20}}, trained)


def test_regret_is_to_the_best_set_median_over_seeds_and_mean_over_sets(task):
    assert task.best(2) == 80.0
    assert task.best_set(2) == frozenset([4, 10])  # of two others with 80.0 lower ids
    assert task.regret("greedy", 2) == 0.0 and task.regret("top", 2) == 5.0
    assert task.regret(RANDOM, 2) == 25.0 and task.regret(EVERY, 2) == 5.0 and task.regret("top", 3) is None


def test_spread_is_of_all_sets_where_they_are_trained(task):
    low, high = spread([task], 2)
    assert 0.0 <= low < 1.0 and 9.0 < high <= 10.0
    task.choices = [c for c in task.choices if c.name != EVERY]
    assert spread([task], 2)[0] > 10.0


def test_table_has_the_seeds_the_layers_and_the_cost(task):
    lines = dict(zip(["head", "rule", *task.names()], table(task, [2, 3]), strict=True))
    assert lines["greedy"] == "| greedy | 80.0 [70.0, 90.0] (0.0) |  |  | 1.00 of greedy |"
    assert lines["top"] == "| top | 75.0 [60.0, 85.0] (5.0) |  |  |  |"
    assert next(line for line in table(task, [2]) if line.startswith("| random")).endswith("| 2 sets |  |")


def test_ranks_are_among_all_sets_where_they_are_trained():
    choices = [Choice("greedy", 1, [0], (80.0,)), Choice("top", 1, [2], (70.0,)), Choice("top", 2, [1, 2], (60.0,))]
    trained = {frozenset([0]): 80.0, frozenset([1]): 80.0, frozenset([2]): 70.0, PAIR: 60.0}
    task = Task("rte", 3, [*choices, Choice(EVERY, 1, [1], (80.0,))], {}, trained)
    header, _, line = search.ranking(task, [1, 2])  # two of the three pairs are missing
    assert header == "| rte | sets | best set | mean | worst | greedy | top |"
    assert line == "| K = 1 | 3 | 80.0 (1) | 76.7 | 70.0 | 80.0 (1) | 70.0 (3) |"


def test_cost_is_a_mean_over_tasks_and_includes_the_model_that_is_scored(task):
    other = Task("mrpc", 5, [], {"greedy": {"steps": 100.0, "trainings": 10}})
    assert search.trainings([task, other], "greedy") == 15.0
    assert search.trainings([task], "logit-kl") == search.trainings([task], "contribution@tuned") == 1.0
    assert search.trainings([task], "contribution") == search.trainings([task], RANDOM) == 0.0
    assert search.over_tasks([1.0, 2.0]) == 1.5 and search.over_tasks([1.0, None]) is None


def test_pictures(task, tmp_path):
    search.draw([task], [2], str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {f"search_{x}.png" for x in ("regret", "cost", "layers")}


def test_an_unwritable_folder_of_pictures_is_named_before_anything_is_trained(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["search.py", "x.yaml", "--tasks", "rte", "--draw", str(tmp_path / "file" / "x")])
    with pytest.raises(SystemExit, match="error: --draw "):
        search.main()


def test_on_a_small_model(tmp_path, monkeypatch, bert, capsys):
    """Its runs execute in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("layerdrop.sweeps.engines.local.LocalEngine", lambda run, slots: InProcessEngine(run))
    tiny.glue(tmp_path / "glue", "rte", rows=24)
    Path("small.yaml").write_text(RECIPE)
    words = ["small.yaml", "--tasks", "rte", "--model_name_or_path", bert, "--data_dir", "glue", "--use_cpu"]
    monkeypatch.setattr(sys, "argv", ["search.py", *words, "--k", "1", "--all_sets", "1", "--workers", "1"])
    search.main()
    lines = {line.split(" | ")[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")}
    names = ("greedy", "shortlist", "top", "symmetric", "contribution", RANDOM, EVERY, "K = 1")
    assert list(lines)[1:] == [f"| {name}" for name in names]
    assert lines["| K = 1"].startswith("| K = 1 | 6 | ")
    assert " (0.0)" in "".join(lines.values()) and lines["| greedy"].endswith("| 1.00 of greedy |")
