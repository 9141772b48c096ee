"""Datasets of the `datasets` library, in folders: `load_dataset` treats a folder of files like the hub."""

import csv
from pathlib import Path

import datasets
import numpy as np
import pytest

from layerdrop.data import read as reading
from layerdrop.data.files import dataset_task_name
from layerdrop.data.hub import read_dataset_split
from layerdrop.data.read import read_splits, row_fingerprints
from layerdrop.data.spec import DataSpec
from layerdrop.errors import UserError

NAMES = ("pos", "neg", "mixed")
"""Not in alphabetical order: the order of the feature is the order of the class ids."""


def features(**columns) -> datasets.Features:
    return datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES), **columns})


def rows(n: int, start: int = 0) -> dict:
    return {"text": [f"w{i} w" for i in range(start, start + n)], "label": [i % 3 for i in range(n)]}


def dataset(n: int, start: int = 0) -> datasets.Dataset:
    return datasets.Dataset.from_dict(rows(n, start), features=features())


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    """A cache of its own, and no connection."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(reading, "_fingerprints", {})


@pytest.fixture
def saved(tmp_path) -> str:
    """A dataset with splits, written by save_to_disk. `unlabeled` has no labels."""
    splits = {"train": dataset(60), "test": dataset(9, 60)}
    splits["unlabeled"] = datasets.Dataset.from_dict({"text": ["a b"], "label": [-1]}, features=features())
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "reviews"))
    return str(tmp_path / "reviews")


def write_files(folder: Path, ending: str = "csv") -> str:
    """A folder of files, as a repository of data files on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", 30), ("validation", 6), ("test", 3)):
        part = datasets.Dataset.from_dict(rows(n))
        {"csv": part.to_csv, "json": part.to_json, "parquet": part.to_parquet}[ending](folder / f"{split}.{ending}")
    return str(folder)


def spec(name: str, *, config: str | None = None, train="train", validation="validation", **how) -> DataSpec:
    files = (("train", train), *([("validation", validation)] if validation else []))
    return DataSpec("reviews", "dataset", files, dataset_name=name, dataset_config_name=config, **how)


# ---- folders written by save_to_disk
def test_a_saved_dataset(saved):
    data = read_splits(spec(saved, validation="test"), ["train", "validation"])
    assert data.task.labels == NAMES and data.task.texts == ("text",) and data.task.label == "label"
    train, validation = data.examples["train"], data.examples["validation"]
    assert train.texts[0][:2] == ["w0 w", "w1 w"] and train.labels[:4].tolist() == [0, 1, 2, 0] and len(train) == 60
    assert validation.texts[0][0] == "w60 w" and validation.index[:2] == ["0", "1"]
    assert not any("is a class" in note for note in data.notes)


def test_a_class_label_with_one_name_is_refused(tmp_path):
    one = datasets.Features(features() | {"label": datasets.ClassLabel(names=["pos"])})
    datasets.Dataset.from_dict({"text": ["w w", "v v"], "label": [0, 0]}, one).save_to_disk(str(tmp_path / "one"))
    with pytest.raises(UserError, match=r"one \(train\): only one class, 'pos'. Name another --label_column"):
        read_splits(spec(str(tmp_path / "one"), validation=None), ["train"])


def test_a_saved_dataset_without_splits_is_its_training_set(tmp_path):
    dataset(40).save_to_disk(str(tmp_path / "one"))
    data = read_splits(spec(str(tmp_path / "one"), validation=None, validation_share=0.25), ["train", "validation"])
    assert [len(part) for part in data.examples.values()] == [30, 10]
    with pytest.raises(UserError, match="^--validation_split validation: .* has no such split") as error:
        read_splits(spec(str(tmp_path / "one")), ["train", "validation"])
    assert str(error.value).endswith(
        "Name one with --validation_split: train, or add --validation_share 0.1 (a fraction of the training set)."
    )


def test_a_part_of_a_split_and_a_sum(saved):
    data = read_splits(spec(saved, train="train[:50%]+test", validation="train[50%:]"), ["train", "validation"])
    assert [len(part) for part in data.examples.values()] == [39, 30]
    assert data.examples["validation"].texts[0][0] == "w30 w" and data.examples["train"].texts[0][30] == "w60 w"


def test_selected_and_shuffled_rows(tmp_path):
    chosen = dataset(20).select([5, 3, 11])  # the rows are an index into the table
    datasets.DatasetDict(train=chosen).save_to_disk(str(tmp_path / "x"))
    table = read_dataset_split(str(tmp_path / "x"), None, "train", "--train_split")
    assert [row["text"] for row in table.rows.values()] == ["w5 w", "w3 w", "w11 w"] and list(table.rows) == [1, 2, 3]


# ---- a folder of files, as on the hub
@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_a_folder_of_files(tmp_path, ending):
    data = read_splits(spec(write_files(tmp_path / "files", ending)), ["train", "validation", "test"], test="test")
    assert [len(part) for part in data.examples.values()] == [30, 6, 3] and data.task.labels == ("0", "1", "2")
    assert data.examples["test"].labels is None


def test_configurations(tmp_path):
    for name in ("easy", "hard"):
        write_files(tmp_path / "both" / name)
    header = [f"- config_name: {name}\n  data_dir: {name}" for name in ("easy", "hard")]
    (tmp_path / "both" / "README.md").write_text("---\nconfigs:\n" + "\n".join(header) + "\n---\n")
    name = str(tmp_path / "both")
    assert len(read_splits(spec(name, config="hard"), ["train"]).examples["train"]) == 30
    with pytest.raises(UserError, match=r"^--dataset_config_name: .*pick one among the available configs: \['easy'"):
        read_splits(spec(name), ["train"])
    with pytest.raises(UserError, match=r"^--dataset_config_name medium: .*'medium' not found. Available: \['easy'"):
        read_splits(spec(name, config="medium"), ["train"])


def test_a_dataset_in_the_cache_of_the_hub(tmp_path, monkeypatch):
    datasets.load_dataset(write_files(tmp_path / "reviews"), cache_dir=str(tmp_path / "hub"))
    (cached,) = (tmp_path / "hub" / "reviews").glob("*/*/*/")
    hub = tmp_path / "hub" / "someone___reviews" / "default" / "0.0.0"
    hub.mkdir(parents=True)
    cached.rename(hub / cached.name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    data = read_splits(spec("someone/reviews"), ["train", "validation"], cache_dir=str(tmp_path / "hub"))
    assert [len(part) for part in data.examples.values()] == [30, 6]


def test_no_code_is_executed(tmp_path):
    folder = tmp_path / "script"
    folder.mkdir()
    (folder / "script.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    with pytest.raises(UserError, match=r"^--dataset_name .*\(Dataset scripts are no longer supported"):
        read_splits(spec(str(folder)), ["train"])
    write_files(folder)  # with data files, too
    with pytest.raises(UserError, match="Dataset scripts are no longer supported"):
        read_splits(spec(str(folder)), ["train"])
    assert not (tmp_path / "executed").exists()


# ---- labels and cells
def test_class_ids_become_names_and_a_label_of_minus_one_is_missing(tmp_path, saved):
    with pytest.raises(UserError, match=r"reviews \(unlabeled\):1: an empty cell in column 'label'. Fix the row"):
        read_splits(spec(saved, train="unlabeled"), ["train"])
    mixed = read_splits(spec(saved, train="unlabeled+train", skip_bad_rows=True), ["train"]).examples["train"]
    assert mixed.bad_lines == (1,) and mixed.index[0] == "1" and len(mixed) == 60
    nested = features(tags=datasets.List(datasets.ClassLabel(names=["O", "B"])), topic=datasets.ClassLabel(names=["a"]))
    cells = rows(3) | {"tags": [[0, 1], [], [1]], "topic": [0, 0, 0]}
    datasets.DatasetDict(train=datasets.Dataset.from_dict(cells, features=nested)).save_to_disk(str(tmp_path / "tags"))
    table = read_dataset_split(str(tmp_path / "tags"), None, "train", "--train_split")
    assert [row["tags"] for row in table.rows.values()] == [["O", "B"], [], ["B"]]
    assert table.classes == {"label": NAMES, "tags": ("O", "B"), "topic": ("a",)}
    cells = {"review": ["a b", "c d"], "topic": [0, 0], "label": [0, 1]}
    kinds = datasets.Features({"review": datasets.Value("string"), **{key: nested[key] for key in ("topic", "label")}})
    datasets.DatasetDict(train=datasets.Dataset.from_dict(cells, features=kinds)).save_to_disk(str(tmp_path / "topics"))
    assert read_splits(spec(str(tmp_path / "topics")), ["train"]).task.texts == ("review",)  # a topic is no text


def test_a_class_without_a_row_keeps_its_id(tmp_path):
    only = {"text": ["a b", "c d"], "label": [0, 2]}
    datasets.DatasetDict(train=datasets.Dataset.from_dict(only, features=features())).save_to_disk(str(tmp_path / "x"))
    data = read_splits(spec(str(tmp_path / "x")), ["train"])
    assert data.task.labels == NAMES and data.examples["train"].labels.tolist() == [0, 2]


def test_values_and_pairs(tmp_path):
    cells = {"premise": ["a b", "c d"], "hypothesis": ["e f", "g h"], "label": [0.5, 3.25]}
    datasets.DatasetDict(train=datasets.Dataset.from_dict(cells)).save_to_disk(str(tmp_path / "x"))
    data = read_splits(spec(str(tmp_path / "x")), ["train"])
    assert data.task.labels == () and data.task.texts == ("premise", "hypothesis")
    np.testing.assert_allclose(data.examples["train"].labels, [0.5, 3.25])


# ---- the validation share
def test_the_validation_share(saved):
    share = spec(saved, validation=None, validation_share=0.1)
    data = read_splits(share, ["train", "validation"])
    train, validation = data.examples["train"], data.examples["validation"]
    assert np.bincount(validation.labels).tolist() == [2, 2, 2] and len(train) == 54
    assert sorted(map(int, train.index + validation.index)) == list(range(60))
    assert "6 of 60 training rows are the validation set (10% of each class at random" in data.notes[-1]
    # each alone is the same part, and limits apply to the parts
    assert read_splits(share, ["validation"]).examples["validation"].index == validation.index
    assert read_splits(share, ["train"]).examples["train"].index == train.index
    limited = read_splits(
        spec(saved, validation=None, validation_share=0.1, max_train_samples=20, max_eval_samples=3),
        ["train", "validation"],
    ).examples
    assert limited["train"].index == train.index[:20] and limited["validation"].index == validation.index[:3]


def test_the_hold_out_of_a_search_is_a_part_of_the_rest(saved):
    share = {"validation": None, "validation_share": 0.1}
    whole = read_splits(spec(saved, **share), ["train", "validation"]).examples
    search = read_splits(spec(saved, **share, hold_out=0.5), ["train", "validation"])
    assert not set(whole["validation"].index) & {*search.examples["train"].index, *search.examples["validation"].index}
    assert [len(part) for part in search.examples.values()] == [27, 27] and "27 of 54" in search.notes[-1]


def test_a_rare_class_stays_in_the_training_set(tmp_path):
    labels = [0] * 40 + [1] * 2 + [2]
    cells = {"text": [f"w{i} w" for i in range(43)], "label": labels}
    datasets.DatasetDict(train=datasets.Dataset.from_dict(cells, features=features())).save_to_disk(str(tmp_path / "x"))
    parts = read_splits(
        spec(str(tmp_path / "x"), validation=None, validation_share=0.1), ["train", "validation"]
    ).examples
    assert np.bincount(parts["validation"].labels).tolist() == [4]
    assert np.bincount(parts["train"].labels).tolist() == [36, 2, 1]
    most = read_splits(spec(str(tmp_path / "x"), validation=None, validation_share=0.9), ["train"]).examples["train"]
    assert np.bincount(most.labels).tolist() == [4, 1, 1]
    with pytest.raises(UserError, match="^--validation_share 0.01: the training set has 43 rows, too few"):
        read_splits(spec(str(tmp_path / "x"), validation=None, validation_share=0.01), ["train"])


def test_own_files_have_a_validation_share_too(tmp_path):
    with open(tmp_path / "x.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *([f"w{i} w", "ab"[i % 2]] for i in range(20))])
    own = DataSpec("x", "files", (("train", str(tmp_path / "x.csv")),), validation_share=0.2)
    assert [len(part) for part in read_splits(own, ["train", "validation"]).examples.values()] == [16, 4]


# ---- contents and names
def test_changed_rows_have_another_fingerprint(tmp_path):
    name = write_files(tmp_path / "files")
    before = row_fingerprints(spec(name), ["train", "validation"])
    assert before["train"][0] == 30 and row_fingerprints(spec(name), ["train", "validation"]) == before
    path = tmp_path / "files" / "train.csv"
    path.write_text(path.read_text().replace("w7 w", "w8 w"))
    after = row_fingerprints(spec(name), ["train", "validation"])
    assert after["train"] != before["train"] and after["validation"] == before["validation"]


def test_unchanged_folders_are_read_once_and_hub_datasets_are_not_read(saved, monkeypatch):
    share = spec(saved, validation=None, validation_share=0.1)
    first = row_fingerprints(share, ["train", "validation"])
    monkeypatch.setattr(reading, "read_tables", lambda *_: pytest.fail("read again"))
    assert row_fingerprints(share, ["train", "validation"]) == first
    assert row_fingerprints(spec("someone/reviews"), ["train"]) == {}


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("imdb", None, "imdb"),
        ("nyu-mll/glue", "mrpc", "glue-mrpc"),
        ("a/rte", None, "rte-dataset"),
        ("a/x/", None, "x"),
    ],
)
def test_task_names(name, config, expected):
    assert dataset_task_name(name, config) == expected


# ---- bad input
def test_bad_input_is_one_line(tmp_path, saved, capfd):
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.json").write_text("{")
    (tmp_path / "pointer").mkdir()
    (tmp_path / "pointer" / "train.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    cases = {
        "--dataset_name .*empty: .* cannot read this folder .*any data files.*Give a folder": {"name": "empty"},
        "--dataset_name .*broken: .* cannot read this folder": {"name": "broken"},
        ".*pointer/train.csv is a pointer of Git LFS, not the file. Fetch it": {"name": "pointer"},
        "--dataset_name .*rows.csv: is a file, not a dataset. .*: --train_file .layerdrop predict: FILE..$": {
            "name": "rows.csv"
        },
        r"--train_split train\[:0\]: .*reviews has no rows in this split": {"train": "train[:0]"},
        "--dataset_config_name x: the saved dataset .*reviews has no configurations": {
            "name": "reviews",
            "config": "x",
        },
        r"--label_column: .*reviews \(train\) has no column gold. Name one .*: text, label": {"label_column": "gold"},
        r"--text_columns: .*reviews \(train\) has no column body": {"text_columns": ("body",)},
        "--train_split dev: .*reviews has no such split. Name one with --train_split: train, test, unl": {
            "train": "dev"
        },
        r"--train_split train\[: .*reviews has no such split": {"train": "train["},
    }
    for message, how in cases.items():
        name = str(tmp_path / how.pop("name", "reviews"))
        with pytest.raises(UserError, match=f"^{message}") as error:
            read_splits(spec(name, **how), ["train"])
        assert len(str(error.value).splitlines()) == 1
    assert capfd.readouterr().err == ""
    with pytest.raises(
        UserError, match="^--dataset_name a/b: no such folder, and neither .*FOLDER of a saved dataset, or --train_file"
    ) as error:
        read_splits(spec("a/b"), ["train"])
    assert len(str(error.value).splitlines()) == 1
