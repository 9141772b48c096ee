"""Training one model on one task; the trained model is an ordinary one of the library."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
from safetensors import SafetensorError
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from layerdrop.architectures import family_of
from layerdrop.data.batches import Collator
from layerdrop.data.tokens import Tokenised
from layerdrop.errors import UserError
from layerdrop.finetune.evaluate import Evaluation
from layerdrop.finetune.interrupt import Interrupt
from layerdrop.finetune.log import EpochLog
from layerdrop.finetune.objective import Objective
from layerdrop.finetune.precision import head_in_fp32
from layerdrop.finetune.speedups import speedups
from layerdrop.finetune.speedups.capture import can_capture
from layerdrop.finetune.trainer import Development, FineTuner, build_trainer, make_ordinary
from layerdrop.surgery import layer_list
from layerdrop.system.own_files import OwnFiles


@dataclass
class Training:
    """Results of a training; names as in RunRecord."""

    epochs: list[dict[str, float]]
    seconds: float
    """Without evaluations."""
    evaluate_seconds: float
    steps: int
    """Of the whole training, resumed or not."""
    train_loss: float | None = None
    """Mean over all steps."""
    resumed_at_step: int | None = None
    tokens_per_second: float | None = None
    """None where the order of the examples is the library's own, or the training was resumed."""
    padding_share: float | None = None
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    """Split -> the evaluation of the final model; empty if it was not evaluated at the last step."""


def freeze(model: PreTrainedModel, layers: tuple[int, ...], embeddings: bool) -> None:
    """Exclude layers (ids in the model's own numbering), or the embeddings, from training."""
    if layers and family_of(model.config).shared:
        raise UserError(
            "--freeze_layers: this model's layers share their weights, so none can be frozen alone. Leave it out."
        )
    for i in layers:
        layer_list(model)[i].requires_grad_(False)
    if embeddings:
        base = model.base_model
        getattr(base, "embeddings", base.get_input_embeddings()).requires_grad_(False)


def train(
    model: PreTrainedModel,
    args: TrainingArguments,
    data: Tokenised,
    collate: Collator,
    objective: Objective,
    *,
    development: Development | None = None,
    tokenizer=None,
    save: bool = True,
    no_speedups: bool = False,
    rolling_checkpoints: bool = True,
    resume_from: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Training:
    """Train a model in place, and save it into args.output_dir if `save`.

    no_speedups: without speed-ups. resume_from: a checkpoint's folder. callbacks: hear of the training's events. Raises
    UserError for less than one batch with `dataloader_drop_last`, FloatingPointError where training diverged,
    Interrupted where the user stopped it.
    """
    if args.dataloader_drop_last and len(data) < (batch := args.train_batch_size * args.world_size):
        raise UserError(
            f"--dataloader_drop_last: the training set has {len(data)} rows, fewer than one batch of {batch}. Leave it "
            "out, or lower --per_device_train_batch_size."
        )
    log, interrupt = EpochLog(), Interrupt(rolling_checkpoints)
    resumed_at_step = None if resume_from is None else _step(resume_from)  # later checkpoints take its place
    make = partial(
        FineTuner,
        model,
        args,
        collate,
        train=data,
        objective=objective,
        development=development if args.eval_strategy != "no" else None,
        tokenizer=tokenizer,
        callbacks=[log, interrupt, *([objective] if isinstance(objective, TrainerCallback) else []), *callbacks],
        record=not no_speedups and can_capture(model, args, objective),
    )
    used_ids = data.columns["input_ids"]
    if tokenizer is not None:  # its padding id can differ from the configuration's
        used_ids = np.append(used_ids, tokenizer.pad_token_id)
    with speedups(model, args, train=True, no_speedups=no_speedups, used_ids=used_ids), head_in_fp32(model):
        trainer = build_trainer(make)
        try:
            seconds, loss = _run(trainer, interrupt, resume_from)
        finally:
            make_ordinary(model, trainer)
    if save:
        save_model(trainer)
    result = Training(log.entries, seconds, trainer.evaluate_seconds, trainer.state.global_step, loss)
    result.resumed_at_step = resumed_at_step
    if resume_from is None and trainer.sampler is not None and trainer.sampler.tokens:
        result.tokens_per_second = trainer.sampler.tokens / seconds
        result.padding_share = 1 - trainer.sampler.tokens / trainer.sampler.padded_tokens
    if trainer.last.step == trainer.state.global_step and not args.load_best_model_at_end:
        result.evaluations = trainer.last.by_split
    return result


def _run(trainer: FineTuner, interrupt: Interrupt, resume_from: str | None) -> tuple[float, float]:
    """Train to the end. Returns (seconds without evaluations, mean loss of all steps)."""
    start = time.perf_counter()
    try:
        with _errors_for_users(resume_from):
            result = trainer.train(resume_from_checkpoint=resume_from)
    finally:
        interrupt.restore_signals()
    if not math.isfinite(result.training_loss):
        raise FloatingPointError(
            "the training loss is not finite: training diverged. Try a lower --learning_rate or --precision fp32"
        )
    seconds = time.perf_counter() - start - trainer.evaluate_seconds
    return seconds, trainer.losses.mean(result.training_loss, trainer.state.global_step)


@contextmanager
def _errors_for_users(resume_from: str | None) -> Iterator[None]:
    try:
        yield
    except ImportError as error:  # a package that --optim needs
        raise UserError(" ".join(str(error).split())) from error
    except (EOFError, UnpicklingError, SafetensorError, JSONDecodeError) as error:
        raise UserError(
            f"--resume_from_checkpoint {resume_from}: is damaged ({type(error).__name__}). Give an older "
            "checkpoint, or start again with --overwrite_output_dir."
        ) from error


def save_model(trainer: FineTuner) -> None:
    """Write the model, its tokenizer and the library's settings into the run's folder, with ordinary permissions."""
    if not trainer.is_world_process_zero():
        trainer.save_model(_internal_call=True)  # this process takes part but writes nothing
        return
    with OwnFiles(trainer.args.output_dir).saving() as folder:
        trainer.save_model(str(folder), _internal_call=True)
        trainer.state.save_to_json(str(folder / "trainer_state.json"))
    if trainer.args.push_to_hub:
        trainer.push_to_hub(commit_message="Model save")


def _step(checkpoint: str) -> int:
    return json.loads(Path(checkpoint, "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
