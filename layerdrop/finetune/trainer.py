"""The library's Trainer with batches of like length, this project's evaluation and any objective."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import seed_worker

from layerdrop.data.batches import Collator, LengthGroupedSampler
from layerdrop.data.tasks import Task
from layerdrop.data.tokens import Tokenised
from layerdrop.errors import UserError
from layerdrop.finetune.evaluate import Evaluation, evaluate
from layerdrop.finetune.log import Bar, Losses
from layerdrop.finetune.objective import Objective
from layerdrop.finetune.speedups.capture import CapturedSteps
from layerdrop.loading import quiet


class OneGPU(TrainingArguments):
    """The library's settings, limited to one GPU for each process.

    The pickle (training_args.bin) is an object of the library's own class without secrets.
    """

    def __reduce__(self) -> tuple:
        """A TrainingArguments without tokens."""
        plain = object.__new__(TrainingArguments)
        vars(plain).update({name: None if name.endswith("_token") else value for name, value in vars(self).items()})
        return plain.__reduce_ex__(1)  # later protocols insist on the class of the pickled object

    @property
    def n_gpu(self) -> int:
        """0 or 1. The library would use all GPUs, with a batch for each: another recipe."""
        return min(1, super().n_gpu)


@dataclass(frozen=True)
class Development:
    """The development splits, and how to evaluate on them: keyword arguments of `evaluate`."""

    task: Task
    splits: Mapping[str, Tokenised]
    """`validation`; for MNLI `validation_matched`, `validation_mismatched`."""
    collate: Collator
    batch_size: int = 32
    precision: str = "fp32"
    task_ids: np.ndarray | None = None

    def evaluate(self, model: PreTrainedModel, split: str) -> Evaluation:
        """One pass over a split."""
        return evaluate(
            model,
            self.splits[split],
            self.task,
            self.collate,
            batch_size=self.batch_size,
            precision=self.precision,
            task_ids=self.task_ids,
        )


def prefix(split: str) -> str:
    """What distinguishes the metrics of one of several splits: `validation_matched` -> `matched_`; else empty."""
    suffix = split.partition("_")[2]
    return f"{suffix}_" if suffix else ""


@dataclass
class Evaluations:
    """The evaluations of one training step."""

    step: int = -1
    by_split: dict[str, Evaluation] = field(default_factory=dict)


class FineTuner(Trainer):
    """The library's Trainer, changed through its public methods alone.

    objective: the loss. development: evaluated when the settings say so; None: never. record: execute steps as CUDA
    graphs.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        collate: Collator,
        *,
        train: Tokenised,
        objective: Objective,
        development: Development | None = None,
        tokenizer=None,
        callbacks=(),
        record: bool = False,
    ):
        self.objective, self.development = objective, development
        self.recorded = CapturedSteps(super().training_step) if record else None
        self.sampler: LengthGroupedSampler | None = None
        self.last, self.losses = Evaluations(), Losses()
        self.evaluate_seconds = 0.0
        super().__init__(
            model,
            args,
            collate,
            train_dataset=train,
            eval_dataset=dict(development.splits) if development else None,
            processing_class=tokenizer,
            callbacks=[*callbacks, self.losses, _NameEpoch(), _KeepPadding(model.config.pad_token_id)],
        )
        # The loss is a mean over the batch: it is divided by the number of accumulated batches, and neither that nor
        # the number of processes is in it already.
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = False

    def get_train_dataloader(self) -> DataLoader:
        """Batches of like length where the settings say so; else the library's."""
        args, data = self.args, self.train_dataset
        if args.train_sampling_strategy != "group_by_length":
            return super().get_train_dataloader()
        seed = args.seed if args.data_seed is None else args.data_seed
        self.sampler = LengthGroupedSampler(
            data.lengths, self._train_batch_size, seed, padded=self.data_collator.length
        )
        loader = DataLoader(
            data,
            batch_size=self._train_batch_size,
            sampler=self.sampler,
            collate_fn=self.data_collator,
            drop_last=args.dataloader_drop_last,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
        )
        return self.accelerator.prepare(loader)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """The library's, or its recording."""
        if self.recorded is None:
            loss = super().training_step(model, inputs, num_items_in_batch)
        else:
            loss = self.recorded(model, inputs)
        self.losses.add(loss)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as the library does, with the mean loss over all steps since the last log, including before resuming."""
        if "loss" in logs:
            logs["loss"] = self.losses.logged(logs["loss"], self.state)
        super().log(logs, start_time)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The objective's loss of a batch."""
        loss = self.objective(model, inputs)
        return (loss, None) if return_outputs else loss

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model, its tokenizer and the library's settings into a folder, without a progress bar."""
        with quiet():
            super().save_model(output_dir, _internal_call)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        """Evaluate every development split and log the metrics as `eval_accuracy`, or `eval_matched_accuracy` ...

        The result also has the first split's metrics without its prefix: the best checkpoint can be chosen by `loss` or
        `accuracy` for MNLI too.
        """
        found = {split: self.development.evaluate(self.model, split) for split in self.development.splits}
        self.last = Evaluations(self.state.global_step, found)
        self.evaluate_seconds += sum(evaluation.seconds for evaluation in found.values())
        logged = {
            f"{metric_key_prefix}_{prefix(split)}{name}": value
            for split, evaluation in found.items()
            for name, value in evaluation.metrics.items()
        }
        self.log(dict(logged))
        first = next(iter(found.values())).metrics
        values = {f"{metric_key_prefix}_{name}": value for name, value in first.items()} | logged
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values


class _NameEpoch(TrainerCallback):
    """Tells the sampler which epoch begins: the library does not reach it where several processes resume within one."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        train_dataloader.set_epoch(int(state.epoch))


class _KeepPadding(TrainerCallback):
    """Keep the configuration's padding id, which the library replaces by the tokenizer's when training begins.

    RoBERTa counts positions from this id, so the saved model would count from another number.
    """

    def __init__(self, pad_token_id: int | None):
        self.pad_token_id = pad_token_id

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        model.config.pad_token_id = self.pad_token_id


def build_trainer(make: Callable[[], FineTuner]) -> FineTuner:
    """Build a FineTuner that prints only a progress bar.

    Raises UserError for settings that the library refuses, and for a missing package.
    """
    try:
        trainer = make()
    except (ImportError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "to be installed" not in str(error):
            raise  # too little memory, for example, is a failure of the run
        raise UserError(" ".join(str(error).split())) from error  # the package that --report_to needs
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(Bar)
    return trainer


def make_ordinary(model: PreTrainedModel, trainer: Trainer) -> None:
    """Undo what the Trainer put around the model's forward pass (mixed precision)."""
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    for name in ("forward", "_original_forward"):
        vars(model).pop(name, None)
