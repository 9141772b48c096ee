import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, TrainingArguments

from layerdrop.data import Collator, Examples, tokenise
from layerdrop.errors import UserError
from layerdrop.finetune import finetune
from layerdrop.tasks import TASKS
from layerdrop.vocabulary import MODEL_TYPES, UsedVocabulary, may_leave_rows_out
from tests import tiny


def dataset(tokenizer, words: slice, n: int = 16):
    """Sentences of some of the words."""
    texts = [" ".join(tiny.WORDS[words][(3 * i + j) % 7] for j in range(2 + i % 5)) for i in range(n)]
    return tokenise(Examples((texts,), np.arange(n) % 2, [str(i) for i in range(n)]), tokenizer, 64)


def arguments(folder, **changes):
    values = {"learning_rate": 1e-2, "num_train_epochs": 2, "per_device_train_batch_size": 4, "seed": 1}
    values |= {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    made = TrainingArguments(str(folder), **values | changes)
    made.save_model = True
    return made


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_same_logits(model_type):
    model, tokenizer = tiny.model(model_type), tiny.tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    pad = model.get_input_embeddings().padding_idx or 0
    collator = Collator({"input_ids": pad}, left=False)
    data = dataset(tokenizer, slice(20, 30))
    batch = collator([data[i] for i in range(8)])
    before = model(**batch).logits
    whole = model.get_input_embeddings().weight.detach().clone()
    used = UsedVocabulary(model, data)
    assert len(model.get_input_embeddings().weight) == len(used.used) < 20
    assert (used.used[: pad + 1] == np.arange(pad + 1)).all()
    short = collator([used.translate(data)[i] for i in range(8)])
    assert torch.equal(model(**short).logits, before)
    used.restore()
    assert torch.equal(model.get_input_embeddings().weight, whole) and torch.equal(model(**batch).logits, before)


def test_an_optimizer_of_other_rows_is_refused(tmp_path):
    """Of the same run on other training data, say: AdamW would read past the end of its moments."""
    tokenizer = tiny.tokenizer()
    args = arguments(tmp_path, num_train_epochs=1, save_strategy="epoch")
    first = {"task": TASKS["sst2"], "tokenizer": tokenizer, "args": args, "evaluate": {}, "predict": {}}
    finetune(tiny.model("bert"), train=dataset(tokenizer, slice(10, 20)), **first, rolling_checkpoints=False)
    other = Examples((["with more words: " + " ".join(tiny.WORDS)] * 16,), np.arange(16) % 2, ["x"] * 16)
    more = {"train": tokenise(other, tokenizer, 64), "resume_from": str(tmp_path / "checkpoint-4")}
    with pytest.raises(UserError, match="its optimizer has seen other training data"):
        finetune(tiny.model("bert"), **first, **more)


def test_rows_come_back_on_the_device_of_the_model():
    """The Trainer moves the model after its rows were chosen; the meta device stands for a GPU."""
    model, tokenizer = tiny.model("bert"), tiny.tokenizer()
    n = len(model.get_input_embeddings().weight)
    used = UsedVocabulary(model, dataset(tokenizer, slice(20, 30)))
    model.to("meta")
    with used.whole():
        assert model.get_input_embeddings().weight.shape[0] == n
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.get_input_embeddings().weight.shape[0] == len(used.used)
    used.restore()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_training_is_the_same_and_so_is_what_is_saved(tmp_path, monkeypatch):
    """Against training with all rows; the rows that never occur stay bit for bit."""
    tokenizer = tiny.tokenizer()
    train, dev = dataset(tokenizer, slice(10, 20)), dataset(tokenizer, slice(30, 40))
    first = tiny.model("bert")
    for module in first.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found = {}
    for name in ("some", "all"):
        if name == "all":
            monkeypatch.setattr("layerdrop.finetune.may_leave_rows_out", lambda *_: False)
        model = copy.deepcopy(first)
        outcome = finetune(
            model, TASKS["sst2"], tokenizer, arguments(tmp_path / name), train=train, evaluate={"validation": dev},
            predict={},
        )  # fmt: skip
        found[name] = outcome, {key: value.detach() for key, value in model.state_dict().items()}
        saved = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.equal(saved[key], value) for key, value in found[name][1].items() if key in saved)
        assert AutoModelForSequenceClassification.from_pretrained(tmp_path / name).config.vocab_size == 65
    (some, weights), (everything, all_weights) = found["some"], found["all"]
    assert some.metrics["loss"] == pytest.approx(everything.metrics["loss"], abs=1e-4)
    assert all(torch.allclose(weights[key], all_weights[key], atol=1e-4) for key in weights)
    key = "bert.embeddings.word_embeddings.weight"
    never = sorted(set(range(65)) - set(np.unique(train.columns["input_ids"])))
    assert torch.equal(weights[key][never], first.state_dict()[key][never])
    assert not torch.equal(weights[key], first.state_dict()[key])


@pytest.mark.parametrize(
    ("changes", "may"),
    [({}, True), ({"optim": "sgd"}, True), ({"weight_decay": 0.01}, False), ({"optim": "adafactor"}, False)],
)
def test_only_where_it_changes_nothing(tmp_path, changes, may):
    assert may_leave_rows_out(tiny.model("bert"), arguments(tmp_path, **changes)) == may


def test_not_where_ids_mean_more_or_the_embedding_is_frozen(tmp_path):
    assert not may_leave_rows_out(tiny.model("xlnet"), arguments(tmp_path))
    model = tiny.model("bert")
    model.get_input_embeddings().requires_grad_(False)
    assert not may_leave_rows_out(model, arguments(tmp_path))
