"""Decoders with a classification head: the last real token, a padding token, a cache of keys and values."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed

from layerdrop.checkpoints import Checkpoint
from layerdrop.errors import UserError
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
    with pytest.raises(UserError, match="has no padding token. Give a tokenizer with one"):
        Checkpoint.open(str(folder)).tokenizer  # noqa: B018


@pytest.mark.parametrize("model_type", ["funnel", "t5", "xlm", "squeezebert"])
def test_what_is_not_one_list_of_layers_is_refused_by_name(run, tmp_path, model_type):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.json").write_text(json.dumps({"model_type": model_type}))
    code, _, _, err = run("--task_name rte", model=str(tmp_path / "x"))
    assert code == 2 and f"model type '{model_type}' cannot be cut: it" in err and len(err.splitlines()) == 1, err


def test_twenty_four_layers(run, tmp_path):
    """Nothing assumes 12: a published order aside, K goes up to 23."""
    folder = tiny.save(tmp_path / "large", "xlm-roberta", num_hidden_layers=24)
    code, record, _, err = run("--task_name rte --max_steps 1 --drop_strategy symmetric --drop_k 18", model=folder)
    assert code == 0 and record["kept"] == [0, 1, 2, 21, 22, 23], err
