"""Searches over scores that are given: Peer et al.'s own, synthetic ones, and every small table of scores."""

import csv
import json
import math
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerdrop.criteria.orders import published_sets
from layerdrop.search.methods import METHODS, Level, Proposal, greedy, optimal, order_of, shortlist

FACTS = Path(__file__).parent.parent / "facts"
LOGS = json.loads((FACTS / "peer2022_greedy_search_logs.json").read_text())["bert-base-uncased"]
PAIRS = json.loads((FACTS / "peer2022_bert_pairs.json").read_text())["scores"]
BERT = "bert-base-uncased"


def table(scores):
    """An Evaluate that looks scores up: set -> one score, or several."""
    asked = []

    def evaluate(sets):
        asked.append(sets)
        found = [scores(ids) if callable(scores) else scores[ids] for ids in sets]
        return [score if isinstance(score, tuple) else (score,) for score in found]

    evaluate.asked = asked
    return evaluate


# ---- the published searches
@pytest.mark.parametrize("task", sorted(LOGS))
def test_greedy_replays_the_published_logs(task):
    """Every candidate that the search asks for is in the authors' log, and the order that comes out is theirs."""
    log, order = LOGS[task]["log"], LOGS[task]["order"]

    def look_up(ids):
        step = log[len(ids) - 1]
        (new,) = ids - set(order[: len(ids) - 1])
        return step[str(new)]

    evaluate = table(look_up)
    levels = list(greedy(range(12), 6, evaluate, digits=3))
    assert order_of([level.best for level in levels]) == tuple(order)
    assert [len(sets) for sets in evaluate.asked] == [12, 11, 10, 9, 8, 7] == [len(step) for step in log]
    assert [tuple(order[: k + 1]) for k in range(6)] == published_sets("greedy", BERT, task)


def test_steps_that_were_decided_by_a_tie():
    levels = [level for task in LOGS for level in greedy(range(12), 6, table(_of_log(task)), digits=3)]
    ties = sum(bool(level.ties) for level in levels)
    counted = sum(sorted(step.values())[-2:] == [max(step.values())] * 2 for task in LOGS for step in LOGS[task]["log"])
    assert len(levels) == 48 and ties == counted == 12
    assert all((level.margin == 0) == bool(level.ties) for level in levels)


def _of_log(task):
    order = LOGS[task]["order"]
    return lambda ids: LOGS[task]["log"][len(ids) - 1][str(*(ids - set(order[: len(ids) - 1])))]


@pytest.mark.parametrize("task", sorted(PAIRS))
def test_optimal_replays_the_published_pairs(task):
    scores = {frozenset(map(int, ids.split("-"))): score for ids, score in PAIRS[task].items()}
    levels = list(optimal(range(12), 2, table(scores)))
    assert [tuple(sorted(level.best)) for level in levels] == published_sets("optimal", BERT, task)
    assert [len(level.scores) for level in levels] == [12, 66]


def test_best_pairs_are_no_order():
    """Of BERT's tasks, in 4 of 8 the best pair does not contain the best single layer."""
    found = [[frozenset(ids) for ids in published_sets("optimal", BERT, task)] for task in PAIRS]
    assert sum(order_of(sets) is None for sets in found) == sum(not a <= b for a, b in found) > 0


# ---- one level
def level(*scores, digits=None):
    return Level({frozenset({i}): s if isinstance(s, tuple) else (s,) for i, s in enumerate(scores)}, digits)


def test_ties_go_to_the_higher_id():
    tied = level(0.5, 0.7, 0.7)
    assert tied.best == {2} and tied.ties == [{1}] and tied.margin == 0
    assert level(0.7, 0.5, 0.6).ties == [] and level(0.7, 0.5, 0.6).margin == pytest.approx(0.1)
    pairs = Level({frozenset(ids): (0.5,) for ids in ((0, 2), (6, 9), (5, 11))})
    assert pairs.best == {6, 9}


def test_rounding_makes_ties():
    assert level(0.7004, 0.7001).best == {0} and level(0.7004, 0.7001, digits=3).best == {1}


def test_a_failed_candidate_ranks_below_every_number():
    failed = level(math.nan, -5.0, math.nan)
    assert failed.best == {1} and failed.margin is None
    assert level((0.9, math.nan), (0.1, 0.1)).best == {1}  # on one seed of two


def test_seeds_are_averaged_and_their_spread_is_pooled():
    seeds = level((0.6, 0.8), (0.5, 0.7), (0.9, 0.1))
    assert seeds.best == {0} and seeds.margin == pytest.approx(0.1)
    assert seeds.spread == pytest.approx(math.sqrt((0.02 + 0.02 + 0.32) / 3))
    assert level(0.6, 0.5).spread is None and level((0.5, math.nan), (0.5, 0.7)).spread == pytest.approx(0.02**0.5)


# ---- whole searches
def test_a_known_optimum_that_greedy_misses():
    """Layers 0 and 1 are best together and bad alone."""
    best = {frozenset({0, 1}): 0.9}
    scores = table(lambda ids: best.get(ids, 0.5 + 0.01 * max(ids) - 0.1 * len(ids & {0, 1})))
    assert [set(level.best) for level in optimal(range(5), 3, scores)] == [{4}, {0, 1}, {2, 3, 4}]
    assert order_of([level.best for level in greedy(range(5), 3, scores)]) == (4, 3, 2)
    assert order_of([frozenset({4}), frozenset({0, 1})]) is None


def test_layers_that_must_stay_are_never_tried():
    evaluate = table(lambda ids: float(sum(ids)))
    list(optimal(range(1, 5), 2, evaluate)), list(greedy(range(1, 5), 2, evaluate))
    assert all(0 not in ids for sets in evaluate.asked for ids in sets)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=31, max_size=31), st.integers(1, 4))
def test_optimal_is_the_maximum_and_greedy_never_above_it(values, max_k):
    sets = [frozenset(ids) for k in range(1, 6) for ids in combinations(range(5), k)]
    scores = dict(zip(sets, values, strict=True))
    best, order = list(optimal(range(5), max_k, table(scores))), list(greedy(range(5), max_k, table(scores)))
    assert [len(level.best) for level in best] == [len(level.best) for level in order] == list(range(1, max_k + 1))
    for of_all, of_some in zip(best, order, strict=True):
        k = len(of_all.best)
        assert scores[of_all.best] == max(score for ids, score in scores.items() if len(ids) == k)
        assert scores[of_all.best] >= scores[of_some.best]
    assert order_of([level.best for level in order]) is not None


def test_shortlist():
    """Equal sets are tried once, in the order of the first strategy; the best one is chosen."""
    proposals = {"a": [5, 4, 3], "b": [2, 5, 0], "c": [0, 2, 5]}
    a, b = frozenset({3, 4, 5}), frozenset({0, 2, 5})
    evaluate = table({a: 0.5, b: 0.7})
    level = shortlist(proposals, evaluate)
    assert evaluate.asked == [[a, b]]
    assert level.best == b and level.proposed[b] == Proposal((2, 5, 0), ("b", "c"))
    assert level.margin == pytest.approx(0.2)
    level = shortlist(proposals, table({a: 0.7, b: 0.7}))
    assert level.best == a and level.ties == [b]
    assert shortlist({"b": [2, 5, 0], "a": [5, 4, 3]}, table({a: 0.7, b: 0.7})).best == b
    assert shortlist(proposals, table({a: math.nan, b: 0.1})).best == b
    assert shortlist(proposals, table({a: 0.7004, b: 0.7001}), digits=3).ties == [b]


@pytest.mark.parametrize("name", ["greedy", "optimal"])
def test_the_number_of_trainings_is_known_before(name):
    method = METHODS[name]
    for n, max_k in ((12, 6), (6, 3), (5, 4)):
        tried = sum(len(level.scores) for level in method.search(range(n), max_k, table(lambda ids: 0.5)))
        assert tried == method.trainings(n, max_k)
    assert {name: row.trainings(12, 6) for name, row in METHODS.items()} == {
        "greedy": 57,
        "optimal": 2509,
        "shortlist": 1 + 4,
    }


def test_the_facts_are_those_that_are_shipped():
    rows = csv.DictReader((FACTS.parent.parent / "layerdrop/report/published/peer2022_greedy_orders.csv").open())
    orders = {row["task"]: row["order_of_dropping_0_based"] for row in rows if row["model"] == BERT}
    assert {task: " ".join(map(str, LOGS[task]["order"])) for task in LOGS} == orders
