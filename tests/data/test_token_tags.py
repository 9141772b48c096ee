"""Labels of tokens: files, alignment against the library's word_ids, losses by hand, metrics against seqeval."""

import json
import re

import datasets
import numpy as np
import pytest
import torch
from seqeval.metrics import classification_report
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from layerdrop.data.batches import Collator
from layerdrop.data.examples import Examples
from layerdrop.data.kinds import TokenTags, kind_of
from layerdrop.data.labels import Labels
from layerdrop.data.read import read_splits
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import custom_task
from layerdrop.data.tokens import IGNORED, ragged, tokenize
from layerdrop.errors import UserError
from tests import tiny
from tests.data.test_own_files import read as read_files
from tests.data.test_own_files import write

NAMES = ("B-a", "B-b", "I-a", "O")
KIND = TokenTags(NAMES)
ROWS = [
    {"tokens": ["w1", "w2", "w3"], "ner_tags": ["B-a", "I-a", "O"]},
    {"tokens": ["w4"], "ner_tags": ["B-b"]},
]
CONLL = "-DOCSTART- -X- O\n\nw1 N B-a\nw2 N I-a\nw3 V O\n\n\nw4 N B-b\n"


def ids(*rows: list[int]) -> np.ndarray:
    return ragged([np.array(row, np.int64) for row in rows])


# ---- files
@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("x.jsonl", None, {}),
        ("x.json", None, {}),
        ("x.parquet", None, {}),
        ("x.csv", None, {"label_type": "token"}),  # lists in Python's notation
        ("x.conll", CONLL, {}),
        ("x.conll", CONLL.replace(" ", "\t"), {}),
        ("x.conll", "# id = 1\n" + CONLL.replace(" ", "\t").replace("\n", "\r\n"), {}),
        ("x.txt", CONLL, {"label_type": "token"}),
        ("x.tsv", "tokens\tner_tags\nw1 w2 w3\tB-a I-a O\nw4\tB-b\n", {"label_type": "token"}),
    ],
)
def test_words_and_tags_in_every_type_of_file(tmp_path, name, content, how):
    path = tmp_path / name
    path.write_bytes(content.encode()) if content else write(path, ROWS)
    data = read_files(str(path), str(path), str(path), **how)
    task, train, validation, test = data.task, *data.examples.values()
    assert (task.labels, task.label_type, task.texts, task.label) == (NAMES, "token", ("tokens",), "ner_tags")
    for rows in (train, validation):
        assert rows.texts == ([["w1", "w2", "w3"], ["w4"]],) and [row.tolist() for row in rows.labels] == [
            [0, 2, 3],
            [1],
        ]
    assert test.labels is None and task.selection_metric == "entity_f1" and task.kind == TokenTags(NAMES, NAMES)


def test_other_columns_and_schemes(tmp_path):
    """The second column of a CoNLL file; tags that are no entities."""
    (tmp_path / "x.conll").write_text(CONLL)
    data = read_files(str(tmp_path / "x.conll"), label_column="2")
    assert data.task.labels == ("N", "V") and data.task.metrics == ("accuracy", "f1_macro")
    path = write(tmp_path / "x.jsonl", [{"words": row["tokens"], "pos": row["ner_tags"]} for row in ROWS])
    assert read_files(path, label_column="pos").task.texts == ("words",)
    for names in (("O", "B-x"), ("S-x", "O", "E-x", "I-x"), ("B-x", "I-x")):
        assert KIND.own_metrics(names)[1] == "entity_f1"
    for names in (("O", "X"), ("N", "V"), ("O", "P"), ("B-x", "N")):
        assert KIND.own_metrics(names)[1] == "accuracy"


@pytest.mark.parametrize(
    ("tags", "note"),
    [
        (["B-a", "B_b"], "metrics count words, not entities, because 'ner_tags' has other tags .*: B_b"),
        (["B-a", "O"], None),
        (["N", "V"], None),
        ([0, 1], "the tags in 'ner_tags' are numbers"),
    ],
)
def test_a_note_says_why_no_entities_are_measured(tmp_path, tags, note):
    path = write(tmp_path / "x.jsonl", [{"tokens": ["w1", "w2"], "ner_tags": tags}] * 2)
    for label_type in ("auto", "token"):
        notes = "\n".join(read_files(path, label_type=label_type).notes)
        assert re.search(note, notes) if note else "entities" not in notes
    known = read_files(None, path, label_type="token", known_labels=tuple(map(str, sorted(set(tags)))))
    assert not any("entities" in text for text in known.notes)  # its tags were noted when the model was trained


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["w1", "w2"], "ner_tags": ["O"]}, "2 words, but 1 tags"),
        ({"tokens": ["w1"], "ner_tags": ["B-c"]}, "label 'B-c' is none of B-b, B-a, I-a, O"),
        ({"tokens": [], "ner_tags": []}, "no word in column 'tokens'"),
        (
            {"tokens": ["w1", None], "ner_tags": ["O", "O"]},
            "the list in column 'tokens' contains None, which is not a word",
        ),
        ({"tokens": ["w1"], "ner_tags": ["B a"]}, "column 'ner_tags' contains the tag 'B a', which has a blank"),
        ({"tokens": ["w1", "w2"], "ner_tags": ["O", ""]}, "the list in column 'ner_tags' contains an empty text"),
        ({"tokens": ["w1"], "ner_tags": None}, "an empty cell in column 'ner_tags'"),
    ],
)
def test_malformed_rows(tmp_path, row, message):
    train, path = write(tmp_path / "train.jsonl", ROWS), write(tmp_path / "x.jsonl", [ROWS[0], row])
    with pytest.raises(UserError, match=f"x.jsonl:2: {message}"):
        read_files(train, path)
    assert read_files(train, path, skip_bad_rows=True).examples["validation"].bad_lines == (2,)


def test_malformed_files(tmp_path):
    for content, message in (
        ("w1 O\nw2\n\nw3 O\n", "x.conll:1: line 2 of the sentence has 1 of 2 columns"),
        ("w1\tO\n\nw2\t\n", "x.conll:3: line 1 of the sentence has an empty column"),
        ("\n\n", "no usable row. Write one word on each line"),
        ("w1\nw2\n", "--label_column: .*x.conll has no column label"),
        ("w1 O\nw2 O\n", "only one class, 'O'"),
    ):
        (tmp_path / "x.conll").write_text(content)
        with pytest.raises(UserError, match=message):
            read_files(str(tmp_path / "x.conll"))
    path = write(tmp_path / "x.jsonl", [{"sentence": "w w", "ner_tags": ["O", "B-a"]}])
    with pytest.raises(UserError, match="need one column of words. Name one with --text_columns: sentence, ner_tags"):
        read_files(path, label_type="token")


# ---- alignment
def sub_words(byte_level: bool = False) -> PreTrainedTokenizerFast:
    """WordPiece, or a byte-level BPE, of single letters: every word has several sub-tokens."""
    if byte_level:
        letters = pre_tokenizers.ByteLevel.alphabet()
        raw = Tokenizer(models.BPE({letter: i + 4 for i, letter in enumerate(sorted(letters))} | SPECIAL, []))
        raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    else:
        pieces = [prefix + letter for letter in "abcdef.," for prefix in ("", "##")]
        raw = Tokenizer(models.WordPiece({p: i + 4 for i, p in enumerate(pieces)} | SPECIAL, unk_token="[UNK]"))
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_input_names=["input_ids", "attention_mask"], **names)


SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
SENTENCES = [["ab", "c.d", "x", "é", "a", "ff,"], ["f"], ["a b", "c"], ["abcdef"] * 9]


@pytest.mark.parametrize("byte_level", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_first_sub_tokens_are_those_of_the_library(byte_level, side):
    tokenizer = sub_words(byte_level)
    tokenizer.truncation_side = side
    data = tokenize(Examples((SENTENCES,), None, list("0123")), tokenizer, 16)
    assert data.words.counts.tolist() == [6, 1, 2, 9]
    for row, words in enumerate(SENTENCES):
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=16)
        part = slice(data.offsets[row], data.offsets[row + 1])
        assert data.columns["input_ids"][part].tolist() == encoded["input_ids"]
        of_library = encoded.word_ids()
        first = [-1 if i is None or i in of_library[:n] else i for n, i in enumerate(of_library)]
        assert data.words.first[part].tolist() == first, words


@pytest.fixture
def aligned():
    """(examples, tokenized examples): words of one sub-token, and one word that the limit cuts off."""
    words = [["w1", "w2", "w3"], ["w4"], ["w5", "w6"]]
    examples = Examples((words,), ids([0, 2, 3], [1], [3, 0]), list("012"))
    return examples, tokenize(examples, tiny.tokenizer(), 4)


@pytest.mark.parametrize("left", [False, True])
def test_batches_have_a_label_at_each_first_sub_token(aligned, left):
    _, data = aligned
    assert data.token_labels.tolist() == [IGNORED, 0, 2, IGNORED, IGNORED, 1, IGNORED, IGNORED, 3, 0, IGNORED]
    batch = Collator.of(tiny.tokenizer(left))([data[0], data[1]])
    rows = [[IGNORED, 0, 2, IGNORED], [IGNORED, IGNORED, 1, IGNORED] if left else [IGNORED, 1, IGNORED, IGNORED]]
    assert batch["labels"].tolist() == rows and "token_labels" not in batch
    unlabelled = tokenize(Examples(aligned[0].texts, None, list("012")), tiny.tokenizer(), 4)
    assert "labels" not in Collator.of(tiny.tokenizer())([unlabelled[0]])


def test_predictions_of_every_word_in_the_order_of_the_rows(aligned):
    """Logits come longest row first; the word that is cut off is outside of entities."""
    _, data = aligned
    ordered = data.longest_first()
    assert ordered.rows.tolist() == [0, 2, 1]
    batch = Collator.of(tiny.tokenizer())([ordered[i] for i in range(3)])
    logits = torch.nn.functional.one_hot(batch["labels"].clamp(min=0), 4).float()
    units = ordered.in_order(ordered.units(logits, batch["attention_mask"], ordered.rows).numpy())
    assert units.argmax(-1).tolist() == [0, 2, 1, 3, 0]
    task = custom_task("t", ("tokens",), "ner_tags", NAMES, label_type="token")
    decided = Labels(task).decide(units, data)
    assert [row.tolist() for row in decided] == [[0, 2, 3], [1], [3, 0]]
    measured = Labels(task).score(units, data)
    assert measured["entity_f1"] == 1.0 and measured["loss"] == pytest.approx(-np.log(np.e / (np.e + 3)), abs=1e-6)
    none_outside = TokenTags(("x", "y", "z", "v")).by_row(units.argmax(-1), data)
    assert none_outside[0].tolist() == [0, 2, -1]


def test_slow_tokenizers_are_refused(aligned):
    tokenizer = tiny.tokenizer()
    tokenizer.__class__ = type("Slow", (type(tokenizer),), {"is_fast": False})
    with pytest.raises(UserError, match="labels of tokens need a fast tokenizer"):
        tokenize(Examples(([["w9", "w8"]],), None, ["0"]), tokenizer, 8)


# ---- losses
def test_loss_is_the_librarys():
    sizes = {
        "vocab_size": 8,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    model = BertForTokenClassification(BertConfig(**sizes, num_labels=4)).eval()
    labels = torch.tensor([[IGNORED, 1, 3], [0, IGNORED, IGNORED]])
    output = model(torch.tensor([[1, 2, 3], [4, 5, 0]]), labels=labels)
    assert torch.allclose(KIND.loss(output.logits, labels), output.loss)
    assert type(kind_of(model.config, "BertForTokenClassification")) is TokenTags
    units, targets = KIND.units(output.logits, labels)
    assert torch.allclose(KIND.losses(units, targets).mean(), output.loss)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten(), weights)
    assert torch.allclose(KIND.loss(output.logits, labels, class_weights=weights), expected)
    smoothed = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    assert torch.allclose(KIND.loss(output.logits, labels, 0.1), smoothed)


def test_a_batch_without_labels_has_no_loss_and_no_gradient():
    logits = torch.randn(1, 2, 4, requires_grad=True)
    labels = torch.full((1, 2), IGNORED)
    loss = KIND.loss(logits, labels) + KIND.distillation_loss(logits, logits.detach() + 1, 1.0, labels)
    loss.backward()
    assert float(loss.detach()) == 0 and not logits.grad.any()


def test_distillation_counts_labeled_tokens_only():
    student, teacher = torch.zeros(1, 3, 2), torch.tensor([[[0.0, 0.0], [np.log(3.0), 0.0], [9.0, 0.0]]])
    labels = torch.tensor([[0, 1, IGNORED]])
    divergence = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert float(KIND.distillation_loss(student, teacher, 1.0, labels)) == pytest.approx(divergence / 2)


def test_balanced_weights_count_tokens():
    assert KIND.balanced_weights(ids([0, 3, 3], [3])).tolist() == pytest.approx([2.0, 1.0, 1.0, 4 / 6])


# ---- metrics
LABELS, PREDICTED = ids([0, 2, 3, 1], [3, 0, 3]), ids([0, 2, 3, 0], [3, 0, 2])


def test_entities_by_hand_and_by_seqeval():
    """Entities: a(0-1), b(3), a(1). Predicted: a(0-1), a(3), a(1-2)."""
    metrics = KIND.own_metrics(NAMES)[0]
    measured = KIND.measure(metrics, PREDICTED, LABELS)
    assert measured == pytest.approx(
        {"entity_f1": 1 / 3, "entity_precision": 1 / 3, "entity_recall": 1 / 3, "accuracy": 5 / 7}
    )
    tags = [[[NAMES[i] for i in row] for row in rows] for rows in (LABELS, PREDICTED)]
    report = classification_report(*tags, output_dict=True, zero_division=0)
    assert KIND.f1_by_class(PREDICTED, LABELS) == pytest.approx({"a": report["a"]["f1-score"], "b": 0.0})
    assert KIND.correct(PREDICTED, LABELS).tolist() == [False, False] and KIND.correct(LABELS, LABELS).all()
    assert KIND.n_distinct(PREDICTED) == 3 and KIND.n_distinct(ids([3], [3, 3])) == 1


def test_no_entity_is_no_error():
    outside = ids([3, 3])
    assert KIND.measure(("entity_f1", "accuracy"), outside, outside) == {"entity_f1": 0.0, "accuracy": 1.0}
    assert KIND.f1_by_class(outside, outside) == {}


def test_bilou_is_read_as_iobes():
    kind = TokenTags(("B-a", "I-a", "L-a", "O", "U-a"))
    labels, predicted = ids([0, 1, 2, 4, 3]), ids([0, 1, 2, 3, 4])
    assert kind.measure(("entity_f1",), predicted, labels) == {"entity_f1": 0.5}


@pytest.mark.parametrize(
    ("label", "predicted", "correct"),
    [("U-a I-a", "U-a O", 1), ("B-a L-a I-a", "B-a L-a O", 1), ("B-a I-a I-a", "B-a I-a O", 0)],
)
def test_an_entity_ends_at_u_and_l(label, predicted, correct):
    kind = TokenTags(("B-a", "I-a", "L-a", "O", "U-a"))
    measured = kind.measure(("entity_precision",), *map(kind.read, ([predicted], [label])))
    assert measured == {"entity_precision": correct}


def test_shown_and_read():
    rows = ids([0, 2, -1], [3])
    assert KIND.shown(rows) == ["B-a I-a _", "O"]
    assert [row.tolist() for row in KIND.read(KIND.shown(rows))] == [[0, 2, -1], [3]]
    with pytest.raises(ValueError, match="'X' is not a class of the task"):
        KIND.read(["O X"])


def test_another_order_of_the_labels():
    order = np.array([3, 2, 1, 0])
    assert [row.tolist() for row in KIND.renumbered(ids([0, 1, -1], [3]), order)] == [[3, 2, -1], [0]]
    assert KIND.renumbered(np.array([0, -1]), order).tolist() == [3, -1]


def test_fingerprints_follow_words_and_tags():
    texts, labels = ([["a", "b"], ["c"]],), ids([0, 1], [1])
    prints = {
        Examples(texts, labels, ["0", "1"]).fingerprint(),
        Examples(texts, None, ["0", "1"]).fingerprint(),
        Examples(([["a"], ["b", "c"]],), ids([0], [1, 1]), ["0", "1"]).fingerprint(),
        Examples(([["a b"], ["c"]],), None, ["0", "1"]).fingerprint(),
        Examples(texts, ids([0, 1], [0]), ["0", "1"]).fingerprint(),
    }
    assert len(prints) == 5 and json.dumps(sorted(prints))


# ---- datasets
def test_lists_of_class_labels_of_a_dataset(tmp_path):
    """Words with tags, and sets of labels; ids are replaced by the dataset's names, in the dataset's order."""
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-a", "I-a", "B-z"]))
    labels = datasets.List(datasets.ClassLabel(names=["y", "x"]))
    columns = {
        "tokens": [["w1", "w2"], ["w3"]], "ner_tags": [[1, 2], [0]], "text": ["w1", "w2"], "label": [[0, 1], []]
    }  # fmt: skip
    features = {"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags}
    features |= {"text": datasets.Value("string"), "label": labels}
    rows = datasets.Dataset.from_dict(columns, datasets.Features(features))
    datasets.DatasetDict(train=rows.select_columns(["tokens", "ner_tags"])).save_to_disk(tmp_path / "ner")
    datasets.DatasetDict(train=rows.select_columns(["text", "label"])).save_to_disk(tmp_path / "sets")
    read = {}
    for name in ("ner", "sets"):
        spec = DataSpec(name, "dataset", (("train", "train"),), dataset_name=str(tmp_path / name))
        read[name] = read_splits(spec, ["train"])
    ner, sets = read["ner"], read["sets"]
    assert (ner.task.labels, ner.task.label_type) == (("O", "B-a", "I-a", "B-z"), "token")
    assert ner.examples["train"].texts == ([["w1", "w2"], ["w3"]],)
    assert [row.tolist() for row in ner.examples["train"].labels] == [[1, 2], [0]]
    assert (sets.task.labels, sets.task.label_type) == (("y", "x"), "multi")
    assert sets.examples["train"].labels.tolist() == [[1, 1], [0, 0]]
