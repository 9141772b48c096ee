"""Training: the same as by hand, measured honestly, and an ordinary model at the end."""

import copy
import dataclasses
import json
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainerControl, TrainerState, TrainingArguments

from layerdrop.architectures import ModelSpec
from layerdrop.cli.parsing import parse
from layerdrop.data.batches import Collator, LengthGroupedSampler
from layerdrop.data.examples import Examples
from layerdrop.data.kinds import Classes
from layerdrop.data.labels import Labels
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import TASKS
from layerdrop.data.tokens import tokenize
from layerdrop.finetune import interrupt as interrupt_module
from layerdrop.finetune.evaluate import Evaluator
from layerdrop.finetune.interrupt import Interrupt, Interrupted
from layerdrop.finetune.log import LogLine, _position, log_entries, result_name
from layerdrop.finetune.objectives import TaskLoss
from layerdrop.finetune.spec import OWN_SETTINGS, TrainSpec
from layerdrop.finetune.trainer import FineTuner
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.training_arguments import training_arguments
from layerdrop.runs.variants import freeze
from tests import tiny
from tests.running import same
from tests.training import CLASSES, VALUES, train

TOKENIZER = tiny.tokenizer()
COLLATE = Collator.of(TOKENIZER)


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "xlnet"])
def test_freezing(model_type):
    model = tiny.model(model_type)
    freeze(model, (1, 3), embeddings=True)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen >= {name for name, _ in model.named_parameters() if "embedding" in name} != set()
    in_layers = {int(name.split("layer.")[1].split(".")[0]) for name in frozen if "layer." in name}
    assert in_layers == {1, 3} and "classifier.weight" not in frozen


def test_the_loader_of_batches_grouped_by_length_has_the_librarys_settings(tmp_path):
    names = {"num_workers": 2, "prefetch_factor": 3, "persistent_workers": True, "pin_memory": False}
    args = TrainingArguments(
        str(tmp_path),
        use_cpu=True,
        report_to=[],
        train_sampling_strategy="group_by_length",
        dataloader_multiprocessing_context="spawn",
        **{f"dataloader_{name}": value for name, value in names.items()},
    )
    trainer = FineTuner(tiny.model("bert"), args, COLLATE, dataset(), objective=CLASSES, capture=False)
    loader = trainer.get_train_dataloader()
    assert {name: getattr(loader, name) for name in names} == names
    assert loader.multiprocessing_context.get_start_method() == "spawn"


def test_nothing_is_frozen_unasked():
    model = tiny.model("bert")
    freeze(model, (), embeddings=False)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("logged", "name"),
    [("loss", "train_loss"), ("eval_loss", "loss"), ("eval_matched_accuracy", "matched_accuracy"), ("eval_runtime", ""),
     ("eval_samples_per_second", ""), ("learning_rate", ""), ("train_runtime", ""), ("epoch", "")],
)  # fmt: skip
def test_names_of_results(logged, name):
    assert result_name(logged) == name


# ---- numerics: what makes a run faster must not change what it computes ---------------------------------------------
def dataset(tokenizer=TOKENIZER, n: int = 24, classes: int = 2):
    """Pairs of 3 to 26 words with labels."""
    texts = [" ".join(tiny.WORDS[(7 * i + j) % 60] for j in range(1 + i % 13)) for i in range(2 * n)]
    labels = np.arange(n) % classes
    return tokenize(Examples((texts[:n], texts[n:]), labels, [str(i) for i in range(n)]), tokenizer, 64)


def without_dropout(model_type: str = "bert", **changes):
    model = tiny.model(model_type, **changes)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def arguments(folder, **changes) -> TrainingArguments:
    given = {"seed": 5, "per_device_train_batch_size": 8, "num_train_epochs": 1, "learning_rate": 0.1, "optim": "sgd"}
    given |= {"use_cpu": True, "lr_scheduler_type": "constant", "train_sampling_strategy": "group_by_length"}
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    return TrainingArguments(str(folder), **given | quiet | changes)


def gradients(model, batch) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("model_type", sorted(tiny.CONFIGS))
def test_padding_changes_no_logits_and_no_gradient(model_type):
    """Each example alone, in a batch padded to its longest, and padded to 40 tokens."""
    tokenizer = tiny.tokenizer(left=model_type == "xlnet")
    if model_type in ("distilbert", "roberta", "modernbert", "mpnet", "longformer"):
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    model, data = tiny.model(model_type), dataset(tokenizer)
    if model_type == "mobilebert":  # joins each token's embedding to its neighbours': the last sees the padding's
        model.get_input_embeddings().weight.data[tokenizer.pad_token_id] = 0
    items = [data[i] for i in range(8)]
    by_batch, to_40 = Collator.of(tokenizer)(items), Collator.of(tokenizer, 40, fill=True)(items)
    assert by_batch["input_ids"].shape[1] < 40 == to_40["input_ids"].shape[1]
    with torch.no_grad():
        alone = torch.cat([model(**Collator.of(tokenizer)([item])).logits for item in items])
        for batch in (by_batch, to_40):
            assert torch.allclose(model(**batch).logits, alone, atol=2e-5)
    loss, found = gradients(model, by_batch)
    other_loss, others = gradients(model, to_40)
    assert loss == pytest.approx(other_loss, abs=1e-5)
    assert all(torch.allclose(a, b, atol=2e-5) for a, b in zip(found, others, strict=True))


@pytest.mark.parametrize("limit", [1.0, 1e-2, 1e3])
def test_training_is_training_by_hand(tmp_path, limit):
    """On the sampler's batches, one by one, with the library's clipping; and the measurements are those of these."""
    data = dataset()
    sampler = LengthGroupedSampler(data.lengths, 8, seed=5)
    by_hand = without_dropout().train()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    losses, tokens, cells = [], 0, 0
    for rows in torch.utils.data.BatchSampler(sampler, 8, drop_last=False):
        batch = COLLATE([data[i] for i in rows])
        tokens, cells = tokens + int(batch["attention_mask"].sum()), cells + batch["input_ids"].numel()
        loss = by_hand(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), limit)
        optimizer.step()
        losses.append(loss.item())
    model = without_dropout()
    result = train(model, arguments(tmp_path, max_grad_norm=limit, logging_strategy="epoch"), data, COLLATE,
                   CLASSES, save=False)  # fmt: skip
    assert result.epochs[-1]["train_loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert tokens < cells
    assert result.tokens_per_second * result.seconds == pytest.approx(tokens)  # padding does not count
    assert result.padding_share == pytest.approx(1 - tokens / cells)


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
@pytest.mark.parametrize("evaluated", [True, False])
def test_without_speed_ups_training_has_the_bits_of_the_librarys_trainer(tmp_path, model_type, evaluated):
    """Three steps with dropout, AdamW and clipping, in random order of rows. Evaluations draw no random number."""
    tokenizer, weights = tiny.tokenizer(), {}
    if model_type == "distilbert":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    data, collate = dataset(tokenizer), Collator.of(tokenizer)
    given = {"optim": "adamw_torch_fused", "learning_rate": 1e-2, "lr_scheduler_type": "linear", "max_grad_norm": 0.1}
    given |= {"train_sampling_strategy": "random", "remove_unused_columns": False, "logging_strategy": "epoch"}
    for ours in (True, False):
        model, steps = tiny.model(model_type), "steps" if evaluated and ours else "no"
        args = arguments(tmp_path, **given, eval_strategy=steps, eval_steps=1)
        if ours:
            result = train(model, args, data, collate, CLASSES, evaluator=evaluator(), save=False, no_speedups=True)
            assert result.steps == 3 and ("accuracy" in result.epochs[0]) is evaluated
        else:
            Trainer(model, args, collate, data).train()
        weights[ours] = model.state_dict()
    before = tiny.model(model_type).state_dict()
    assert all(torch.equal(tensor, weights[False][name]) for name, tensor in weights[True].items())
    assert not any(torch.equal(before[name], tensor) for name, tensor in weights[True].items() if "layer.0" in name)


def test_accumulated_batches_are_one_batch(tmp_path):
    """The loss is a mean over rows: two batches of 4 make the step that one of 8 makes."""
    models = []
    for size, steps in ((8, 1), (4, 2)):
        models.append(without_dropout())
        args = arguments(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=2,
                         train_sampling_strategy="sequential")  # fmt: skip
        train(models[-1], args, dataset(), COLLATE, CLASSES, save=False)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*(m.parameters() for m in models), strict=True))


def test_label_smoothing_reaches_the_loss(tmp_path):
    """Of the training alone: that of the validation set stays comparable."""
    data, logits = dataset(), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1])

    def model(**inputs):
        return SimpleNamespace(logits=logits)

    batch = {"input_ids": labels, "labels": labels}
    assert CLASSES(model, batch) == torch.nn.functional.cross_entropy(logits, labels)
    smoothed = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.3)
    assert TaskLoss(Classes(("a", "b")), 0.3)(model, batch) == smoothed != CLASSES(model, batch)
    values = torch.tensor([1.0, 3.0])
    logits = torch.tensor([[2.0], [0.0]])
    assert VALUES(model, batch | {"labels": values}) == 5.0  # (1 + 9) / 2
    assert len(data) == 24


def orders(tmp_path, **settings) -> tuple[list, list]:
    """(the first batch's input ids, the trained weights) of a training with these seeds."""
    model, seen = tiny.model("bert"), []

    def objective(model, batch):
        seen.append(batch["input_ids"].clone())
        return CLASSES(model, batch)

    train(model, arguments(tmp_path, **settings), dataset(), COLLATE, objective, save=False)
    return seen[0].tolist(), [p.detach().clone() for p in model.parameters()]


def test_data_seed_orders_the_rows_and_seed_the_rest(tmp_path):
    ids, weights = orders(tmp_path)
    assert orders(tmp_path)[0] == ids and all(
        torch.equal(a, b) for a, b in zip(orders(tmp_path)[1], weights, strict=True)
    )
    assert orders(tmp_path, data_seed=1)[0] != ids
    assert orders(tmp_path, seed=6, data_seed=5)[0] == ids
    assert not all(torch.equal(a, b) for a, b in zip(orders(tmp_path, seed=6, data_seed=5)[1], weights, strict=True))


# ---- evaluation while training --------------------------------------------------------------------------------------
def evaluator(task: str = "rte") -> Evaluator:
    splits = {"validation": dataset(n=10)}
    if task == "mnli":
        splits = {f"validation_{side}": dataset(n=n, classes=3) for side, n in (("matched", 9), ("mismatched", 12))}
    return Evaluator(splits, Labels(TASKS[task]), COLLATE, 4)


@pytest.mark.parametrize("metric", ["loss", "accuracy", "mismatched_accuracy", "eval_matched_accuracy"])
def test_the_best_model_by_any_metric_of_mnli(tmp_path, metric):
    args = arguments(tmp_path, eval_strategy="epoch", save_strategy="epoch", num_train_epochs=2,
                     load_best_model_at_end=True, metric_for_best_model=metric)  # fmt: skip
    model = tiny.model("bert", num_labels=3)
    result = train(model, args, dataset(classes=3), COLLATE, CLASSES, evaluator=evaluator("mnli"), save=False)
    assert [entry["step"] for entry in result.epochs if "matched_loss" in entry] == [3, 6]
    assert not result.evaluations  # those of the last step need not be the best model's


def test_the_last_evaluation_is_the_final_models(tmp_path):
    model = tiny.model("bert")
    result = train(model, arguments(tmp_path, eval_strategy="epoch", num_train_epochs=2), dataset(), COLLATE,
                   CLASSES, evaluator=evaluator(), save=False)  # fmt: skip
    again = evaluator()(model, "validation")
    assert np.allclose(result.evaluations["validation"].logits, again.logits, atol=1e-6)
    assert result.epochs[-1]["accuracy"] == again.metrics["accuracy"]
    assert result.evaluate_seconds > 0
    without = train(tiny.model("bert"), arguments(tmp_path, eval_strategy="no"), dataset(), COLLATE,
                  CLASSES, evaluator=evaluator(), save=False)  # fmt: skip
    assert not without.evaluations and without.evaluate_seconds == 0


def test_the_seconds_of_training_hold_no_evaluation(tmp_path, monkeypatch):
    usual = Evaluator.__call__

    def slow(self, model, split):
        return dataclasses.replace(usual(self, model, split), seconds=1000.0)

    monkeypatch.setattr(Evaluator, "__call__", slow)
    result = train(tiny.model("bert"), arguments(tmp_path, eval_strategy="epoch", num_train_epochs=2), dataset(),
                   COLLATE, CLASSES, evaluator=evaluator(), save=False)  # fmt: skip
    assert result.evaluate_seconds == 2000 and result.seconds < -1900


# ---- what is left afterwards ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", [{}, {"bf16": True}])
@pytest.mark.parametrize("plain", [False, True])
def test_a_trained_model_is_an_ordinary_one(tmp_path, precision, plain):
    model = tiny.model("bert")
    train(model, arguments(tmp_path, **precision), dataset(), COLLATE, CLASSES, no_speedups=plain)
    assert "forward" not in vars(model) and "_original_forward" not in vars(model)
    assert type(model.bert.embeddings.word_embeddings) is torch.nn.Embedding
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = loaded(**tiny.batch()).logits
        for ordinary in (model.eval(), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            found = ordinary(**tiny.batch())
            assert found.logits.dtype == torch.float32 and torch.equal(found.logits, expected)
        assert len(model.bert(**tiny.batch(), output_hidden_states=True).hidden_states) == tiny.N_LAYERS + 1


def test_a_diverged_training_is_said(tmp_path):
    args = arguments(tmp_path, learning_rate=1e30, max_grad_norm=0.0, logging_nan_inf_filter=False)
    with pytest.raises(FloatingPointError, match="the training loss is not finite"):
        train(tiny.model("bert"), args, dataset(), COLLATE, CLASSES, save=False)


# ---- log and interrupt ----------------------------------------------------------------------------------------------
def test_points_of_logging_are_told_apart_by_their_step():
    history = [{"step": 1, "epoch": 0.001, "loss": 3.0}, {"step": 2, "epoch": 0.002, "loss": 2.0, "learning_rate": 0.1}]
    history += [{"step": 3, "epoch": 0.003, "loss": 1.0}, {"step": 3, "epoch": 0.003, "eval_accuracy": 0.5}]
    entries = log_entries([*history, {"step": 3, "epoch": 0.003, "train_runtime": 2.0, "train_loss": 2.0}])
    assert entries == [
        {"step": 1, "epoch": 0.001, "train_loss": 3.0},
        {"step": 2, "epoch": 0.002, "train_loss": 2.0},
        {"step": 3, "epoch": 0.003, "train_loss": 1.0, "accuracy": 0.5},
    ]


def test_a_line_for_each_step_of_logging(capsys):
    """Once its results are complete."""
    args, state = SimpleNamespace(max_steps=-1, num_train_epochs=3), TrainerState(is_world_process_zero=True)
    for step, evaluates, logs in (
        (2, False, {"loss": 2.0}), (3, True, {"loss": 1.0}), (3, False, {"eval_accuracy": 0.5}),
        (3, False, {"train_runtime": 2.0}),
    ):  # fmt: skip
        state.global_step, state.epoch = step, step * 0.001
        state.log_history.append({**logs, "step": step, "epoch": state.epoch})
        LogLine().on_log(args, state, SimpleNamespace(should_evaluate=evaluates), logs=logs)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 0.002 of 3: train_loss 2.0000",
        "epoch 0.003 of 3: train_loss 1.0000  accuracy 0.5000",
    ]


def test_where_a_training_is():
    state = SimpleNamespace(global_step=10, epoch=3.33, max_steps=10)
    assert _position(SimpleNamespace(max_steps=10, num_train_epochs=3), state) == "step 10 of 10"
    assert _position(SimpleNamespace(max_steps=-1, num_train_epochs=4), state) == "epoch 3.33 of 4"


@pytest.mark.parametrize(("step", "at_once"), [(2, True), (3, False)])
def test_a_stop_at_the_end_of_an_epoch_waits_for_its_results(tmp_path, step, at_once):
    """Of three steps an epoch."""
    interrupt, args = Interrupt(rolling=True), arguments(tmp_path)
    interrupt.stop_requested = True
    state, control = SimpleNamespace(global_step=step, max_steps=9), TrainerControl()
    interrupt.on_step_end(args, state, control, train_dataloader=range(3))
    assert control.should_save is at_once
    if not at_once:
        interrupt.on_epoch_end(args, state, control)
        assert control.should_save
    with pytest.raises(Interrupted, match=f"checkpoint-{step}"):
        interrupt.on_save(args, state, control)


@pytest.mark.parametrize("evaluates", [True, False])
@pytest.mark.parametrize(
    ("seconds", "processes", "written"),
    [
        (0.5, 1, [60, 120, 180, 240, 300]),
        (4.0, 1, [60, 144, 228]),  # 4 s are 5% of 80 s. The next epoch ends after 84 s
        (4.0, 2, [*range(12, 312, 12)]),
    ],
)
def test_rolling_checkpoints_are_a_minute_apart_and_take_5_percent_of_the_time(
    tmp_path, monkeypatch, evaluates, seconds, processes, written
):
    """Epochs of 12 s. The evaluation before a checkpoint does not count as writing. Several processes always write,
    because their clocks differ."""
    now, saved, args = [0.0], [], SimpleNamespace(world_size=processes, output_dir=tmp_path)
    monkeypatch.setattr(interrupt_module.time, "monotonic", lambda: now[0])
    interrupt = Interrupt(rolling=True)
    for epoch in range(1, 26):
        now[0], control = 12.0 * epoch, TrainerControl()
        control.should_save = True
        interrupt.on_epoch_end(args, SimpleNamespace(global_step=epoch, max_steps=99), control)
        if control.should_save:
            saved.append(12 * epoch)
            if evaluates:
                now[0] += 100.0
                interrupt.on_evaluate(args, None, control)
            now[0] += seconds
            interrupt.on_save(args, SimpleNamespace(global_step=epoch), control)
            interrupt.saved, now[0] = 12.0 * epoch, 12.0 * epoch
    assert saved == written


@pytest.mark.parametrize(
    ("rolling", "seconds", "processes", "written"),
    [
        (True, 1.0, 1, [600, 1200, 1800]),
        (True, 45.0, 1, [600, 1500]),  # 45 s are 5% of 900 s
        (True, 1.0, 2, []),
        (False, 1.0, 1, []),
    ],
)
def test_rolling_checkpoints_within_an_epoch_are_ten_minutes_apart(
    tmp_path, monkeypatch, rolling, seconds, processes, written
):
    """An epoch of 100 steps, 20 s each."""
    args = SimpleNamespace(world_size=processes, output_dir=tmp_path, gradient_accumulation_steps=1)
    now, saved = [0.0], []
    monkeypatch.setattr(interrupt_module.time, "monotonic", lambda: now[0])
    interrupt = Interrupt(rolling)
    for step in range(1, 101):
        now[0], control, state = 20.0 * step, TrainerControl(), SimpleNamespace(global_step=step, max_steps=100)
        interrupt.on_step_end(args, state, control, train_dataloader=range(100))
        if control.should_save:
            saved.append(now[0])
            now[0] += seconds
            interrupt.on_save(args, state, control)
            interrupt.saved = saved[-1]
    assert saved == written


# ---- settings -------------------------------------------------------------------------------------------------------
def test_every_setting_of_the_recipe_reaches_the_library():
    changed = {
        "num_train_epochs": 7.0, "max_steps": 11, "per_device_train_batch_size": 5, "gradient_accumulation_steps": 3,
        "learning_rate": 3e-4, "lr_scheduler_type": "cosine", "warmup_steps": 4.0, "optim": "sgd", "adam_beta1": 0.8,
        "adam_beta2": 0.98, "adam_epsilon": 1e-6, "weight_decay": 0.1, "max_grad_norm": 2.0,
        "label_smoothing_factor": 0.2, "train_sampling_strategy": "random", "data_seed": 9,
    }  # fmt: skip
    assert changed.keys() == {f.name for f in dataclasses.fields(TrainSpec)} - set(OWN_SETTINGS)
    spec = RunSpec(ModelSpec("bert"), DataSpec("rte"), train=TrainSpec(**changed, other={"neftune_noise_alpha": 5.0}),
                   seed=77)  # fmt: skip
    args = training_arguments(spec, Options("out", use_cpu=True))
    assert {name: getattr(args, name) for name in changed} == changed
    assert (args.neftune_noise_alpha, args.seed, args.bf16, args.fp16) == (5.0, 77, False, False)
    bf16 = training_arguments(dataclasses.replace(spec, precision="bf16"), Options("out", use_cpu=True))
    assert bf16.bf16 and not bf16.fp16


def test_options_alone_are_those_of_the_flags():
    spec, options = parse(["--output_dir", "x", "--use_cpu", "--precision", "fp32", "--report_to", "none"]).to_spec()
    ours, flags = training_arguments(spec, Options("x", use_cpu=True)), training_arguments(spec, options)
    differ = {name for name, value in ours.to_dict().items() if value != flags.to_dict()[name]}
    assert differ <= {"disable_tqdm"}  # the command's bar follows the terminal


def test_without_evaluation_there_is_none_while_training():
    spec = RunSpec(ModelSpec("bert"), DataSpec("rte"))
    trainer = {"eval_strategy": "epoch"}
    assert training_arguments(spec, Options("x", use_cpu=True, trainer=trainer)).eval_strategy == "epoch"
    assert training_arguments(spec, Options("x", use_cpu=True, trainer=trainer, evaluate=False)).eval_strategy == "no"
    alone = dataclasses.replace(spec, train=None)
    assert training_arguments(alone, Options("x", use_cpu=True, trainer=trainer)).eval_strategy == "no"


def test_the_default_seed():
    assert RunSpec(ModelSpec("bert"), DataSpec("rte")).seed == 42
    assert FineTuner.__mro__[1].__name__ == "Trainer"


@pytest.mark.parametrize("strategy", ["epoch", "no"])
def test_checkpoints_within_an_epoch_change_nothing_and_resume(tmp_path, monkeypatch, strategy):
    monkeypatch.setattr(interrupt_module, "WITHIN_EPOCH_SECONDS", 0.0)
    monkeypatch.setattr(interrupt_module, "CHECKPOINT_SHARE", math.inf)

    def trained(name, seconds, resume_from=None):
        monkeypatch.setattr(interrupt_module, "CHECKPOINT_SECONDS", seconds)
        args = arguments(tmp_path / name, num_train_epochs=2, save_strategy=strategy, learning_rate=0.01)
        model = tiny.model("bert")  # with dropout
        train(model, args, dataset(), COLLATE, CLASSES, save=False, resume_from=resume_from and str(resume_from))
        return model.state_dict(), sorted(path.name for path in tmp_path.glob(f"{name}/checkpoint-*"))

    (undisturbed, none), (weights, written) = trained("a", 1e9), trained("b", 0.0)
    assert same(weights, undisturbed) and not none
    assert written == ([] if strategy == "no" else [f"checkpoint-{step}" for step in range(1, 6)])
    for name in written:
        assert same(trained(f"from-{name}", 1e9, tmp_path / "b" / name)[0], undisturbed)


@pytest.mark.parametrize("logging", [{"logging_strategy": "epoch"}, {"logging_steps": 2}, {"logging_strategy": "no"}])
def test_losses_of_a_resumed_training_are_means_over_all_steps(tmp_path, logging):
    """From any checkpoint: within an epoch, at its end, after another interruption."""
    given = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 1, "learning_rate": 0.01, **logging}

    def trained(name, resume_from=None):
        args = arguments(tmp_path / name, **given)
        kept = {"save": False, "rolling_checkpoints": False, "resume_from": resume_from and str(resume_from)}
        return train(without_dropout(), args, dataset(), COLLATE, CLASSES, **kept)

    whole = trained("whole")
    state = json.loads((tmp_path / "whole" / "checkpoint-6" / "trainer_state.json").read_text())
    steps = {"logging_strategy": [3, 6], "logging_steps": [2, 4, 6]}
    expected = steps[next(iter(logging))] if "no" not in logging.values() else []
    assert [entry["step"] for entry in whole.epochs] == expected == [e["step"] for e in state["log_history"]]
    folders = [tmp_path / "whole" / f"checkpoint-{step}" for step in range(1, 6)]
    for step, folder in enumerate(folders, 1):
        resumed = trained(f"from{step}", folder)
        assert resumed.train_loss == pytest.approx(whole.train_loss, rel=1e-4)
        assert [e["step"] for e in resumed.epochs] == expected
        for ours, theirs in zip(resumed.epochs, whole.epochs, strict=True):
            assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
    again = trained("again", tmp_path / "from1" / "checkpoint-2")
    assert again.train_loss == pytest.approx(whole.train_loss, rel=1e-4) and len(again.epochs) == len(expected)
    old = json.loads((folders[1] / "trainer_state.json").read_text())
    old["stateful_callbacks"].pop("losses_since_log", None)  # a checkpoint of an earlier version
    (folders[1] / "trainer_state.json").write_text(json.dumps(old))
    assert math.isfinite(trained("old", folders[1]).train_loss)
