"""Messages about the levels of a search, and its files."""

import json
import math
import shlex
from dataclasses import replace

import pytest

from layerdrop.architectures import ModelSpec
from layerdrop.cli.parsing import parse
from layerdrop.criteria.orders import read_order_file, read_sets_file
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.finetune.spec import TrainSpec
from layerdrop.runs.spec import RunSpec
from layerdrop.search.methods import Level, Proposal
from layerdrop.search.record import SearchRecord, level_words, summary

COST = {"trainings": 12, "steps": 3000, "seconds": 90.0, "resumed": 0}


def level(scores, digits=None):
    return Level({frozenset(ids): s if isinstance(s, tuple) else (s,) for ids, s in scores.items()}, digits)


def record(method, *levels, **changes):
    spec = RunSpec(ModelSpec("some/bert"), DataSpec("rte", "glue", hold_out=0.15))
    return SearchRecord(
        method, spec, **{"seeds": (1,), "select_on": "accuracy"} | changes, levels=list(levels), cost=COST
    )


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({(0,): 0.5, (1,): 0.75}, "K = 1: drop 1  0.7500  margin 0.2500"),
        ({(0,): 0.5, (1,): 0.5}, "K = 1: drop 1  0.5000  margin 0.0000, a tie of 2: the higher ids are dropped"),
        ({(0,): (0.5, 0.7), (1,): (0.6, 0.8)}, "margin 0.1000, less than the spread over seeds, 0.1414"),
        ({(0,): (0.5, 0.5), (1,): (0.6, 0.6)}, "K = 1: drop 1  0.6000  margin 0.1000"),
        ({(0, 1): 0.5, (1, 2): math.nan}, "K = 2: drop 0, 1  0.5000  1 of 2 without a score"),
    ],
)
def test_words_of_a_level(scores, words):
    assert level_words(level(scores)).endswith(words)


FIRST, SECOND = level({(0,): 0.5, (3,): 0.75}), level({(0, 3): 0.25, (1, 3): 0.5})
NO_PREFIX = level({(0, 1): 0.75, (1, 3): 0.5})


def test_an_order(tmp_path):
    found = record("greedy", FIRST, SECOND)
    path = found.write(str(tmp_path))
    assert path == f"{tmp_path}/bert_rte_greedy.txt" and read_order_file(path) == found.order == (3, 1)
    written = json.loads((tmp_path / "bert_rte_greedy.json").read_text())
    assert written["sets"] == [[3], [1, 3]] and written["cost"] == COST
    assert written["levels"][1]["scores"] == {"1-3": [0.5], "0-3": [0.25]}  # best first
    words = summary(found, path)
    assert "15% of the training set held out, 1 seed\n" in words and "Add --seeds 1 2 3" in words
    assert words.splitlines()[-1] == (
        "layerdrop run --model_name_or_path some/bert --task_name rte --data_dir glue --precision fp32 "
        f"--drop_strategy greedy --drop_order_file {path} --drop_k 2"
    )


@pytest.mark.parametrize("validation", [True, False])
def test_the_command_that_uses_a_search_has_all_its_settings(tmp_path, validation):
    """Whoever pastes it trains as the candidates did."""
    files = (("train", "my train.csv"),)
    data = DataSpec("my train", "files", files, ("a", "b"), max_seq_length=32, max_train_samples=100, hold_out=0.15)
    train = TrainSpec(learning_rate=1e-3, num_train_epochs=2.0, other={"lr_scheduler_kwargs": {"num_cycles": 2}})
    train = replace(train, lr_scheduler_type="cosine")
    spec = RunSpec(ModelSpec("some/bert", tokenizer="t"), data, train=train, seed=7)
    found = SearchRecord("greedy", spec, (7,), "accuracy", levels=[FIRST, SECOND], cost=COST)
    more = ["--validation_file", "d.csv", "--cache_dir", "c"] if validation else []
    lines = summary(found, path := found.write(str(tmp_path)), more).splitlines()
    words = [*shlex.split(lines[-1])[2:], *([] if validation else ["--validation_file", "d.csv"])]
    run, options = parse(words).to_spec()
    assert run.train == spec.train and (run.model, run.seed) == (spec.model, 7)
    assert run.data == replace(data, files=(*files, ("validation", "d.csv")), hold_out=None)
    assert run.drop == DropSpec("greedy", 2, found=(1, 3)) and path in words
    assert options.cache_dir == ("c" if validation else None)
    assert ("add --validation_file FILE" in lines[-2]) != validation


def test_sets_that_are_no_order(tmp_path):
    found = record("optimal", FIRST, NO_PREFIX, seeds=(1, 2))
    path = found.write(str(tmp_path))
    assert read_sets_file(path) == [(3,), (0, 1)] and found.order is None
    assert json.loads((tmp_path / "bert_rte_optimal.json").read_text())["order"] is None
    words = summary(found, path)
    assert "order of dropping" not in words and "--drop_strategy optimal" in words and "2 seeds" in words


def test_an_order_that_was_proposed(tmp_path):
    """One level of the largest K; every smaller K has the first layers of the best set's order."""
    ids = frozenset({0, 2, 3})
    proposed = {ids: Proposal((2, 3, 0), ("logit-kl", "fisher")), frozenset({1, 2, 3}): Proposal((3, 2, 1), ("top",))}
    found = record("shortlist", Level({ids: (0.75,), frozenset({1, 2, 3}): (0.5,)}, None, proposed))
    path = found.write(str(tmp_path))
    assert read_order_file(path) == found.order == (2, 3, 0) and found.sets == [[2], [2, 3], [0, 2, 3]]
    written = json.loads((tmp_path / "bert_rte_shortlist.json").read_text())
    assert written["levels"][0]["proposed"]["0-2-3"] == {"order": [2, 3, 0], "by": ["logit-kl", "fisher"]}
    words = summary(found, path)
    assert "K = 3: drop 0, 2, 3 (by logit-kl, fisher)  0.7500  margin 0.2500" in words
    tie = Level({ids: (0.5,), frozenset({1, 2, 3}): (0.5,)}, None, proposed)
    assert level_words(tie).endswith("margin 0.0000, a tie of 2: the first proposal wins")
    assert words.endswith(f"--drop_strategy shortlist --drop_order_file {path} --drop_k 3")


@pytest.mark.parametrize(("cost", "said"), [({}, ""), ({"resumed": 0}, ""), ({"resumed": 2}, " (2 resumed: only the")])
def test_the_cost_names_resumed_trainings(cost, said):
    """The records of earlier versions have no such number."""
    found = record("greedy", FIRST)
    found.cost = {"trainings": 3, "steps": 30, "seconds": 60.0} | cost
    assert f"cost: 3 trainings, 30 steps, 1.0 min of runs{said}" in summary(found, "x")


def test_doubtful_levels_are_counted():
    found = record("greedy", FIRST, level({(0, 3): 0.5, (1, 3): 0.5}))
    assert "1 of 2 levels are not decisive" in summary(found, "x")


def test_a_choice_that_predicts_one_class_is_said():
    """As F1 can choose, which is high where every pair is called a paraphrase."""
    found = record("greedy", FIRST, SECOND, constant=[2], select_on="f1")
    said = "nearly the same, for every row, so its f1 reflects only the label frequencies"
    assert found.to_dict()["constant"] == [2] and f"{said}. Try --select_on loss\n" in summary(found, "x")
    found.select_on = "loss"
    assert "Try --select_on loss" not in summary(found, "x")
    assert "same for every row" not in summary(record("greedy", FIRST, SECOND), "x")


def test_a_failed_candidate_is_no_number_in_the_record():
    written = record("greedy", level({(0,): math.nan, (1,): 0.5})).to_dict()
    assert written["levels"][0]["scores"] == {"1": [0.5], "0": [None]}


def test_another_search_of_the_same_name_overwrites_nothing(tmp_path):
    """More layers, other seeds, other settings: another file. The same search again: the same file."""
    one = record("greedy", FIRST, SECOND)
    other = [record("greedy", FIRST), record("greedy", FIRST, SECOND, seeds=(2,))]
    other.append(record("greedy", FIRST, SECOND, digits=3))
    other.append(record("greedy", FIRST, SECOND, select_on="loss"))
    other.append(record("greedy", FIRST, SECOND))
    other[-1].spec = RunSpec(ModelSpec("other/bert"), DataSpec("rte", "glue", hold_out=0.15))
    path = one.write(str(tmp_path))
    assert path == one.write(str(tmp_path))
    paths = [search.write(str(tmp_path)) for search in other]
    assert paths == [f"{tmp_path}/bert_rte_greedy_{search.id[:8]}.txt" for search in other]
    assert len({path, *paths}) == 6 and read_order_file(path) == (3, 1) and read_order_file(paths[0]) == (3,)
    for content in ("{}", '{"id": null}'):  # without an id: of an earlier version, or of another program
        (tmp_path / "bert_rte_greedy.json").write_text(content)
        assert one.write(str(tmp_path)) == f"{tmp_path}/bert_rte_greedy_{one.id[:8]}.txt"


@pytest.mark.parametrize("name", ["bert_rte_greedy.json", "bert_rte_greedy.txt"])
def test_a_file_of_the_users_own_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    one = record("greedy", FIRST, SECOND)
    assert one.write(str(tmp_path)) == f"{tmp_path}/bert_rte_greedy_{one.id[:8]}.txt"
    assert (tmp_path / name).read_text() == "mine"
