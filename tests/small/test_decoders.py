"""Decoders with a classification head: the last real token, a padding token, a cache of keys and values."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed

from layerdrop.checkpoints import Checkpoint
from layerdrop.data.batches import Collator
from layerdrop.data.examples import Examples
from layerdrop.data.tokens import tokenize
from layerdrop.errors import UserError
from layerdrop.finetune.evaluate import logits_of
from layerdrop.loading import load_classifier
from layerdrop.surgery import drop_layers
from tests import tiny

DECODERS = ["llama", "mistral", "qwen2", "qwen3", "gpt2"]


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_cut_decoder_generates(model_type):
    """With the cache it writes what it writes without; as a model that was loaded from its folder does."""
    set_seed(1)
    model = drop_layers(AutoModelForCausalLM.from_config(tiny.config(model_type)).eval(), [1, 4])
    ids = torch.tensor([[5, 9, 12, 7]])
    given = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with_cache, without = (model.generate(ids, use_cache=cache, **given) for cache in (True, False))
    assert with_cache.shape == (1, 12) and torch.equal(with_cache, without)
    assert len(model.generate(ids, return_dict_in_generate=True, **given).past_key_values) == 4


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_whole_run(run, tmp_path, model_type):
    folder = tiny.save(tmp_path / model_type, model_type)
    words = "--task_name rte --num_train_epochs 1 --learning_rate 1e-3 --drop_strategy contribution --drop_k 2"
    code, record, _, err = run(f"{words} --freeze_embeddings", model=folder)
    assert code == 0 and record["status"] == "success" and len(record["kept"]) == 4, err

    # in plain transformers each text alone gives what it gives in a padded batch
    model, words = (
        AutoModelForSequenceClassification.from_pretrained("out").eval(),
        AutoTokenizer.from_pretrained("out"),
    )
    texts = [("w1 w2 w3", "w4"), ("w5", "w6 w7 w8 w9 w10")]
    with torch.no_grad():
        batch = model(**words(*map(list, zip(*texts, strict=True)), padding=True, return_tensors="pt")).logits
        alone = torch.cat([model(**words(*pair, return_tensors="pt")).logits for pair in texts])
    assert torch.allclose(batch, alone, atol=1e-5)


def test_the_head_alone(run, tmp_path):
    folder = tiny.save(tmp_path / "llama", "llama")
    words = "--task_name rte --max_steps 2 --learning_rate 1e-2 --freeze_embeddings --freeze_layers 0,1,2,3,4,5"
    code, record, _, err = run(words, model=folder)
    assert code == 0, err
    before, after = (AutoModelForSequenceClassification.from_pretrained(name).state_dict() for name in (folder, "out"))
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert "score.weight" in moved and not any(".layers." in name or "embed" in name for name in moved)


def test_a_padding_token_is_found(run, tmp_path):
    """What ends a text fills it up where there is nothing else; the saved model knows it."""
    folder = Path(tiny.save(tmp_path / "llama", "llama", pad_token_id=None))
    words = json.loads((folder / "tokenizer_config.json").read_text())
    words.pop("pad_token")
    words["eos_token"] = "[SEP]"
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    if (folder / "special_tokens_map.json").exists():
        (folder / "special_tokens_map.json").unlink()
    code, record, _, err = run("--task_name rte --max_steps 2 --drop_strategy top --drop_k 2", model=str(folder))
    assert code == 0, err
    assert json.loads(Path("out/config.json").read_text())["pad_token_id"] == 3
    words.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    with pytest.raises(UserError, match="has no padding token. Give a tokenizer that has one"):
        Checkpoint.open(str(folder)).tokenizer  # noqa: B018


@pytest.mark.parametrize("model_type", ["funnel", "t5", "xlm", "squeezebert"])
def test_what_is_not_one_list_of_layers_is_refused_by_name(run, tmp_path, model_type):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.json").write_text(json.dumps({"model_type": model_type}))
    code, _, _, err = run("--task_name rte", model=str(tmp_path / "x"))
    said = f"--model_name_or_path {tmp_path / 'x'}: model type '{model_type}' cannot be reduced: it"
    assert code == 2 and said in err and len(err.splitlines()) == 1, err


def test_a_refused_model_type_is_named_with_the_flag_of_the_command(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(UserError, match=f"^--teacher {tmp_path}: model type 't5' cannot be reduced"):
        Checkpoint.open(str(tmp_path), flag="--teacher")


def test_twenty_four_layers(run, tmp_path):
    """Nothing assumes 12: a published order aside, K goes up to 23."""
    folder = tiny.save(tmp_path / "large", "xlm-roberta", num_hidden_layers=24)
    code, record, _, err = run("--task_name rte --max_steps 1 --drop_strategy symmetric --drop_k 18", model=folder)
    assert code == 0 and record["kept"] == [0, 1, 2, 21, 22, 23], err


# ---- padding ---------------------------------------------------------------------------------------------------------
def settings(folder: str, file: str, **changes) -> None:
    """Change a checkpoint's settings."""
    path = Path(folder, file)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def batched_and_alone(checkpoint: Checkpoint):
    """Logits of two texts in one batch, and one by one."""
    model, words = load_classifier(checkpoint)[0], checkpoint.tokenizer
    examples = Examples((["w1 w2 w3", "w5"], ["w4", "w6 w7 w8 w9 w10"]), None, ["0", "1"])
    data, collate = tokenize(examples, words, 32), Collator.of(words)
    together = logits_of(model, data, collate, 2, "fp32")
    return together, logits_of(model, data, collate, 1, "fp32"), model


@pytest.mark.parametrize("model_type", [*DECODERS, "xlnet"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_tokenizers_padding_is_the_models(tmp_path, model_type, side):
    """Whichever id config.json says, and on whichever side the tokenizer pads: a score does not depend on the batch."""
    folder = tiny.save(tmp_path / model_type, model_type)
    settings(folder, "config.json", pad_token_id=1)
    settings(folder, "tokenizer_config.json", padding_side=side)
    checkpoint = Checkpoint.open(folder)
    together, alone, model = batched_and_alone(checkpoint)
    assert together == pytest.approx(alone, abs=1e-5)
    assert model.config.pad_token_id == 0
    said = {"gpt2": ["left"], "xlnet": ["right"]}.get(model_type, [])
    assert "the tokenizer pads with id 0, config.json says 1: the tokenizer's id is used" in checkpoint.notes
    assert len(checkpoint.notes) == 1 + (side in said)


def test_the_configurations_padding_is_the_tokenizers_where_that_has_none(tmp_path):
    folder = tiny.save(tmp_path / "llama", "llama", pad_token_id=4)
    words = json.loads(Path(folder, "tokenizer_config.json").read_text())
    words.pop("pad_token")
    Path(folder, "tokenizer_config.json").write_text(json.dumps(words | {"eos_token": "[SEP]"}))
    checkpoint = Checkpoint.open(folder)
    together, alone, model = batched_and_alone(checkpoint)
    assert together == pytest.approx(alone, abs=1e-5) and model.config.pad_token_id == 4
    assert checkpoint.tokenizer.pad_token == "[MASK]" and checkpoint.notes == []


def test_another_padding_is_noted_and_saved(run, tmp_path):
    folder = tiny.save(tmp_path / "qwen2", "qwen2")
    settings(folder, "config.json", pad_token_id=1)
    code, record, _, err = run("--task_name rte --max_steps 1 --drop_strategy top --drop_k 2", model=folder)
    assert code == 0 and any("the tokenizer pads with id 0" in note for note in record["notes"]), err
    assert json.loads(Path("out/config.json").read_text())["pad_token_id"] == 0
    assert run("--task_name rte --do_eval", model="out", output="again")[1]["metrics"] == record["metrics"]


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
def test_an_encoders_first_token_is_in_the_first_column(tmp_path, model_type):
    """Whichever side its tokenizer pads."""
    folder = tiny.save(tmp_path / model_type, model_type)
    expected = batched_and_alone(Checkpoint.open(folder))[0]
    settings(folder, "tokenizer_config.json", padding_side="left")
    checkpoint = Checkpoint.open(folder)
    assert batched_and_alone(checkpoint)[0] == pytest.approx(expected, abs=1e-6)
    assert checkpoint.notes == [
        "the tokenizer pads on the left, but this model needs the right: texts are padded on the right"
    ]


@pytest.mark.parametrize(("model_type", "pad"), [("bert", 4), ("roberta", 4), ("distilbert", 1)])
def test_an_encoders_padding_row_is_trained_with(run, tmp_path, model_type, pad):
    """The vocabulary's used rows hold the tokenizer's padding, whatever config.json says; and the saved model counts
    positions as the trained one does."""
    folder = tiny.save(tmp_path / model_type, model_type)
    settings(folder, "tokenizer_config.json", pad_token=tiny.VOCABULARY[pad])
    code, record, _, err = run("--task_name rte --max_steps 2", model=folder)
    assert code == 0 and record["status"] == "success", err
    assert run("--task_name rte --do_eval", model="out", output="again")[1]["metrics"] == record["metrics"]


# ---- layers that compute by their position ---------------------------------------------------------------------------
def test_layers_that_compute_by_their_position_do_not_move(tmp_path):
    """GPT-2 can divide attention by the layer's number: reloaded, a moved layer would divide by another one."""
    folder = tiny.save(tmp_path / "gpt2", "gpt2", scale_attn_by_inverse_layer_idx=True)
    for cut in (
        lambda: load_classifier(folder, [1]),
        lambda: drop_layers(tiny.model("gpt2", scale_attn_by_inverse_layer_idx=True), [0]),
    ):
        with pytest.raises(
            UserError, match=r"cannot move .*\(scale_attn_by_inverse_layer_idx\). Drop only the last layers"
        ):
            cut()
    model = drop_layers(AutoModelForSequenceClassification.from_pretrained(folder).eval(), [5])
    drop_layers(model, [4]).save_pretrained(tmp_path / "cut")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "cut").eval()
    assert torch.equal(model(**tiny.batch()).logits, again(**tiny.batch()).logits)
    assert torch.equal(model(**tiny.batch()).logits, load_classifier(folder, [4, 5])[0](**tiny.batch()).logits)
