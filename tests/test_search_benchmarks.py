"""benchmarks/search.py and halving.py: what they compare, on made-up scores and on a small model."""

import random
import sys
from pathlib import Path

import pytest

from benchmarks import halving, search
from benchmarks.search import EVERY, RANDOM, Choice, Task, spread, table
from tests import tiny
from tests.test_search_script import RECIPE

A, B, C, D = (frozenset(ids) for ids in ([0, 1], [0, 2], [1, 2], [2, 3]))


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
    trained = {frozenset(c.dropped): c.score for c in choices if c.dropped} | {C: 80.0, frozenset([4]): 99.0}
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
    trained = {frozenset([0]): 80.0, frozenset([1]): 80.0, frozenset([2]): 70.0, C: 60.0}
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


def test_halving_keeps_six_then_two_then_the_best_at_the_end():
    sets = [frozenset([i]) for i in range(8)]
    curves = {ids: [0.5] * 10 for ids in sets}
    curves[sets[6]] = [0.4] + [0.9] * 9  # best at the end, gone after a tenth
    curves[sets[7]] = [0.6, 0.6, 0.4] + [0.9] * 7  # gone after three tenths
    curves[sets[3]] = [0.5] * 9 + [0.7]  # a tie after three tenths, where the earlier two stay
    assert halving.halved(curves, sets) == sets[0]
    curves[sets[3]] = [0.5, 0.5, 0.6] + [0.5] * 6 + [0.7]
    assert halving.halved(curves, sets) == sets[3]


def test_halving_draws_layers_by_the_votes_of_the_proposals():
    sets = halving.draw_sets([A, B], 10, random.Random(1))
    assert sets == [A, B, C]  # layer 3 has no vote; there are no more
    assert halving.draw_sets([A, B, D], 4, random.Random(1))[:3] == [A, B, D]


def test_halving_row():
    curves = {A: [0.2] * 9 + [0.8], B: [0.4] * 9 + [0.7], C: [0.1] * 9 + [0.9], D: [0.5] * 9 + [0.6]}
    assert halving.row("rte", curves, [A, D]) == "| rte, 4 sets | 80.0 | 70.0 | 90.0 | -1.00, -1.00, -1.00 |"


def test_both_on_a_small_model(tmp_path, monkeypatch, bert, capsys):
    monkeypatch.chdir(tmp_path)
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

    monkeypatch.setattr(
        sys, "argv", ["halving.py", *words, "--k", "1", "--sets", "4", "--num_train_epochs", "10", "--workers", "1"]
    )
    halving.main()
    assert "| rte, 3 sets | " in capsys.readouterr().out  # the sets of one layer that any proposal has
