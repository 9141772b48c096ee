"""What is read from a checkpoint, how, and what is refused."""

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    set_seed,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from layerdrop import architectures
from layerdrop.architectures import FAMILIES
from layerdrop.checkpoints import Checkpoint
from layerdrop.errors import UserError
from layerdrop.loading import load_classifier, load_encoder, random_classifier
from layerdrop.surgery import drop_layers
from tests import tiny


def reduced_model(folder, dropped):
    return load_classifier(folder, dropped)[0]


@pytest.mark.parametrize("kind", ["shards", "bin", "bin shards", "fp16", "fp16 bin", "base model", "old bin"])
def test_every_kind_of_checkpoint(kind, tmp_path):
    """Only the weights' packaging differs; fp16 weights are read as fp32."""
    full = tiny.model("bert")
    if "fp16" in kind:
        full.half()
    expected = drop_layers(copy.deepcopy(full).float(), [0, 3])
    saved = full.base_model if kind == "base model" else full
    if "bin" not in kind:
        saved.save_pretrained(tmp_path, max_shard_size="20KB" if "shards" in kind else "1GB")
    else:
        saved.config.save_pretrained(tmp_path)
        state = saved.state_dict()
        if "shards" in kind:
            names = list(state)
            for number, part in enumerate((names[::2], names[1::2])):
                torch.save({name: state[name] for name in part}, tmp_path / f"part{number}.bin")
            index = {name: f"part{number % 2}.bin" for number, name in enumerate(names)}
            (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
        else:
            torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=kind != "old bin")
    assert not list(tmp_path.glob("model.safetensors")) or "shards" not in kind
    loaded = reduced_model(str(tmp_path), [0, 3])
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    states = [model.base_model(**tiny.batch())[0] for model in (loaded, expected)]
    assert torch.equal(*states)


def test_bin_with_code_is_refused(tmp_path):
    """A .bin that would run code on loading does not get to."""
    tiny.config("bert").save_pretrained(tmp_path)

    class Harm:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"x": Harm()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read safely"):
        reduced_model(str(tmp_path), [])


def test_missing_layer_weights_are_an_error(tmp_path):
    full = tiny.model("bert")
    state = {name: value for name, value in full.state_dict().items() if ".layer.4." not in name}
    full.config.save_pretrained(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has no .*encoder\.layer\.4.*Give a complete checkpoint"):
        reduced_model(str(tmp_path), [])
    assert reduced_model(str(tmp_path), [4]).config.num_hidden_layers == 5


def test_head_of_another_size_is_replaced(tmp_path):
    tiny.model("bert", num_labels=3).save_pretrained(tmp_path)
    model, new = load_classifier(str(tmp_path), labels=["no", "yes"])
    assert sorted(new) == ["classifier.bias", "classifier.weight"] and model.classifier.out_features == 2


def test_only_the_kept_layers_are_read(bert, monkeypatch):
    """So that peak memory follows the kept size."""
    read = []

    class Spy:
        def __init__(self, name, tensor):
            self.name, self.tensor = name, tensor

        def __getitem__(self, part):
            read.append(self.name)
            return self.tensor[part]

        def __getattr__(self, attribute):
            return getattr(self.tensor, attribute)

    weights = Checkpoint.open(bert).weights()
    monkeypatch.setattr(Checkpoint, "weights", lambda _: {name: Spy(name, value) for name, value in weights.items()})
    reduced_model(bert, [1, 2, 5])
    layers = {int(name.split(".")[3]) for name in read if ".layer." in name}
    assert layers == {0, 3, 4} and len(read) == len(set(read))


def test_weights_of_another_size(bert, tmp_path):
    tiny.config("bert", hidden_size=32).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((Path(bert) / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="the weights do not fit config.json"):
        reduced_model(str(tmp_path), [])


def test_a_trained_head_that_does_not_fit_is_refused(tmp_path):
    tiny.model("bert", num_labels=1).save_pretrained(tmp_path / "regression")
    tiny.model("bert", num_labels=3).save_pretrained(tmp_path / "classes")
    with pytest.raises(UserError, match="trained head gives one value, the task has 2 classes. Evaluate"):
        load_classifier(str(tmp_path / "regression"), labels=["no", "yes"], replace_head=False)
    with pytest.raises(UserError, match="gives 3 classes, the task has one value"):
        load_classifier(str(tmp_path / "classes"), labels=[], replace_head=False)
    model, new = load_classifier(str(tmp_path / "classes"), labels=["a", "b", "c"], replace_head=False)
    assert not new and model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_encoder_weights_in_memory_are_taken_from_there(tmp_path):
    """The same model, and of the checkpoint's layers none is read again."""
    folder = tiny.save(tmp_path / "bert")
    encoder = load_encoder(Checkpoint.open(folder))
    expected = reduced_model(folder, [1, 4]).state_dict()
    with torch.no_grad():
        next(encoder.encoder.layer[5].parameters()).zero_()
    model, new = load_classifier(folder, [1, 4], weights=encoder.state_dict())
    assert not new
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, expected[name])}
    assert len(changed) == 1 and next(iter(changed)).startswith("bert.encoder.layer.3.")


def test_random_weights_follow_the_seed(bert):
    checkpoint = Checkpoint.open(bert)
    models = []
    for seed in (1, 1, 2):
        set_seed(seed)
        models.append(random_classifier(checkpoint, [2], labels=["a", "b", "c"]))
    assert models[0].config.num_labels == 3 and models[0].config.num_hidden_layers == 5 and not models[0].training

    def drawn(model):
        return torch.cat([model.classifier.weight.flatten(), matrix(model).flatten()])

    def matrix(model):
        return model.bert.encoder.layer[0].output.dense.weight

    assert torch.equal(drawn(models[0]), drawn(models[1])) and not torch.equal(drawn(models[0]), drawn(models[2]))
    assert not torch.equal(matrix(reduced_model(bert, [2])), matrix(models[0]))


def test_new_weights_follow_the_seed(tmp_path):
    tiny.model("bert").base_model.save_pretrained(tmp_path)
    heads = []
    for seed in (1, 1, 2):
        set_seed(seed)
        heads.append(reduced_model(str(tmp_path), []).classifier.weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


# ---- every kept layer's every weight is that of the checkpoint's layer -----------------------------------------------
@pytest.fixture
def nomic(tmp_path, monkeypatch):
    """A checkpoint whose files name its layers otherwise (encoder.layers) than its modules (layers), in the row of a
    family that knows the modules alone."""
    rows = [
        replace(row, model_types=(*row.model_types, "nomic_bert")) if row.name == "EuroBERT" else row
        for row in FAMILIES
    ]
    monkeypatch.setattr(architectures, "FAMILIES", tuple(rows))
    sizes = {name: size for name, size in tiny.SIZES.items() if name != "num_hidden_layers"}
    config = CONFIG_MAPPING["nomic_bert"](**sizes, num_hidden_layers=4, head_dim=8)
    set_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path / "nomic")
    return model, str(tmp_path / "nomic")


def test_layers_under_other_names_in_the_file_are_refused(nomic):
    """The library finds them, and would number them anew."""
    model, folder = nomic
    whole = load_classifier(folder)[0].state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())
    with pytest.raises(
        UserError, match=r"nomic: its weights of layer 1 \(layers\.0\.\S+\) have other names"
    ) as refused:
        load_classifier(folder, [0])
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="have other names"):
        load_classifier(folder, [3])


def test_the_old_spelling_of_norms(tmp_path):
    """Gamma and beta: the library renames them within their layer."""
    full = tiny.model("bert")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    state = {re.sub(r"LayerNorm\.\w+$", lambda m: old[m[0]], name): value for name, value in full.state_dict().items()}
    full.config.save_pretrained(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    loaded = reduced_model(str(tmp_path), [1]).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in drop_layers(full, [1]).state_dict().items())


@pytest.mark.parametrize("model_type", sorted(tiny.CONFIGS))
@pytest.mark.parametrize("base", [False, True])
def test_every_family_loads_the_layers_that_it_keeps(tmp_path, model_type, base):
    full = tiny.model(model_type)
    (full.base_model if base else full).save_pretrained(tmp_path)
    loaded = load_classifier(str(tmp_path), [1, 4])[0].base_model.state_dict()
    expected = drop_layers(full, [1, 4]).base_model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items() if "pooler" not in name)


# ---- heads of tokens -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model_type", tiny.CONFIGS)
def test_a_head_of_tokens_on_every_family(tmp_path, model_type):
    """The reduced model is the library's own token classifier. A family without one is refused in one line."""
    folder, head = tiny.save(tmp_path / "base", model_type), {"auto_class": "AutoModelForTokenClassification"}
    if type(tiny.config(model_type)) not in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        with pytest.raises(UserError, match=f"the library has no TokenClassification head for {model_type} models"):
            load_classifier(folder, labels=["a", "b", "c"], **head)
        return
    dropped = [] if model_type == "albert" else [4, 5]
    model, new = load_classifier(folder, dropped, labels=["a", "b", "c"], **head)
    model.save_pretrained(tmp_path / "reduced")
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path / "reduced").eval()
    batch = tiny.batch(left=model_type == "xlnet")
    with torch.no_grad():
        logits = model(**batch).logits
        assert logits.shape == (4, 9, 3) and torch.equal(logits, plain(**batch).logits) and new
    again, new = load_classifier(str(tmp_path / "reduced"), replace_head=False)
    assert type(again) is type(plain) and not new and again.config.num_hidden_layers == (6 if not dropped else 4)
    with pytest.raises(UserError, match="gives token classification, the task has single label classification"):
        load_classifier(
            str(tmp_path / "reduced"),
            labels=["a", "b", "c"],
            replace_head=False,
            auto_class="AutoModelForSequenceClassification",
        )
