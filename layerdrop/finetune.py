"""Fine-tune and evaluate one model on one task, with the library's Trainer."""

import math
import signal
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from json import JSONDecodeError
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from layerdrop import metrics
from layerdrop.architectures import family_of
from layerdrop.cpu import keep_freed_memory, use_fast_dropout
from layerdrop.data import Collator, LengthGroupedSampler, Tokenised
from layerdrop.errors import UserError
from layerdrop.first_token import compute_first_token_alone
from layerdrop.gpu import do_not_wait
from layerdrop.runs import umask
from layerdrop.surgery import layer_list, quiet
from layerdrop.tasks import Task
from layerdrop.vocabulary import UsedVocabulary, may_leave_rows_out


@dataclass
class Outcome:
    """What fine-tuning and evaluation gave; names as in RunRecord."""

    metrics: dict[str, float] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    tokens_per_second: float | None = None
    padding_share: float | None = None
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    """Split -> (n,) class ids (in the task's order) or values, in the order of the source."""


class Interrupted(KeyboardInterrupt):
    """The user asked to stop; the last checkpoint is `checkpoint`."""

    def __init__(self, checkpoint: str):
        super().__init__(f"stopped at {checkpoint}")
        self.checkpoint = checkpoint


def freeze(model: PreTrainedModel, layers: tuple[int, ...], embeddings: bool) -> None:
    """Leave these layers (ids in the model's own numbering), or the embeddings, out of fine-tuning."""
    if layers and family_of(model.config).shared:
        raise UserError(
            "--freeze_layers: this model's layers share their weights, so none can be frozen alone. Leave it out."
        )
    for i in layers:
        layer_list(model)[i].requires_grad_(False)
    if embeddings:
        base = model.base_model
        getattr(base, "embeddings", base.get_input_embeddings()).requires_grad_(False)


@dataclass
class Evaluation:
    """One pass over a split: at which training step, predictions in the dataset's order, metrics without prefix."""

    step: int
    seconds: float
    predictions: np.ndarray
    metrics: dict[str, float]


class FineTuner(Trainer):
    """The library's Trainer with batches of like length, and with evaluation results kept.

    task_ids: (classes,) the task's class id for each of the model's, where the checkpoint has an order of its own.
    vocabulary: where the model has only some rows of its embedding; what is evaluated, saved and loaded has all.
    """

    def __init__(
        self,
        *args,
        task: Task,
        task_ids: np.ndarray | None = None,
        vocabulary: UsedVocabulary | None = None,
        **kwargs,
    ):
        self.task, self.task_ids, self.vocabulary = task, task_ids, vocabulary
        self.sampler: LengthGroupedSampler | None = None
        self.results: dict[str, Evaluation] = {}
        """Metric prefix -> the last evaluation."""
        self.evaluate_seconds = 0.0
        super().__init__(*args, compute_metrics=self.score, **kwargs)
        # The classifiers' loss is a mean over the batch, whatever the library takes it for from their signature: it
        # would multiply the loss by the number of processes, and not divide it by that of accumulated batches.
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset: Tokenised | None = None):
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        padded = self.data_collator.length
        self.sampler = LengthGroupedSampler(dataset.lengths, self.args.train_batch_size, seed, padded=padded)
        return self.sampler

    def _get_eval_sampler(self, eval_dataset: Tokenised):
        """In the dataset's own order, in which predictions are read: the library would group by length at random."""
        return torch.utils.data.SequentialSampler(eval_dataset)

    def _clip_grad_norm(self, model):
        """As in the library; on a CPU gradients that are short enough are not multiplied by 1."""
        if self.args.device.type != "cpu" or self.args.world_size > 1:
            return super()._clip_grad_norm(model)
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not norm <= self.args.max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), self.args.max_grad_norm, norm)
        return norm

    def save_model(self, *args, **kwargs):
        """As in the library, without its progress bars."""
        with quiet(), self._whole_vocabulary():
            super().save_model(*args, **kwargs)
        for path in Path(args[0] if args and args[0] else self.args.output_dir).glob("*.safetensors"):
            path.chmod(0o666 & ~umask())  # written readable for the owner alone

    def _whole_vocabulary(self):
        return self.vocabulary.whole() if self.vocabulary else nullcontext()

    def _load_from_checkpoint(self, *args, **kwargs):
        with self._whole_vocabulary():
            super()._load_from_checkpoint(*args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None):
        """As in the library; one that is of other rows of the embedding is refused: AdamW would read past its end."""
        super()._load_optimizer_and_scheduler(checkpoint)
        weight = self.vocabulary.embedding.weight if self.vocabulary else None
        moments = self.optimizer.state.get(weight, {}).values()
        if any(torch.is_tensor(moment) and moment.dim() and moment.shape != weight.shape for moment in moments):
            raise UserError(
                f"--resume_from_checkpoint {checkpoint}: its optimizer has seen other training data, or is of an older "
                "version. Start again with --overwrite_output_dir."
            )

    def _load_best_model(self):
        with self._whole_vocabulary():
            super()._load_best_model()

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """(n, classes) logits -> (n,) class ids in the task's order; (n, 1) -> (n,) values."""
        logits = logits[0] if isinstance(logits, tuple) else logits
        if self.task.is_regression:
            return logits.reshape(-1)
        ids = logits.argmax(axis=-1)
        return ids if self.task_ids is None else self.task_ids[ids]

    def score(self, outcome) -> dict[str, float]:
        """The task's metrics of an EvalPrediction."""
        labels = outcome.label_ids
        labels = labels if self.task.is_regression or self.task_ids is None else self.task_ids[labels]
        return metrics.compute(self.task.metrics, self.decide(outcome.predictions), labels)

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs):
        """As in the library; the predictions are kept in `results`, and logits that are not finite are an error.

        The random state is put back afterwards, so that training does not depend on how often it is evaluated.
        """
        start = time.perf_counter()
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices), self._whole_vocabulary():
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        logits = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
        if not np.isfinite(logits).all():
            raise FloatingPointError(
                "the model's outputs are not finite: training diverged. Try a lower --learning_rate or --precision fp32"
            )
        values = {name.removeprefix(f"{metric_key_prefix}_"): v for name, v in output.metrics.items()}
        kept = {name: float(value) for name, value in values.items() if name in ("loss", *self.task.metrics)}
        seconds = time.perf_counter() - start
        predictions = self.decide(output.predictions)
        self.results[metric_key_prefix] = Evaluation(self.state.global_step, seconds, predictions, kept)
        self.evaluate_seconds += seconds
        return output


CHECKPOINT_SECONDS = 60.0
"""Checkpoints that only serve to resume are written at the end of an epoch, and no closer together than this."""


class RunCallback(TrainerCallback):
    """Tells a person what happens, and stops in an orderly way when asked to.

    On SIGINT or SIGTERM (in a run of one process) the step is finished, a checkpoint is written, and Interrupted is
    raised; a second signal stops at once.
    """

    def __init__(self, rolling_checkpoints: bool):
        self.rolling_checkpoints = rolling_checkpoints
        self.asked_to_stop = False
        self.saved = time.monotonic()
        """When the last checkpoint was written, or else training began."""
        self.epochs: list[dict[str, float]] = []
        self.training = False
        self.old_handlers = {}

    def on_train_begin(self, args, state, control, **kwargs):
        """Take over the two signals, and what was logged before the checkpoint that training goes on from."""
        self.training = True
        for logs in state.log_history:
            self._keep(logs.get("epoch"), logs)
        if args.world_size > 1 or threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self.old_handlers[number] = signal.signal(number, self._ask)

    def _ask(self, number, frame):
        if self.asked_to_stop:
            raise KeyboardInterrupt
        self.asked_to_stop = True
        tqdm.write("stopping after this step, with a checkpoint (again: at once) ...", file=sys.stderr)

    def on_step_end(self, args, state, control, **kwargs):
        """Ask for a checkpoint where a stop was asked for."""
        if self.asked_to_stop:
            control.should_save = True

    def on_epoch_end(self, args, state, control, **kwargs):
        """Do without a checkpoint at the very end, when nothing is left to resume, and soon after the last one."""
        soon = args.world_size == 1 and time.monotonic() - self.saved < CHECKPOINT_SECONDS
        if self.rolling_checkpoints and not self.asked_to_stop and (soon or state.global_step >= state.max_steps):
            control.should_save = False

    def on_train_end(self, args, state, control, **kwargs):
        """What is measured from now on belongs to no epoch."""
        self.training = False

    def on_save(self, args, state, control, **kwargs):
        """Stop, now that the checkpoint is written, if that was asked for."""
        self.saved = time.monotonic()
        if self.asked_to_stop:
            raise Interrupted(f"{args.output_dir}/checkpoint-{state.global_step}")

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep what was measured, and print it once it is complete."""
        if not self.training or not state.is_world_process_zero or not self._keep(state.epoch, logs or {}):
            return
        if control.should_evaluate and "loss" in logs:
            return  # the development set's results come at once, on the same line
        entry = self.epochs[-1]
        text = "  ".join(f"{name} {value:.4f}" for name, value in entry.items() if name != "epoch")
        tqdm.write(f"epoch {entry['epoch']:g} of {args.num_train_epochs:g}: {text}", file=sys.stderr)

    def _keep(self, epoch: float | None, logs: dict[str, float]) -> bool:
        """Put the results among what is logged into `epochs`, one entry for each point; whether there were any."""
        results = {_result_name(name): value for name, value in logs.items() if _result_name(name)}
        if not results:
            return False
        entry = {"epoch": round(epoch or 0.0, 2)}
        if self.epochs and self.epochs[-1]["epoch"] == entry["epoch"]:
            entry = self.epochs.pop()
        self.epochs.append(entry | results)
        return True

    def restore_signals(self) -> None:
        """Give SIGINT and SIGTERM back to whoever had them."""
        for number, handler in self.old_handlers.items():
            signal.signal(number, handler)
        self.old_handlers.clear()


class _Bar(ProgressCallback):
    """The library's progress bar; RunCallback writes the results."""

    def on_log(self, *args, **kwargs):
        """Write nothing."""


def _result_name(logged: str) -> str:
    """The record's name for a value that the library logs; empty for what is about speed or progress."""
    if logged == "loss":
        return "train_loss"
    technical = ("_runtime", "_per_second", "_preparation_time")
    return logged.removeprefix("eval_") if logged.startswith("eval_") and not logged.endswith(technical) else ""


def finetune(
    model: PreTrainedModel,
    task: Task,
    tokenizer,
    args,
    *,
    train: Tokenised | None,
    evaluate: dict[str, Tokenised],
    predict: dict[str, Tokenised],
    task_ids: np.ndarray | None = None,
    max_length: int | None = None,
    pad_to_max_length: bool = False,
    rolling_checkpoints: bool = True,
    resume_from: str | None = None,
) -> Outcome:
    """Train on `train` (None: not at all), evaluate on each split of `evaluate`, predict each split of `predict`.

    args: TrainArguments. task_ids: see FineTuner. max_length, pad_to_max_length: as in Collator. resume_from: a
    checkpoint folder. With training and args.save_model, the model is saved into args.output_dir. Raises
    FloatingPointError where training diverged, Interrupted where the user stopped it.
    """
    outcome = Outcome()
    vocabulary = None
    if train is not None and may_leave_rows_out(model, args):
        vocabulary = UsedVocabulary(model, train)
        train = vocabulary.translate(train)
    evaluate = {split: dataset.longest_first() for split, dataset in evaluate.items()}
    prefixes = {split: _prefix(split, len(evaluate)) for split in evaluate}
    sets = {prefix.removeprefix("eval_"): evaluate[split] for split, prefix in prefixes.items()}
    compute_first_token_alone(model)
    if args.device.type != "cpu":
        do_not_wait(model, args)
    elif train is not None:
        keep_freed_memory()
        use_fast_dropout(model)
    callback = RunCallback(rolling_checkpoints)
    trainer = _trainer(
        model,
        args,
        Collator.of(tokenizer, max_length, pad_to_max_length),
        train_dataset=train,
        eval_dataset=(sets if len(sets) > 1 else next(iter(sets.values()), None)),
        processing_class=tokenizer,
        callbacks=[callback],
        task=task,
        task_ids=task_ids,
        vocabulary=vocabulary,
    )
    if train is not None:
        outcome.seconds["train"] = seconds = _train(trainer, callback, resume_from)
        if trainer.sampler is not None and trainer.sampler.tokens and resume_from is None:
            outcome.tokens_per_second = trainer.sampler.tokens / seconds
            outcome.padding_share = 1 - trainer.sampler.tokens / trainer.sampler.padded_tokens
        if args.save_model:
            trainer.save_model()
    if evaluate:
        done = all(
            p in trainer.results and trainer.results[p].step == trainer.state.global_step for p in prefixes.values()
        )
        if not done or args.load_best_model_at_end:
            trainer.evaluate()
        for split, prefix in prefixes.items():
            result = trainer.results[prefix]
            suffix = prefix.removeprefix("eval").lstrip("_")
            outcome.metrics |= {f"{suffix}_{name}" if suffix else name: v for name, v in result.metrics.items()}
            outcome.predictions[split] = _in_source_order(evaluate[split], result.predictions)
        outcome.seconds["evaluate"] = trainer.evaluate_seconds
        outcome.seconds["inference"] = sum(trainer.results[prefix].seconds for prefix in prefixes.values())
    if predict:
        start = time.perf_counter()
        for split, dataset in predict.items():
            dataset = dataset.longest_first()
            trainer.predict(dataset, metric_key_prefix=split)
            outcome.predictions[split] = _in_source_order(dataset, trainer.results[split].predictions)
        outcome.seconds["predict"] = time.perf_counter() - start
    if vocabulary is not None:
        vocabulary.restore()
    outcome.epochs = callback.epochs
    return outcome


def _trainer(*args, **kwargs) -> FineTuner:
    """A FineTuner that prints nothing of its own but a progress bar."""
    try:
        trainer = FineTuner(*args, **kwargs)
    except RuntimeError as error:
        if "to be installed" not in str(error):
            raise  # memory that does not suffice, say, is a failure of the run
        raise UserError(" ".join(str(error).split())) from error  # the package that --report_to needs
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(_Bar)
    return trainer


def _train(trainer: FineTuner, callback: RunCallback, resume_from: str | None) -> float:
    """Train to the end; returns the seconds that took, without those of evaluations."""
    start = time.perf_counter()
    try:
        result = trainer.train(resume_from_checkpoint=resume_from)
    except ImportError as error:  # a package that --optim needs
        raise UserError(" ".join(str(error).split())) from error
    except (EOFError, UnpicklingError, SafetensorError, JSONDecodeError) as error:
        raise UserError(
            f"--resume_from_checkpoint {resume_from}: is damaged ({type(error).__name__}). Give an older "
            "checkpoint, or start again with --overwrite_output_dir."
        ) from error
    finally:
        callback.restore_signals()
    if not math.isfinite(result.training_loss):
        raise FloatingPointError(
            "the training loss is not finite: training diverged. Try a lower --learning_rate or --precision fp32"
        )
    return time.perf_counter() - start - trainer.evaluate_seconds


def _prefix(split: str, n_splits: int) -> str:
    """The Trainer's name for a split: `eval`, or with several (MNLI) `eval_matched`, `eval_mismatched`."""
    return "eval" if n_splits == 1 else "eval_" + split.partition("_")[2]


def _in_source_order(dataset: Tokenised, values: np.ndarray) -> np.ndarray:
    ordered = np.empty_like(values)
    ordered[dataset.rows] = values
    return ordered
