"""A share of the training set in place of the validation set."""

import numpy as np
import pytest

from layerdrop.data.examples import Examples
from layerdrop.data.read import hold_out, read_splits
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import TASKS
from layerdrop.errors import UserError
from tests import tiny


def examples(labels) -> Examples:
    return Examples(
        ([f"text {i}" for i in range(len(labels))],), np.array(labels), [str(i) for i in range(len(labels))]
    )


def test_the_share_of_each_class_in_the_order_of_the_source():
    train = examples([0] * 44 + [1] * 56)
    rest, held = hold_out(train, 0.15, TASKS["rte"])
    assert np.bincount(held.labels).tolist() == [7, 8] and np.bincount(rest.labels).tolist() == [37, 48]
    numbers = [[int(i) for i in part.index] for part in (rest, held)]
    assert numbers == [sorted(part) for part in numbers] and sorted(numbers[0] + numbers[1]) == list(range(100))
    for part in (rest, held):
        assert [part.texts[0][i] for i in (0, -1)] == [f"text {part.index[i]}" for i in (0, -1)]
    assert held.index == hold_out(train, 0.15, TASKS["rte"])[1].index
    assert held.index[0] != "0" or held.index[:6] != [str(i) for i in range(6)]  # drawn, not the first ones


def test_values_are_drawn_among_all_rows():
    rest, held = hold_out(examples(np.linspace(0, 5, 40, dtype=np.float32)), 0.15, TASKS["stsb"])
    assert (len(rest), len(held)) == (34, 6)


def test_too_few_rows():
    with pytest.raises(UserError, match="--hold_out 0.15: class 'not_entailment' has 3 rows, too few"):
        hold_out(examples([0] * 40 + [1] * 3), 0.15, TASKS["rte"])
    with pytest.raises(UserError, match="--hold_out 0.9: class 'not_entailment' has 1 row, too few"):
        hold_out(examples([0] * 40 + [1]), 0.9, TASKS["rte"])
    with pytest.raises(UserError, match="the training set has 2 rows, too few"):
        hold_out(examples(np.float32([1, 2])), 0.15, TASKS["stsb"])


@pytest.mark.parametrize("name", ["rte", "mnli", "stsb"])
def test_the_validation_set_is_not_read(tmp_path, name):
    tiny.glue(tmp_path, name, rows=60)
    whole = read_splits(DataSpec(name, str(tmp_path)), ["train"]).examples["train"]
    for path in (tmp_path / TASKS[name].folder).glob("dev*"):
        path.write_text("poison")
    data = read_splits(DataSpec(name, str(tmp_path), hold_out=0.2), ["train", "validation"])
    assert list(data.examples) == ["train", "validation"]
    assert sorted(data.examples["train"].index + data.examples["validation"].index) == sorted(whole.index)
    assert "12 of 60 training rows are held out (20%" in data.notes[-1]
    # the same rows are held out where only they are wanted, and limits count before and after
    alone = read_splits(DataSpec(name, str(tmp_path), hold_out=0.2, max_eval_samples=5), ["validation"])
    assert alone.examples["validation"].index == data.examples["validation"].index[:5] and len(alone.examples) == 1
    fewer = read_splits(DataSpec(name, str(tmp_path), hold_out=0.2, max_train_samples=30), ["train", "validation"])
    assert [len(part) for part in fewer.examples.values()] == [24, 6]


def test_a_whole_run(run, tmp_path, glue):
    words = "--task_name mnli --num_train_epochs 1 --hold_out 0.5 --save_model no"
    code, record, out, err = run(words)
    assert code == 0 and set(record["metrics"]) == {"loss", "accuracy"} and record["spec"]["data"]["hold_out"] == 0.5
    assert record["data"]["train"]["rows"] == record["data"]["validation"]["rows"] == 12 and "held out" in err
    assert len((tmp_path / "out" / "predictions_dev.tsv").read_text().splitlines()) == 13
    code, _, _, err = run(words.replace("0.5", "1.5"))
    assert code == 2 and err == (
        "error: --hold_out 1.5: must be above 0 and below 1. Give a fraction of the training set, such as 0.15.\n"
    )


def test_own_files_need_no_validation_file(run, tmp_path):
    (tmp_path / "own.csv").write_text("label,text\n" + "".join(f"{'ab'[i % 2]},w{i % 7} w{i % 5}\n" for i in range(20)))
    code, record, _, err = run("--train_file own.csv --num_train_epochs 1 --hold_out 0.2 --save_model no", data=None)
    assert code == 0, err
    assert record["spec"]["data"]["files"] == [["train", "own.csv"]] and record["data"]["validation"]["rows"] == 4
    dry = "--train_file own.csv --hold_out 0.2 --drop_strategy contribution --drop_k 2 --dry_run"
    assert run(dry, data=None)[0] == 0
