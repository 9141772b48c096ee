import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BertForMaskedLM, Trainer, TrainingArguments

from layerdrop.errors import UserError
from layerdrop.finetune.speedups import speedups
from layerdrop.finetune.speedups.vocabulary import MODEL_TYPES, UsedRows, can_train_used_rows, used_rows
from layerdrop.finetune.trainer import FineTuner
from tests import tiny
from tests.training import CLASSES

N = len(tiny.VOCABULARY)
TRAIN_IDS = np.array([2, 3, *range(20, 30)])
KEY = "bert.embeddings.word_embeddings.weight"


def rows(n: int = 16, low: int = 20, high: int = 30) -> list[dict]:
    """Examples of 4 to 8 ids from `low` to `high` - 1, each between 2 and 3, padded with 0 to 10."""
    generator = np.random.default_rng(0)
    examples = []
    for i in range(n):
        ids = [2, *generator.integers(low, high, 4 + i % 5).tolist(), 3]
        padding = [0] * (10 - len(ids))
        mask = [1] * len(ids) + padding
        examples.append({"input_ids": ids + padding, "attention_mask": mask, "labels": int(sum(ids) % 2)})
    return examples


def batch(low: int, high: int, pad: int = 0) -> dict[str, torch.Tensor]:
    """`rows` as tensors, padded with the id `pad`."""
    found = {name: torch.tensor([row[name] for row in rows(8, low, high)]) for name in ("input_ids", "attention_mask")}
    found["input_ids"][found["attention_mask"] == 0] = pad
    return found


def arguments(folder, **changes) -> TrainingArguments:
    values = {"learning_rate": 1e-2, "num_train_epochs": 2, "per_device_train_batch_size": 4, "seed": 1}
    values |= {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
    return TrainingArguments(str(folder), **values | changes)


def fixed(model):
    """Without dropout."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(ours: dict, theirs: dict) -> bool:
    """Bit for bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def train_in_place(model) -> None:
    """Change every parameter."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pad", [None, 1])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_same_logits_with_real_ids(model_type, pad, training):
    """Also where padding has another id (RoBERTa counts positions by it)."""
    model = fixed(tiny.model(model_type, **({} if pad is None else {"pad_token_id": pad}))).train(training)
    seen, others = batch(20, 30, pad or 0), batch(30, 60, pad or 0)
    assert (seen["input_ids"] == (pad or 0)).any()
    before = [model(**some).logits for some in (seen, others)]
    with used_rows(model, TRAIN_IDS):
        padding = {0, pad or 0} | ({1} if model_type == "mpnet" else set())  # MPNet's own is always 1
        assert len(model.get_input_embeddings().weight) == len(TRAIN_IDS) + len(padding)
        assert torch.equal(model(**seen).logits, before[0])
        if training:
            with pytest.raises(IndexError):
                model(**others)
        else:
            assert torch.equal(model(**others).logits, before[1])
    assert all(torch.equal(model(**some).logits, b) for some, b in zip((seen, others), before, strict=True))


def test_evaluation_inside_has_the_rows_trained_so_far():
    model = tiny.model("bert")
    mixed = torch.tensor([[2, 20, 40, 3]])
    table = model.get_input_embeddings().weight.detach().clone()
    with used_rows(model, TRAIN_IDS):
        embedding = model.get_input_embeddings()
        with torch.no_grad():
            embedding.weight.add_(1.0)
        expected = table[mixed] + torch.tensor([1.0, 1.0, 0.0, 1.0])[None, :, None]
        assert torch.equal(embedding(mixed), expected)
    assert torch.equal(model.get_input_embeddings()(mixed), expected)


def test_the_row_of_the_padding_gets_no_gradient():
    """As in nn.Embedding."""
    model = tiny.model("roberta", pad_token_id=1).train()
    with used_rows(model, TRAIN_IDS):
        embedding = model.get_input_embeddings()
        embedding(torch.tensor([1, 20])).sum().backward()
        assert embedding.used[embedding.weight.grad.any(dim=1)].tolist() == [20]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_afterwards_the_embedding_is_the_models_own(error):
    model = tiny.model("bert").train()
    own, before = model.get_input_embeddings(), weights(model)
    try:
        with used_rows(model, TRAIN_IDS):
            assert type(model.get_input_embeddings()) is UsedRows
            train_in_place(model)
            model.eval()
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert model.get_input_embeddings() is own and type(own) is nn.Embedding and not own.training
    used = np.isin(np.arange(N), [0, *TRAIN_IDS])
    assert torch.equal(own.weight[used], before[KEY][used] + 1) and torch.equal(own.weight[~used], before[KEY][~used])
    assert own.weight.requires_grad and [name for name, _ in model.named_buffers()] == [
        name for name, _ in tiny.model("bert").named_buffers()
    ]


def test_a_state_dict_inside_has_every_row_and_loads_from_one():
    model = tiny.model("bert")
    before, other = weights(model), weights(tiny.model("bert", seed=1))
    with used_rows(model, TRAIN_IDS):
        assert same(weights(model), before)
        train_in_place(model)
        inside = weights(model)
        assert torch.equal(inside[KEY][20], before[KEY][20] + 1) and torch.equal(inside[KEY][40], before[KEY][40])
        assert model.load_state_dict(other) == ([], [])
        assert torch.equal(model.get_input_embeddings().weight[1], other[KEY][2])
        assert same(weights(model), other)
        with pytest.raises(RuntimeError):
            model.load_state_dict(other | {KEY: other[KEY][:13]})
    assert same(weights(model), other)


def test_rows_come_back_on_the_device_of_the_model():
    """The Trainer moves the model after its rows were chosen; the meta device stands for a GPU."""
    model = tiny.model("bert")
    with used_rows(model, TRAIN_IDS):
        model.to("meta")
        assert model.state_dict()[KEY].shape[0] == N
        assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
        for training in (True, False):
            assert model.train(training).get_input_embeddings()(torch.zeros(2, 3, dtype=int, device="meta")).is_meta
    assert model.get_input_embeddings().weight.shape[0] == N
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_training_is_the_same(tmp_path, optim):
    """Up to rounding; rows that never occur stay bit for bit."""
    first, trained = fixed(tiny.model("bert")), []
    for some in (True, False):
        model, args = copy.deepcopy(first), arguments(tmp_path, optim=optim)
        with used_rows(model, TRAIN_IDS) if some else nullcontext():
            Trainer(model, args, train_dataset=rows()).train()
        trained.append(weights(model))
    ours, theirs = trained
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)
    before, never = weights(first)[KEY], ~np.isin(np.arange(N), [0, *TRAIN_IDS])
    assert torch.equal(ours[KEY][never], before[never]) and not torch.equal(ours[KEY], before)


def test_checkpoints_inside_are_ordinary_and_resuming_gives_the_same_bits(tmp_path):
    """Of the library's own Trainer."""
    args = arguments(tmp_path, save_strategy="epoch")
    whole = tiny.model("bert")
    with speedups(whole, args, train=True, used_ids=TRAIN_IDS):
        Trainer(whole, args, train_dataset=rows()).train()
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint-8")
    assert same(weights(saved), weights(whole)) and saved.config.vocab_size == N
    assert type(saved.get_input_embeddings()) is nn.Embedding
    resumed = tiny.model("bert", seed=5)
    with speedups(resumed, args, train=True, used_ids=TRAIN_IDS):
        trainer = Trainer(resumed, args, train_dataset=rows())
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        assert trainer.state.global_step == 8
    assert same(weights(resumed), weights(whole))


def test_the_best_model_is_loaded_inside(tmp_path):
    model = tiny.model("bert")
    changes = {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True}
    args = arguments(tmp_path, **changes, metric_for_best_model="loss", num_train_epochs=3)
    with speedups(model, args, train=True, used_ids=TRAIN_IDS):
        trainer = Trainer(model, args, train_dataset=rows(), eval_dataset=rows(8, 30, 60))
        trainer.train()
    best = AutoModelForSequenceClassification.from_pretrained(trainer.state.best_model_checkpoint)
    assert same(weights(model), weights(best))


def test_an_optimizer_of_other_rows_is_refused(tmp_path):
    """A resumed training with other training data, for example: AdamW would read past the end of its moments."""
    given = {"save_strategy": "epoch", "train_sampling_strategy": "sequential"}

    def trained(used_ids, epochs, resume_from=None):
        model, args = tiny.model("bert"), arguments(tmp_path, num_train_epochs=epochs, **given)
        with speedups(model, args, train=True, used_ids=used_ids):
            trainer = FineTuner(model, args, None, rows(), objective=CLASSES, rolling_checkpoints=False)
            trainer.train(resume_from)

    trained(TRAIN_IDS, 1)
    with pytest.raises(UserError, match="the optimizer's state belongs to other training data"):
        trained(np.arange(50), 2, str(tmp_path / "checkpoint-4"))


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_parameters_stay_frozen(frozen):
    model = tiny.model("bert")
    model.get_input_embeddings().requires_grad_(not frozen)
    with used_rows(model, TRAIN_IDS):
        assert model.get_input_embeddings().weight.requires_grad == (not frozen)
    assert model.get_input_embeddings().weight.requires_grad == (not frozen)


@pytest.mark.parametrize(
    ("changes", "may"),
    [({}, True), ({"optim": "adamw_torch_fused"}, True), ({"optim": "sgd"}, True), ({"weight_decay": 0.01}, False),
     ({"optim": "adafactor"}, False), ({"deepspeed": "zero"}, False), ({"fsdp": ["full_shard"]}, False)],
)  # fmt: skip
def test_only_where_it_changes_nothing(tmp_path, changes, may):
    args = arguments(tmp_path)
    for name, value in changes.items():
        setattr(args, name, value)
    assert can_train_used_rows(tiny.model("bert"), args) == may


def test_not_with_several_processes(tmp_path):
    class TwoProcesses(TrainingArguments):
        world_size = 2

    assert not can_train_used_rows(tiny.model("bert"), TwoProcesses(str(tmp_path), use_cpu=True, report_to=[]))


def test_not_where_ids_mean_more_or_the_embedding_is_frozen_shared_or_special(tmp_path):
    args = arguments(tmp_path)
    for model_type in set(tiny.CONFIGS) - set(MODEL_TYPES):
        assert not can_train_used_rows(tiny.model(model_type), args)
    assert not can_train_used_rows(BertForMaskedLM(tiny.config("bert")), args)  # its output is tied to the embedding
    model = tiny.model("bert")
    with used_rows(model, TRAIN_IDS):
        assert not can_train_used_rows(model, args)
    model.get_input_embeddings().requires_grad_(False)
    assert not can_train_used_rows(model, args)


def test_it_has_every_setting_of_an_embedding(tmp_path):
    """DistributedDataParallel reads them, in a single process too."""
    own = tiny.model("bert").get_input_embeddings()
    assert all(getattr(UsedRows(own, np.arange(9)), name) == getattr(own, name) for name in nn.Embedding.__constants__)
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    for changes in ({"sparse": True}, {"max_norm": 1.0}, {"scale_grad_by_freq": True}):
        model = tiny.model("bert")
        assert can_train_used_rows(model, args)
        model.set_input_embeddings(nn.Embedding(65, 16, **changes))
        assert not can_train_used_rows(model, args)
