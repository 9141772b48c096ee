"""Checkpoints that are damaged, incomplete or wrong: one line, or a right result."""

import copy
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.errors import UserError
from layerdrop.loading import load_classifier
from tests import tiny

WEIGHTS = "model.safetensors"
INDEX = WEIGHTS + ".index.json"


@pytest.fixture
def folder(bert, tmp_path) -> Path:
    """A copy of the tiny BERT to damage."""
    return Path(shutil.copytree(bert, tmp_path / "bert"))


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(folder, message: str) -> None:
    """Whether opening and loading ends in a UserError of one line."""
    with pytest.raises(UserError, match=message) as error:
        load_classifier(str(folder), [1])
    assert "\n" not in str(error.value)


# ---- configuration
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 1_000_000_000}, "1000000000 layers .* Allowed: 1 to 1000"),
        ({"num_hidden_layers": 0}, "0 layers"),
        ({"num_hidden_layers": 4}, "its weights have 6 layers, but its config.json has 4"),
        ({"num_hidden_layers": 8}, "its weights have 6 layers, but its config.json has 8"),
        ({"num_labels": 1_000_000_000}, "num_labels"),
        ({"num_labels": "x"}, "num_labels"),
        ({"architectures": [7]}, "architectures"),
        ({"id2label": {"1": "a", "2": "b"}}, "numbers its classes wrongly"),
        ({"id2label": {"0": "a", "1": "a"}}, "names two classes 'a'"),
        ({"chunk_size_feed_forward": 3}, "chunks of 3 tokens .* Set it to 0"),
        ({"vocab_size": 2.5}, "config.json cannot be used"),
        ({"hidden_act": "nonsense"}, "config.json cannot be used"),
        ({"num_attention_heads": 3}, "config.json cannot be used"),
        ({"num_attention_heads": 0}, "config.json cannot be used"),
        ({"hidden_size": 8}, "do not fit config.json"),
        ({"quantization_config": {}}, "is quantized"),
        ({"layer_dropping": 7}, "its list of kept layers .* does not match"),
        ({"layer_dropping": {"n_layers": 12, "kept": [0, 1]}}, "its list of kept layers .* does not match"),
        ({"layer_dropping": {"n_layers": 6, "kept": [0, 1, 2, 3, 4, 6]}}, "its list of kept layers .* does not match"),
        ({"layer_dropping": {"n_layers": 12, "kept": [0, 1, 2, 3, 5, 4]}}, "its list of kept layers .* does not match"),
    ],
)
def test_wrong_configurations(folder, values, message):
    change(folder / "config.json", **values)
    refused(folder, message)


def test_right_values_are_taken(folder):
    kept = {"n_layers": 12, "kept": [0, 2, 4, 6, 8, 10]}
    change(folder / "config.json", layer_dropping=kept, chunk_size_feed_forward=1)
    assert Checkpoint.open(str(folder)).original_ids == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("values", [{"return_dict": False}, {"return_dict": None}, {"output_attentions": True}])
def test_what_a_model_returns_does_not_depend_on_its_configuration(folder, values, tmp_path):
    """`return_dict: false` gave a tuple; a model with `output_attentions: true` could not be saved."""
    change(folder / "config.json", output_hidden_states=True, **values)
    model, _ = load_classifier(str(folder), [1])
    assert list(model(**tiny.batch())) == ["logits"]
    model.save_pretrained(tmp_path / "saved")


# ---- the trained head
def head_of(folder, **options):
    """The class names of the model with its trained head."""
    return load_classifier(str(folder), replace_head=False, **options)[0].config.id2label


THREE = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"problem_type": "regression"}, r"says regression \(problem_type\) with 2 outputs"),
        (THREE, r"its head has 2 outputs \(classifier.bias\), config.json has 3 \(id2label, num_labels\)"),
        ({"num_labels": 3}, "its head has 2 outputs .* config.json has 3"),
        (
            {"problem_type": "regression", "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
            "its head has 2 outputs .* config.json has 1",
        ),
        (
            {"id2label": {"0": "neg", "1": "pos"}, "label2id": {"pos": 0, "neg": 1}},
            "contradicts itself: class 'neg' is 0 in id2label, 1 in label2id",
        ),
    ],
)
def test_a_head_that_contradicts_config_json(folder, values, message):
    """It matters only if the trained head is used."""
    change(folder / "config.json", **values)
    with pytest.raises(UserError, match=f"^--model_name_or_path {folder}: .*{message}"):
        head_of(folder)
    assert load_classifier(str(folder), labels=["x", "y", "z"])[0].config.num_labels == 3


def test_other_numbers_of_classes_than_the_heads_are_named(folder):
    with pytest.raises(UserError, match="its trained head gives 2 classes, the task has 3 classes"):
        head_of(folder, labels=["a", "b", "c"])


@pytest.mark.parametrize(
    ("label2id", "id2label", "names"),
    [
        ({"pos": 1, "neg": 0}, None, ["neg", "pos"]),
        ({"pos": 0, "neg": 1}, {"0": "LABEL_0", "1": "LABEL_1"}, ["pos", "neg"]),
        ({"LABEL_0": 0, "LABEL_1": 1}, {"0": "neg", "1": "pos"}, ["neg", "pos"]),
        ({"pos": 1, "neg": 0, "bad": 0}, None, ["LABEL_0", "LABEL_1"]),
        ([1], None, ["LABEL_0", "LABEL_1"]),
        ([1], {"0": "neg", "1": "pos"}, ["neg", "pos"]),
        ({"pos": "1", "neg": "0"}, {"0": "neg", "1": "pos"}, ["neg", "pos"]),
        ({"pos": 2, "neg": 1}, None, ["LABEL_0", "LABEL_1"]),
        ({"a": 0, "b": 1, "c": 2}, {"0": "LABEL_0", "1": "LABEL_1"}, ["LABEL_0", "LABEL_1"]),
    ],
)
def test_classes_that_only_label2id_names(folder, label2id, id2label, names):
    """Names in any order; synonyms, gaps and another number of classes are left."""
    change(folder / "config.json", label2id=label2id, id2label=id2label)
    assert Checkpoint.open(str(folder)).classes == names
    assert list(head_of(folder).values()) == names


# ---- files
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS])
def test_links_without_a_target(folder, name):
    """A folder of the hub's cache that was copied without its blobs."""
    (folder / name).unlink()
    (folder / name).symlink_to("../../blobs/0123")
    with pytest.raises(UserError, match=f"{folder / name} is a link to a file that does not exist"):
        checkpoint = Checkpoint.open(str(folder))
        checkpoint.tokenizer, checkpoint.weights()


def test_a_link_beside_what_is_read_does_not_matter(folder):
    (folder / "pytorch_model.bin").symlink_to("../../blobs/0123")
    (folder / "vocab.txt").symlink_to("../../blobs/0123")
    assert Checkpoint.open(str(folder)).weights() and Checkpoint.open(str(folder)).tokenizer


@pytest.mark.parametrize(
    "name", [INDEX, "pytorch_model.bin.index.json", "special_tokens_map.json", "added_tokens.json"]
)
def test_a_link_to_what_another_file_replaces(folder, name):
    (folder / name).symlink_to("../../blobs/0123")
    checkpoint = Checkpoint.open(str(folder))
    assert checkpoint.weights() and checkpoint.tokenizer("a")["input_ids"]


def test_a_vocabulary_beside_a_link_without_a_target(folder):
    words = Checkpoint.open(str(folder)).tokenizer
    vocabulary = words.get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("../../blobs/0123")
    with pytest.raises(UserError, match="tokenizer.json is a link to a file"):  # its class reads no vocab.txt
        _ = Checkpoint.open(str(folder)).tokenizer
    change(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    assert Checkpoint.open(str(folder)).tokenizer.get_vocab() == vocabulary


def test_links_that_no_other_file_replaces(folder):
    (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")
    (folder / INDEX).symlink_to("../../blobs/0123")
    with pytest.raises(UserError, match=f"{INDEX} is a link to a file that does not exist"):
        Checkpoint.open(str(folder))


def test_the_flag_of_a_tokenizer_that_cannot_be_read(folder, bert):
    (folder / "tokenizer.json").unlink()
    for model, flag in (
        (ModelSpec(str(folder)), "MODEL"),
        (ModelSpec(bert, tokenizer=str(folder)), "--tokenizer_name"),
    ):
        with pytest.raises(UserError, match=f"^{flag} {folder}: no usable tokenizer in this folder"):
            _ = Checkpoint.open(model, flag="MODEL").tokenizer
    (folder / "tokenizer.json").symlink_to("../../blobs/0123")
    with pytest.raises(UserError, match=f"^MODEL: {folder}/tokenizer.json is a link"):
        _ = Checkpoint.open(str(folder), flag="MODEL").tokenizer


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_file_instead_of_a_folder(folder, name):
    message = f"{folder / name}: is a file. Give the folder of the checkpoint"
    with pytest.raises(UserError, match=message):
        Checkpoint.open(str(folder / name))
    with pytest.raises(UserError, match=message):
        print(Checkpoint.open(ModelSpec(str(folder), tokenizer=str(folder / name))).tokenizer)


@pytest.mark.parametrize(
    ("tokenizer_class", "file", "content", "message"),
    [
        (
            "NoSuchTokenizer",
            "vocab.txt",
            "\n".join(tiny.VOCABULARY),
            "cannot be read from vocab.txt: a file is damaged",
        ),
        ("AlbertTokenizer", "spiece.model", "not a model" * 9, "cannot be read from spiece.model: a file is damaged"),
        ("NoSuchTokenizer", "other.txt", "", "no usable tokenizer in this folder .none of tokenizer.json, vocab*"),
    ],
)
def test_tokenizers_that_the_library_cannot_read(folder, tokenizer_class, file, content, message):
    (folder / "tokenizer.json").unlink()
    (folder / file).write_text(content)
    change(folder / "tokenizer_config.json", tokenizer_class=tokenizer_class)
    with pytest.raises(UserError, match=message) as error:
        print(Checkpoint.open(str(folder)).tokenizer)
    assert "backend" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("padding", [63, 3000])
def test_a_padding_id_beyond_the_positions(tmp_path, padding):
    folder = Path(tiny.save(tmp_path / "roberta", "roberta"))
    change(folder / "config.json", pad_token_id=padding)
    refused(folder, f"config.json has pad_token_id {padding}.* up to 64 .max_position_embeddings")
    change(folder / "config.json", pad_token_id=62)
    assert Checkpoint.open(str(folder)).max_length() == 1


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "[]", "null", "[" * 100_000, "{", "pipe", "\ufeff{}"])
def test_files_that_are_no_objects(folder, name, content):
    path = folder / name
    path.unlink()
    os.mkfifo(path) if content == "pipe" else path.write_text(content)
    with pytest.raises(UserError) as error:
        print(Checkpoint.open(str(folder)).tokenizer)
    assert "\n" not in str(error.value)


WRONG = (None, True, -3, 0, 2.5, 1e30, 10**12, "x", "", [], ["x"], [1, 2], {}, {"x": {}}, {"0": "a"})
CHANGED = ("config.json", "tokenizer.json", "tokenizer_config.json")


def places(value, path: tuple = ()):
    items = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@settings(derandomize=True, deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_value_of_another_type_is_one_line_or_taken(bert, tmp_path_factory, data):
    """Any value of the configuration and the tokenizer, replaced or deleted."""
    name = data.draw(st.sampled_from(CHANGED))
    content = json.loads((Path(bert) / name).read_text())
    path, wrong = data.draw(st.sampled_from(list(places(content)))), data.draw(st.sampled_from(WRONG))
    owner = changed = copy.deepcopy(content)
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = wrong
    folder = Path(shutil.copytree(bert, tmp_path_factory.mktemp("fuzz") / "bert"))
    (folder / name).write_text(json.dumps(changed))
    try:
        model, _ = load_classifier(str(folder), [4, 5], labels=["a", "b"])
        tokenizer = Checkpoint.open(str(folder)).tokenizer
        assert model.config.num_hidden_layers == 4 and "input_ids" in tokenizer("w1 w2", truncation=True, max_length=8)
    except UserError as error:
        assert "\n" not in str(error)


# ---- weights
def test_damaged_weights(folder):
    content = (folder / WEIGHTS).read_bytes()
    for damaged in (
        b"",
        content[:100],
        content[:-100],
        b"\xff" * 8 + content[8:],
        content[:20] + b"\xff" + content[21:],
    ):
        (folder / WEIGHTS).write_bytes(damaged)
        refused(folder, "cannot be read .* Get the checkpoint again")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "does not map weights to files"),
        ("[]", "does not map weights to files"),
        ("{}", "does not map weights to files"),
        ('{"weight_map": [1]}', "does not map weights to files"),
        ('{"weight_map": {"a": 1}}', "does not map weights to files"),
        ('{"weight_map": {"a": "b", "c": 1}}', "does not map weights to files"),
        ("[" * 100_000, "does not map weights to files"),
        ('{"weight_map": {"a": "nosuch.safetensors"}}', "no usable weights in this folder"),
    ],
)
def test_damaged_indexes(folder, index, message):
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(index)
    refused(folder, message)


@pytest.mark.parametrize("content", [[1, 2], 7, {"a": 1}, {1: torch.zeros(2)}, {"state_dict": {"a": torch.zeros(2)}}])
def test_a_pytorch_file_without_named_weights(folder, content):
    (folder / WEIGHTS).unlink()
    torch.save(content, folder / "pytorch_model.bin")
    refused(folder, "is not a mapping of names to weights")


def test_sparse_weights_and_damaged_pytorch_files(folder):
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save({name: w.to_sparse() for name, w in weights.items()}, folder / "pytorch_model.bin")
    refused(folder, "is not a mapping of names to weights")
    torch.save(weights, folder / "pytorch_model.bin")
    content = bytearray((folder / "pytorch_model.bin").read_bytes())
    for i in range(60, 600, 20):
        content[i] ^= 0xFF
    (folder / "pytorch_model.bin").write_bytes(content)
    refused(folder, "cannot be read")


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_is_never_executed(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile()))
    refused(folder, "cannot be read safely")
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", ["layer.3.output.dense.weight", "layer.3.output.dense.bias", "LayerNorm.weight"])
@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.bool])
def test_a_single_quantized_weight(folder, name, kind):
    weights = load_file(folder / WEIGHTS)
    save_file({key: w.to(kind) if name in key else w for key, w in weights.items()}, folder / WEIGHTS)
    refused(folder, "is quantized")


@pytest.mark.parametrize(
    ("model_type", "prefix"),
    [("bert", "module."), ("bert", "model."), ("modernbert", "_orig_mod.")],
)
@pytest.mark.parametrize("dropped", [[], [1]])
def test_weights_of_a_wrapped_model(tmp_path, model_type, prefix, dropped):
    """Saved by DDP, torch.compile or Lightning."""
    folder = Path(tiny.save(tmp_path / "wrapped", model_type))
    save_file({prefix + name: w for name, w in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    with pytest.raises(
        UserError, match=rf"its weights have the prefix '{prefix}' of a wrapper \({prefix}(bert|model)\."
    ):
        load_classifier(str(folder), dropped)


def test_missing_weights_are_not_a_prefix(folder):
    """The name of a missing weight can be the end of another name."""
    weights = load_file(folder / WEIGHTS)
    del weights["bert.embeddings.LayerNorm.weight"], weights["bert.encoder.layer.2.output.dense.weight"]
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(UserError, match="has no .* weights of the encoder are missing"):
        load_classifier(str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder, value):
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if "layer.2.output.dense.weight" in name)
    weights[name][0, 0] = value
    save_file(weights, folder / WEIGHTS)
    refused(folder, "some weights are not finite")


def test_every_depth_is_compared_with_the_weights(tmp_path):
    """For a family with another name of its layers, and not for one layer that all depths share."""
    folder = Path(tiny.save(tmp_path / "gpt2", "gpt2"))
    change(folder / "config.json", n_layer=5)
    refused(folder, "its weights have 6 layers, but its config.json has 5")
    folder = Path(tiny.save(tmp_path / "albert", "albert"))
    change(folder / "config.json", num_hidden_layers=3)
    assert load_classifier(str(folder), [2])[0].config.num_hidden_layers == 2
