import importlib
import inspect

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, TrainingArguments

from layerdrop.finetune.speedups import speedups
from layerdrop.finetune.speedups.dropout import ATTENTION as CHEAP
from layerdrop.finetune.speedups.dropout import Dropout
from layerdrop.finetune.speedups.no_sync import ATTENTION as MASKED
from layerdrop.finetune.speedups.vocabulary import UsedRows
from tests import tiny
from tests.finetune.test_no_sync import OnDevice
from tests.finetune.test_vocabulary import TRAIN_IDS, arguments, batch

LAYER_AT_ONE_TOKEN = "first token"
ROWS = "used rows"


def entered(model) -> set[str]:
    """The speed-ups that a model has at present."""
    found = {LAYER_AT_ONE_TOKEN} if any("forward" in vars(module) for module in model.modules()) else set()
    found |= {ROWS} if any(isinstance(module, UsedRows) for module in model.modules()) else set()
    found |= {CHEAP} if any(isinstance(module, Dropout) for module in model.modules()) else set()
    return found | {model.config._attn_implementation} & {CHEAP, MASKED}


def expected(model_type: str, train: bool, gpu: bool) -> set[str]:
    """By hand: what each model type may use."""
    first = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "data2vec-text"}
    rows = first | {"mpnet", "mobilebert", "deberta", "deberta-v2", "megatron-bert", "roberta-prelayernorm", "rembert"}
    rows |= {"roformer", "xlm-roberta-xl", "distilbert", "albert"}
    sdpa = first | {"mobilebert", "distilbert", "albert", "modernbert", "roberta-prelayernorm"}
    sdpa |= {"xlm-roberta-xl", "eurobert", "llama", "mistral", "qwen2", "qwen3", "gpt2"}
    found = {LAYER_AT_ONE_TOKEN} if model_type in first else set()
    if train and model_type in rows:
        found.add(ROWS)
    if gpu:
        return found | ({MASKED} if model_type in sdpa else set())
    return found | ({CHEAP} if train else set())


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("model_type", sorted(tiny.CONFIGS))
def test_each_model_type_has_its_speed_ups_and_they_are_undone(model_type, train, gpu, tmp_path):
    model, some = tiny.model(model_type), tiny.batch(left=model_type == "xlnet")
    args = (OnDevice if gpu else TrainingArguments)(str(tmp_path), use_cpu=True, report_to=[])
    modules, logits = list(model.named_modules()), model(**some).logits
    with pytest.raises(KeyboardInterrupt), speedups(model, args, train=train, used_ids=some["input_ids"].numpy()):
        assert entered(model) == expected(model_type, train, gpu)
        assert torch.allclose(model(**some).logits, logits, atol=1e-5)
        raise KeyboardInterrupt
    assert not entered(model)
    assert [(name, id(module)) for name, module in model.named_modules()] == [(n, id(m)) for n, m in modules]
    assert torch.equal(model(**some).logits, logits)


@pytest.mark.parametrize("train", [True, False])
def test_plain_enters_none(train, tmp_path):
    model = tiny.model("bert")
    with speedups(model, arguments(tmp_path), train=train, no_speedups=True, used_ids=TRAIN_IDS):
        assert not entered(model)


def test_without_the_training_ids_every_row_is_trained(tmp_path):
    model = tiny.model("bert")
    with speedups(model, arguments(tmp_path), train=True):
        assert entered(model) == expected("bert", True, False) - {ROWS}


def test_a_model_trained_inside_learns_as_one_outside(tmp_path):
    """The token with id 20 decides the class; with dropout."""
    scores = {}
    for plain in (True, False):
        torch.manual_seed(0)
        model = tiny.model("bert").train()
        args = arguments(tmp_path)
        with speedups(model, args, train=True, no_speedups=plain, used_ids=TRAIN_IDS):
            optimizer = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=0.0)
            for _ in range(80):
                some = learnt_batch()
                model(**some).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        some = learnt_batch(256)
        scores[plain] = (model.eval()(**some).logits.argmax(-1) == some["labels"]).double().mean().item()
    assert min(scores.values()) > 0.9, scores


def learnt_batch(n: int = 32) -> dict[str, torch.Tensor]:
    ids = torch.randint(21, 30, (n, 6))
    labels = torch.randint(0, 2, (n,))
    ids[labels == 1, 3] = 20
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


# ---- what the library does not promise to keep -----------------------------------------------------------------------
PRIVATE = (
    ("torch", "_foreach_zero_", ()),
    ("torch.cuda", "graph", ("pool", "capture_error_mode")),
    ("torch.nn", "Module.register_state_dict_post_hook", ("hook",)),
    ("torch.nn", "Module.register_load_state_dict_pre_hook", ("hook",)),
    ("transformers", "AttentionInterface.register", ()),
    ("transformers", "AttentionMaskInterface.register", ()),
    ("transformers", "PreTrainedModel.set_attn_implementation", ("attn_implementation",)),
    ("transformers", "PreTrainedModel._supports_sdpa", ()),
    ("transformers.models.mpnet.modeling_mpnet", "MPNetEncoder.relative_position_bucket", ("relative_position",)),
    ("transformers.integrations.sdpa_attention", "sdpa_attention_forward",
     ("module", "query", "key", "value", "attention_mask", "dropout", "scaling", "is_causal")),
    ("transformers.masking_utils", "sdpa_mask", ("allow_is_bidirectional_skip",)),
    ("transformers.modeling_utils", "ALL_ATTENTION_FUNCTIONS", ()),
)  # fmt: skip
"""Module, name in it, parameters that are given by name or in this order."""


@pytest.mark.parametrize(("module", "name", "parameters"), PRIVATE)
def test_a_name_that_the_speed_ups_rely_on_is_still_there(module, name, parameters):
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if parameters:
        taken = [parameter for parameter in inspect.signature(found).parameters if parameter in parameters]
        assert tuple(taken) == parameters


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie"])
def test_attention_is_built_of_what_the_first_token_needs(model_type):
    model = tiny.model(model_type)
    attention = model.base_model.encoder.layer[-1].attention
    inner = attention.self
    assert all(
        isinstance(module, nn.Linear) for module in (inner.query, inner.key, inner.value, attention.output.dense)
    )
    assert isinstance(inner.dropout, nn.Dropout) and isinstance(inner.scaling, float)
    assert inner.config._attn_implementation == "sdpa" and inner.attention_head_size == 8
    assert list(inspect.signature(attention.output.forward).parameters) == ["hidden_states", "input_tensor"]


def test_settings_that_the_speed_ups_read_are_still_there(tmp_path):
    args = arguments(tmp_path)
    for name in ("device", "optim", "weight_decay", "world_size", "deepspeed", "fsdp", "dataloader_pin_memory"):
        assert hasattr(args, name)
    assert hasattr(args.accelerator_config, "non_blocking")


def test_saved_inside_loads_as_an_ordinary_model(tmp_path):
    model = tiny.model("bert")
    with speedups(model, arguments(tmp_path), train=True, used_ids=TRAIN_IDS):
        model.save_pretrained(tmp_path)
        inside = model(**batch(20, 60)).logits
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert saved.config._attn_implementation == "sdpa"
    assert torch.allclose(saved(**batch(20, 60)).logits, inside, atol=1e-6)
