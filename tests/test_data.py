import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from layerdrop.data import (
    Collator,
    Examples,
    LengthGroupedSampler,
    OwnFiles,
    Tokenised,
    batches,
    read_glue_split,
    read_own_files,
    read_splits,
    tokenise,
)
from layerdrop.errors import UserError
from layerdrop.tasks import TASKS
from tests import tiny


# ---- the classical GLUE layout
@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_in_the_classical_layout(glue, name):
    task = TASKS[name]
    own, splits = read_splits(task, ["train", "validation", "test"], data_dir=glue)
    assert own is task and list(splits) == ["train", *task.splits("validation"), *task.splits("test")]
    train, dev, test = splits["train"], splits[task.splits("validation")[0]], splits[task.splits("test")[0]]
    assert (len(train), len(dev), len(test)) == (24, 12, 12)
    assert len(train.texts) == len(task.texts) and all(text.startswith("w") for text in train.texts[0])
    assert test.labels is None and test.index == [str(i) for i in range(12)]
    if task.is_regression:
        assert train.labels.dtype == np.float32 and train.labels[:7].tolist() == [0, 1, 2, 3, 4, 5, 0]
    else:
        n = len(task.words)
        assert train.labels.dtype == np.int64 and train.labels.tolist() == [i % n for i in range(24)]


def test_mnlis_development_sets_differ(glue):
    matched, mismatched = (
        read_glue_split(glue, TASKS["mnli"], f"validation_{kind}") for kind in ("matched", "mismatched")
    )
    assert matched.texts != mismatched.texts and matched.fingerprint() != mismatched.fingerprint()


def test_the_tasks_folder_itself_can_be_given(glue):
    task = TASKS["rte"]
    assert (
        read_glue_split(glue + "/RTE", task, "train").fingerprint()
        == read_glue_split(glue, task, "train").fingerprint()
    )


def test_only_what_is_needed_must_exist(tmp_path):
    tiny.glue(tmp_path, "mnli")
    for name in ("train", "dev_mismatched", "test_matched"):
        (tmp_path / "MNLI" / f"{name}.tsv").unlink()
    assert len(read_glue_split(str(tmp_path), TASKS["mnli"], "validation_matched")) == 12
    with pytest.raises(UserError, match=r"cannot read .*dev_mismatched.tsv"):
        read_glue_split(str(tmp_path), TASKS["mnli"], "validation_mismatched")


def test_no_such_folder():
    with pytest.raises(UserError, match="--data_dir nowhere: no such folder. Expected for rte: RTE/train.tsv"):
        read_glue_split("nowhere", TASKS["rte"], "train")


def rte(tmp_path, *lines: str) -> str:
    (tmp_path / "RTE").mkdir(exist_ok=True)
    text = "".join(line + "\n" for line in ("index\tsentence1\tsentence2\tlabel", *lines))
    (tmp_path / "RTE" / "train.tsv").write_text(text, encoding="utf-8")
    return str(tmp_path)


GOOD = "0\ta\tb\tentailment"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1\ta\tb", "3 columns instead of 4"),
        ("1\ta\tb\tentailment\textra", "5 columns instead of 4"),
        ("1\ta\tb\tmaybe", "label 'maybe' is none of entailment, not_entailment"),
    ],
)
def test_malformed_row(tmp_path, bad, message):
    folder = rte(tmp_path, GOOD, bad, GOOD)
    with pytest.raises(UserError, match=rf"train.tsv:3: {message}. .*--skip_bad_rows"):
        read_glue_split(folder, TASKS["rte"], "train")
    examples = read_glue_split(folder, TASKS["rte"], "train", skip_bad_rows=True)
    assert (len(examples), examples.bad_rows) == (2, 1)


def test_quotes_and_odd_line_ends_are_text(tmp_path):
    folder = rte(tmp_path, '0\tsaid " so\tb\u2028c\u0085d\x0ce\tentailment\r')
    examples = read_glue_split(folder, TASKS["rte"], "train")
    assert examples.texts == (['said " so'], ["b\u2028c\u0085d\x0ce"])


def test_missing_column_and_no_rows(tmp_path):
    (tmp_path / "RTE").mkdir()
    path = tmp_path / "RTE" / "train.tsv"
    path.write_text("index\tsentence1\tlabel\n0\ta\tentailment\n")
    with pytest.raises(UserError, match=r"train.tsv:1: no column sentence2; found: index, sentence1, label"):
        read_glue_split(str(tmp_path), TASKS["rte"], "train")
    rte(tmp_path)
    with pytest.raises(UserError, match="no usable row"):
        read_glue_split(str(tmp_path), TASKS["rte"], "train")
    path.write_bytes(b"index\tsentence1\tsentence2\tlabel\n0\t\xff\xfe\tb\tentailment\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_glue_split(str(tmp_path), TASKS["rte"], "train")


@pytest.mark.parametrize("value", ["five", "nan", "inf", ""])
def test_regression_label_that_is_no_number(tmp_path, value):
    tiny.glue(tmp_path, "stsb")
    path = tmp_path / "STS-B" / "train.tsv"
    path.write_text(path.read_text().replace("\t3.000\n", f"\t{value}\n", 1))
    with pytest.raises(UserError, match=rf"train.tsv:5: label '{value}' is not a"):
        read_glue_split(str(tmp_path), TASKS["stsb"], "train")


# ---- own files
ROWS = [
    {"sentence1": "w1 w2", "sentence2": "w3", "label": "yes"},
    {"sentence1": 'w "4"', "sentence2": "w5, w6", "label": "no"},
]


def write(path: Path, rows: list[dict]) -> str:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".json", ".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".tsv":
        path.write_text(
            "".join("\t".join(map(str, row)) + "\n" for row in (rows[0].keys(), *(row.values() for row in rows)))
        )
    else:
        import csv

        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def read(*paths: str, task=None, skip_bad_rows=False, known_labels=(), **how):
    own = OwnFiles(tuple(zip(("train", "validation", "test"), paths, strict=False)), **how)
    return read_own_files(own, task, known_labels, skip_bad_rows)


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_own_files(tmp_path, kind):
    path = write(tmp_path / f"reviews.{kind}", ROWS)
    task, splits = read(path, path, path)
    assert (task.name, task.labels, task.texts) == ("reviews", ("no", "yes"), ("sentence1", "sentence2"))
    assert splits["train"].texts == (["w1 w2", 'w "4"'], ["w3", "w5, w6"])
    assert splits["validation"].labels.tolist() == [1, 0] and splits["test"].labels is None
    assert splits["test"].index == ["0", "1"]


@pytest.mark.parametrize(
    ("labels", "how", "expected"),
    [
        (["0", "1", "10"], {}, ("0", "1", "10")),
        (["0.5", "1", "2.5"], {}, ()),
        (["0", "1", "2"], {"regression": True}, ()),
        (["0.5", "1.5", "2.5"], {"regression": False}, ("0.5", "1.5", "2.5")),
        ([True, False, True], {}, ("False", "True")),
    ],
)
def test_classes_or_numbers(tmp_path, labels, how, expected):
    rows = [{"text": f"w{i}", "label": label} for i, label in enumerate(labels)]
    task, splits = read(write(tmp_path / "x.jsonl", rows), **how)
    assert task.labels == expected and task.texts == ("text",)
    assert splits["train"].labels.dtype == (np.int64 if expected else np.float32)


def test_columns_can_be_named(tmp_path):
    rows = [{"id": 7, "a": "w1", "b": "w2", "c": "w3", "stars": n} for n in (1, 2)]
    path = write(tmp_path / "x.csv", rows)
    with pytest.raises(UserError, match="cannot tell the text columns .*--text_columns"):
        read(path, label_column="stars")
    task, splits = read(path, text_columns=("c", "a"), label_column="stars")
    assert task.texts == ("c", "a") and splits["train"].index == ["7", "7"]
    with pytest.raises(UserError, match="--text_columns: .* has no column d"):
        read(path, text_columns=("d",), label_column="stars")
    with pytest.raises(UserError, match="--label_column: .* has no 'label'"):
        read(path, text_columns=("a",))


def test_own_files_of_a_glue_task(tmp_path):
    for labels in (("entailment", "not_entailment"), ("0", "1")):
        rows = [{"sentence1": "w1", "sentence2": "w2", "label": label} for label in labels]
        task, splits = read(write(tmp_path / "x.csv", rows), task=TASKS["rte"])
        assert task.name == "rte" and splits["train"].labels.tolist() == [0, 1]


def test_classes_without_a_train_file(tmp_path):
    path = write(tmp_path / "x.csv", ROWS)
    own = OwnFiles((("validation", path),))
    assert read_own_files(own, None, ("yes", "no"))[1]["validation"].labels.tolist() == [0, 1]
    assert read_own_files(own, None)[1]["validation"].labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "text", "line", "message"),
    [
        ("x.csv", "text,label\nw1,a\nw2\nw3,b\n", 3, "1 columns instead of 2"),
        ("x.csv", 'text,label\nw1,a\n"w2\nw4",b\nw3,b,c\n', 5, "3 columns instead of 2"),
        ("x.csv", "text,label\nw1,a\nw2,b\nw3,\n", 4, "an empty cell"),
        ("x.csv", "text,label\nw1,a\n,b\nw3,b\n", 3, "an empty cell"),
        ("x.tsv", "text\tlabel\nw1\ta\nw2\tb\nw\n", 4, "1 columns instead of 2"),
        ("x.jsonl", '{"text": "w1", "label": "a"}\n{"text": \n{"text": "w3", "label": "b"}\n', 2, "not a JSON object"),
        (
            "x.jsonl",
            '{"text": "w1", "label": "a"}\n{"text": "w2", "label": "b"}\n{"label": "b"}\n',
            3,
            "no column text",
        ),
        (
            "x.jsonl",
            '{"text": "w1", "label": "a"}\n{"text": "w2", "label": "b"}\n{"text": null, "label": "b"}\n',
            3,
            "an empty cell",
        ),
    ],
)
def test_malformed_own_row(tmp_path, name, text, line, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=rf"{name}:{line}: {message}"):
        read(str(path))
    _, splits = read(str(path), skip_bad_rows=True)
    assert (len(splits["train"]), splits["train"].bad_rows) == (2, 1)


def test_label_that_training_does_not_know(tmp_path):
    train, dev = write(tmp_path / "t.csv", ROWS), write(tmp_path / "d.csv", [*ROWS, ROWS[0] | {"label": "perhaps"}])
    with pytest.raises(UserError, match="d.csv:4: label 'perhaps' is none of no, yes"):
        read(train, dev)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.txt", "unknown file type '.txt'. Allowed: .csv, .tsv"),
        ("gone.csv", "cannot read the file"),
        ("x.parquet", "not a readable parquet file"),
    ],
)
def test_unreadable_own_file(tmp_path, name, message):
    if "gone" not in name:
        (tmp_path / name).write_text("text\n")
    with pytest.raises(UserError, match=message):
        read(str(tmp_path / name))


def test_a_malformed_row_is_said_before_what_it_leads_to(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\nw1,a\nw2,b,c\n")
    with pytest.raises(UserError, match="x.csv:3: 3 columns instead of 2"):
        read(str(tmp_path / "x.csv"))


def test_name_of_the_users_task():
    assert OwnFiles((("train", "a/reviews.csv"),)).name == "reviews"
    assert OwnFiles((("train", "a/reviews/train.csv"),)).name == "reviews"


def test_one_class_is_not_a_task(tmp_path):
    with pytest.raises(UserError, match="only one class, 'yes'"):
        read(write(tmp_path / "x.csv", ROWS[:1]))


# ---- tokenised datasets and batches
def examples(n: int = 40, seed: int = 0) -> Examples:
    generator = random.Random(seed)
    texts = tuple([tiny.sentence(generator, 12) for _ in range(n)] for _ in range(2))
    return Examples(texts, np.arange(n) % 2, [str(i) for i in range(n)])


@pytest.mark.parametrize("left", [False, True])
def test_batches_are_what_the_tokenizer_pads(left):
    tokenizer, rows = tiny.tokenizer(left), examples()
    dataset = tokenise(rows, tokenizer, 14)
    collator = Collator.of(tokenizer)
    order = [3, 0, 17, 8]
    batch = collator([dataset[i] for i in order])
    texts = [[column[i] for i in order] for column in rows.texts]
    expected = tokenizer(*texts, truncation=True, max_length=14, padding=True, return_tensors="pt")
    assert set(batch) == {*expected, "labels"}
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert batch["labels"].tolist() == [1, 0, 1, 0]
    assert Collator.of(tokenizer, 20, fill=True)([dataset[0]])["input_ids"].shape == (1, 20)


def test_lengths_of_batches():
    collator = Collator.of(tiny.tokenizer(), 128)
    assert [collator.length(n) for n in (1, 31, 32, 33, 50, 68, 120, 127, 128)] == [
        1,
        31,
        32,
        34,
        51,
        68,
        126,
        128,
        128,
    ]
    assert all(n <= collator.length(n) <= n * 17 / 16 for n in range(1, 129))
    assert (
        Collator.of(tiny.tokenizer()).length(33) == 33
        and Collator.of(tiny.tokenizer(), 128, fill=True).length(33) == 128
    )


def test_tokenised_once_for_the_same_texts_tokenizer_and_length(monkeypatch):
    calls = []
    kind = type(tiny.tokenizer())
    monkeypatch.setattr(kind, "__call__", lambda *args, call=kind.__call__, **kw: calls.append(1) or call(*args, **kw))
    first = tokenise(examples(seed=7), tiny.tokenizer(), 14)
    n = len(calls)
    again = tokenise(examples(seed=7), tiny.tokenizer(), 14, labels=np.ones(40))
    assert n and len(calls) == n and (again[3]["input_ids"] == first[3]["input_ids"]).all()
    assert again[0]["labels"] == 1 and first[0]["labels"] == 0
    without_types = tiny.tokenizer()
    without_types.model_input_names = ["input_ids", "attention_mask"]
    for other in (
        (examples(seed=8), tiny.tokenizer(), 14),
        (examples(seed=7), tiny.tokenizer(left=True), 14),
        (examples(seed=7), tiny.tokenizer(), 15),
        (examples(seed=7), without_types, 14),
    ):
        before = len(calls)
        tokenise(*other)
        assert len(calls) > before
    assert "token_type_ids" not in tokenise(examples(seed=7), without_types, 14)[0]


def test_longest_first_knows_the_way_back():
    dataset = tokenise(examples(), tiny.tokenizer(), 64)
    longest = dataset.longest_first()
    assert (np.diff(longest.lengths) <= 0).all() and sorted(longest.rows) == list(range(40))
    assert all((longest[i]["input_ids"] == dataset[longest.rows[i]]["input_ids"]).all() for i in range(40))
    assert [len(batch) for batch in batches(dataset, 16)] == [16, 16, 8]


def test_head_and_fingerprint():
    rows = examples()
    assert len(rows.head(5)) == 5 and len(rows.head(None)) == 40
    assert rows.fingerprint() == examples().fingerprint() != examples(seed=1).fingerprint()
    changed = examples()
    changed.labels[0] = 1
    assert changed.fingerprint() != rows.fingerprint()


class TestSampler:
    lengths = np.random.default_rng(0).integers(5, 100, 1000)

    def epoch(self, number: int, seed: int = 1, **kwargs) -> list[int]:
        sampler = LengthGroupedSampler(self.lengths, 32, seed, **kwargs)
        sampler.set_epoch(number)
        return list(sampler)

    def test_every_example_once(self):
        assert sorted(self.epoch(0)) == list(range(1000)) and len(LengthGroupedSampler(self.lengths, 32, 1)) == 1000

    def test_order_depends_on_seed_and_epoch_alone(self):
        assert self.epoch(0) == self.epoch(0)
        assert self.epoch(0) != self.epoch(1) and self.epoch(0) != self.epoch(0, seed=2)

    def test_little_padding_and_batches_in_random_order(self):
        order = self.epoch(3)
        parts = [self.lengths[order[i : i + 32]] for i in range(0, 1000, 32)]
        padded = sum(part.max() * len(part) for part in parts)
        assert 1 - self.lengths.sum() / padded < 0.05
        means = [part.mean() for part in parts[:-1]]
        assert means != sorted(means) and means != sorted(means, reverse=True) and len(parts[-1]) == 8

    def test_it_counts_what_it_hands_out(self):
        sampler = LengthGroupedSampler(self.lengths, 32, 1, padded=lambda longest: 128)
        list(sampler)
        assert (sampler.tokens, sampler.padded_tokens) == (self.lengths.sum(), 128 * 1000)

    def test_fewer_examples_than_a_batch(self):
        assert sorted(LengthGroupedSampler(self.lengths[:5], 32, 1)) == [0, 1, 2, 3, 4]


def test_tokenised_items():
    dataset = Tokenised({"input_ids": np.array([7, 8, 9], np.int32)}, np.array([0, 1, 3]), None)
    assert len(dataset) == 2 and dataset[1]["input_ids"].tolist() == [8, 9] and "labels" not in dataset[0]


# ---- the hub
@pytest.mark.parametrize(("name", "label"), [("rte", 1), ("stsb", 2.5), ("mnli", 2)])
def test_hub_columns(monkeypatch, name, label):
    import datasets

    task = TASKS[name]
    asked = []

    def load_dataset(path, config, split, **kwargs):
        asked.append((path, config, split))
        texts = {column: [f"{column} {i}" for i in range(3)] for column in task.hub_texts}
        return datasets.Dataset.from_dict({**texts, "label": [label] * 3, "idx": [4, 5, 6]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    _, splits = read_splits(task, ["validation", "test"])
    dev, test = splits[task.splits("validation")[0]], splits[task.splits("test")[0]]
    assert asked[0] == ("nyu-mll/glue", name, task.splits("validation")[0])
    assert dev.labels.tolist() == [label] * 3 and test.labels is None and dev.index == ["4", "5", "6"]
    assert dev.texts[1][2] == f"{task.hub_texts[1]} 2"


def test_no_hub_for_the_data():
    with pytest.raises(
        UserError, match=r"cannot get nyu-mll/glue \(rte, train\) .* Without a hub: .*--data_dir"
    ) as error:
        read_splits(TASKS["rte"], ["train"])
    assert len(str(error.value).splitlines()) == 1
