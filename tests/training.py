"""A training as run_glue.py composes it, for tests."""

from types import SimpleNamespace

import numpy as np
from transformers import TrainerCallback

from layerdrop.data.kinds import Classes, Values
from layerdrop.finetune.objectives import TaskLoss
from layerdrop.finetune.precision import head_in_fp32
from layerdrop.finetune.speedups import speedups
from layerdrop.finetune.trainer import FineTuner

CLASSES, VALUES = TaskLoss(Classes(("a", "b"))), TaskLoss(Values())


def train(
    model,
    args,
    data,
    collate,
    objective,
    *,
    evaluator=None,
    tokenizer=None,
    save=True,
    no_speedups=False,
    rolling_checkpoints=True,
    resume_from=None,
    callbacks=(),
) -> SimpleNamespace:
    """Train in place, as run_glue.fine_tune does. Returns the measurements."""
    used_ids = data.columns["input_ids"]
    if tokenizer is not None:
        used_ids = np.append(used_ids, tokenizer.pad_token_id)
    with speedups(model, args, train=True, no_speedups=no_speedups, used_ids=used_ids), head_in_fp32(model):
        trainer = FineTuner(
            model,
            args,
            collate,
            data,
            objective=CLASSES if isinstance(objective, TrainerCallback) else objective,
            evaluator=evaluator,
            processing_class=tokenizer,
            callbacks=[*([objective] if isinstance(objective, TrainerCallback) else []), *callbacks],
            capture=not no_speedups,
            rolling_checkpoints=rolling_checkpoints,
        ).train(resume_from)
    if save:
        trainer.save_run()
    tokens_per_second, padding_share = trainer.throughput
    return SimpleNamespace(
        epochs=trainer.epochs,
        seconds=trainer.seconds,
        evaluate_seconds=trainer.evaluate_seconds,
        steps=trainer.state.global_step,
        train_loss=trainer.train_loss,
        resumed_at_step=trainer.resumed_at_step,
        tokens_per_second=tokens_per_second,
        padding_share=padding_share,
        evaluations=trainer.evaluations,
    )


def loss_at(callback: TrainerCallback, step: int, model, batch):
    """The task loss of a batch at a training step that a callback changes the model for."""
    state = SimpleNamespace(global_step=step)
    callback.on_step_begin(None, state, None)
    try:
        return CLASSES(model, batch)
    finally:
        callback.on_step_end(None, state, None)
