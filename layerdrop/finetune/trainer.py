"""The library's Trainer with length-grouped batches, this project's evaluation and any objective."""

import json
import math
import time
from collections.abc import Sequence
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import seed_worker

from layerdrop.data.batches import Collator, LengthGroupedSampler
from layerdrop.data.tasks import metric_prefix
from layerdrop.data.tokens import TokenizedDataset
from layerdrop.errors import UserError
from layerdrop.finetune.evaluate import Evaluation, Evaluator
from layerdrop.finetune.interrupt import Interrupt
from layerdrop.finetune.log import Bar, LogLine, Losses, log_entries
from layerdrop.finetune.objectives import Objective
from layerdrop.finetune.speedups.capture import CapturedSteps, can_capture
from layerdrop.finetune.tracking import log_to, tracking
from layerdrop.loading import quiet
from layerdrop.system.faults import fault
from layerdrop.system.own_files import OwnFiles


class OneGPU(TrainingArguments):
    """The library's settings, limited to one GPU for each process.

    Pickling (training_args.bin) gives an object of the library's class, without access tokens.
    """

    def __reduce__(self) -> tuple:
        """Pickle as TrainingArguments without access tokens."""
        plain = object.__new__(TrainingArguments)
        vars(plain).update({name: None if name.endswith("_token") else value for name, value in vars(self).items()})
        return plain.__reduce_ex__(1)  # later protocols require the class of the pickled object

    @property
    def n_gpu(self) -> int:
        """0 or 1. With more GPUs, the library would multiply the batch size by their number."""
        return min(1, super().n_gpu)


class FineTuner(Trainer):
    """The library's Trainer with an objective, length-grouped batches and this project's evaluation.

    Create and train it inside the same `speedups` block: the constructor reads settings that the block changes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        data_collator: Collator,
        train_dataset: TokenizedDataset,
        *,
        objective: Objective,
        evaluator: Evaluator | None = None,
        processing_class=None,
        callbacks: Sequence[TrainerCallback] = (),
        capture: bool = False,
        rolling_checkpoints: bool = True,
    ):
        """objective: the loss. evaluator: evaluates by `eval_strategy`; None: no evaluation. capture: execute steps as
        CUDA graphs if CUDA can capture them. rolling_checkpoints: checkpoints are only for resuming.

        Raises UserError for settings that the library rejects, for a missing package, and for a training set smaller
        than one batch with `dataloader_drop_last`.
        """
        if args.dataloader_drop_last and len(train_dataset) < (batch := args.train_batch_size * args.world_size):
            raise UserError(
                f"--dataloader_drop_last: the training set has {len(train_dataset)} rows, fewer than one batch of "
                f"{batch}. Leave it out, or lower --per_device_train_batch_size."
            )
        self.objective, self.evaluator = objective, evaluator if args.eval_strategy != "no" else None
        self.captured = CapturedSteps(super().training_step) if capture and can_capture(model, args) else None
        self.sampler: LengthGroupedSampler | None = None
        self.losses, self.interrupt = Losses(), Interrupt(rolling_checkpoints and args.save_strategy != "no")
        self.seconds = 0.0
        """Seconds of training, without evaluations."""
        self.evaluate_seconds = 0.0
        """Seconds of all evaluations."""
        self.evaluated: tuple[int, dict[str, Evaluation]] = -1, {}
        """Step and results, by split, of the last evaluation."""
        self.train_loss: float | None = None
        """Mean loss over all steps of the training, including the steps before a resumption."""
        self.resumed_at_step: int | None = None
        own = [LogLine(), self.interrupt, *callbacks, self.losses, _Corrections(model.config.pad_token_id)]
        evaluated_on = dict(evaluator.datasets) if self.evaluator else None
        try:
            super().__init__(
                model,
                args,
                data_collator,
                train_dataset=train_dataset,
                eval_dataset=evaluated_on,
                processing_class=processing_class,
                callbacks=own,
            )
        except (ImportError, ValueError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "to be installed" not in str(error):
                raise  # any other error, such as out of memory, is a failure of the run
            raise UserError(" ".join(str(error).split())) from error  # names the package that --report_to needs
        # The loss is a mean over the batch. The library has to divide it by the number of accumulated batches.
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = False
        self.remove_callback(PrinterCallback)
        if self.pop_callback(ProgressCallback):
            self.add_callback(Bar)

    def train(self, resume_from_checkpoint: str | None = None) -> "FineTuner":
        """Train the model in place. Returns this trainer. The trained model is an ordinary model of the library.

        Raises UserError for a damaged checkpoint, FloatingPointError for a diverged training, and Interrupted if the
        user stopped the training.
        """
        if resume_from_checkpoint is not None:
            state = Path(resume_from_checkpoint, "trainer_state.json").read_text(encoding="utf-8")
            self.resumed_at_step = json.loads(state)["global_step"]
        log_to(self.args.output_dir, self.callback_handler.callbacks, self.resumed_at_step)
        start = time.perf_counter()
        try:
            with tracking(self.args):
                loss = super().train(resume_from_checkpoint=resume_from_checkpoint).training_loss
        except ImportError as error:  # names the package that --optim needs
            raise UserError(" ".join(str(error).split())) from error
        except (EOFError, UnpicklingError, SafetensorError, JSONDecodeError) as error:
            if resume_from_checkpoint is None or fault(error):
                raise
            raise UserError(
                f"{resume_from_checkpoint}: the checkpoint is damaged ({type(error).__name__}). Delete this folder, "
                "and repeat the command (a single run: with --resume_from_checkpoint auto)."
            ) from error
        finally:
            self.interrupt.restore_signals()
            if self.captured is not None:
                self.captured.release()
            self._unwrap_model()
        if not math.isfinite(loss):
            raise FloatingPointError(
                "the training loss is not finite: training diverged. Try a lower --learning_rate or --precision fp32"
            )
        self.seconds = time.perf_counter() - start - self.evaluate_seconds
        self.train_loss = self.losses.mean(loss, self.state.global_step)
        return self

    def _unwrap_model(self) -> None:
        """Remove the library's wrapper of the forward pass (mixed precision)."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        for name in ("forward", "_original_forward"):
            vars(self.model).pop(name, None)

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """Split -> the evaluation of the final model; empty if it was not evaluated at the last step."""
        step, by_split = self.evaluated
        return by_split if step == self.state.global_step and not self.args.load_best_model_at_end else {}

    @property
    def epochs(self) -> list[dict[str, float | None]]:
        """Results by logging step: see log_entries."""
        return log_entries(self.state.log_history)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; known after the training."""
        return round(self.state.global_step / self.state.epoch)

    @property
    def throughput(self) -> tuple[float | None, float | None]:
        """(real tokens per second, fraction of padding). None for a resumed training, or without length-grouping."""
        if self.resumed_at_step is not None or self.sampler is None or not self.sampler.tokens:
            return None, None
        return self.sampler.tokens / self.seconds, 1 - self.sampler.tokens / self.sampler.padded_tokens

    def get_train_dataloader(self) -> DataLoader:
        """Batches grouped by length with `group_by_length`; else the library's batches."""
        args, data = self.args, self.train_dataset
        if args.train_sampling_strategy != "group_by_length":
            return super().get_train_dataloader()
        seed, size = args.seed if args.data_seed is None else args.data_seed, self._train_batch_size
        self.sampler = LengthGroupedSampler(data.lengths, size, seed, padded=self.data_collator.length)
        loader = DataLoader(
            data,
            batch_size=size,
            sampler=self.sampler,
            collate_fn=self.data_collator,
            drop_last=args.dataloader_drop_last,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of a step. None after the last step.

        The library would train one more step from a checkpoint of the last step, if this step is within an epoch.
        """
        if self.state.global_step >= self.state.max_steps:
            self._globalstep_last_logged = self.losses.logged_at  # log the loss of the last steps
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """The library's training step, as a CUDA graph if possible."""
        if self.captured is None:
            loss = super().training_step(model, inputs, num_items_in_batch)
        else:
            loss = self.captured(model, inputs)
        self.losses.add(loss)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as the library does.

        The losses include the steps before a resumption: `loss` is the mean over the steps since the last log,
        `train_loss` is the mean over the whole training.
        """
        if "loss" in logs:
            logs["loss"] = self.losses.logged(logs["loss"], self.state)
        if "train_loss" in logs:
            logs["train_loss"] = self.losses.mean(logs["train_loss"], self.state.global_step)
        super().log(logs, start_time)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The objective's loss of a batch."""
        loss = self.objective(model, inputs)
        return (loss, None) if return_outputs else loss

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        """Evaluate every validation split and log the metrics as `eval_accuracy`, or `eval_matched_accuracy` ...

        The result also has the first split's metrics without the prefix of the split. `loss` or `accuracy` can then
        select the best checkpoint of MNLI.
        """
        evaluations = {split: self.evaluator(self.model, split) for split in self.evaluator.datasets}
        self.evaluated = self.state.global_step, evaluations
        self.evaluate_seconds += sum(evaluation.seconds for evaluation in evaluations.values())
        logged = {
            f"{metric_key_prefix}_{metric_prefix(split)}{name}": value
            for split, evaluation in evaluations.items()
            for name, value in evaluation.metrics.items()
        }
        self.log(dict(logged))
        first = next(iter(evaluations.values())).metrics
        values = {f"{metric_key_prefix}_{name}": value for name, value in first.items()} | logged
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model, its tokenizer and the library's settings into a folder, without a progress bar."""
        with quiet():
            super().save_model(output_dir, _internal_call)

    def save_run(self) -> None:
        """Write the model, its tokenizer, the library's settings and its state into the run's folder."""
        if not self.is_world_process_zero():
            self.save_model(_internal_call=True)  # this process takes part but writes nothing
            return
        with OwnFiles(self.args.output_dir).saving() as folder:
            self.save_model(str(folder), _internal_call=True)
            self.state.save_to_json(str(folder / "trainer_state.json"))
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save")


class _Corrections(TrainerCallback):
    """Correct the library's behavior at the beginning of a training and of an epoch."""

    def __init__(self, pad_token_id: int | None):
        """pad_token_id: the padding id in the model's configuration."""
        self.pad_token_id = pad_token_id

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        """Restore the padding id, and reject an optimizer state with other shapes than the parameters.

        The library replaces the padding id by the tokenizer's, but RoBERTa counts positions from the model's. AdamW
        would read past the end of a smaller state.
        """
        model.config.pad_token_id = self.pad_token_id
        for parameter, moments in optimizer.state.items():
            for moment in moments.values():
                if getattr(moment, "ndim", 0) and moment.shape != parameter.shape:
                    raise UserError(
                        f"{args.output_dir}: the optimizer's state belongs to other training data or another version. "
                        "Delete the checkpoint folders, and repeat the command (a single run: with "
                        "--resume_from_checkpoint auto)."
                    )

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Set the sampler's epoch. The library omits this if several processes resume within an epoch."""
        train_dataloader.set_epoch(int(state.epoch))
