"""The log of a training, for the record and the terminal."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_pt_utils import nested_gather

TECHNICAL = ("_runtime", "_per_second", "_preparation_time")
"""Suffixes of the library's speed metrics."""


def result_name(logged: str) -> str:
    """The record's name for a value that the library logs. Empty for values of speed and progress."""
    if logged == "loss":
        return "train_loss"
    return logged.removeprefix("eval_") if logged.startswith("eval_") and not logged.endswith(TECHNICAL) else ""


def log_entries(history: Iterable[Mapping[str, Any]]) -> list[dict[str, float | None]]:
    """Results by logging step: `step`, `epoch`, `train_loss`, and `loss` and metrics on the validation set.

    history: `TrainerState.log_history`, which has an entry for each call of `Trainer.log`.
    """
    entries: dict[int, dict[str, float | None]] = {}
    for logs in history:
        if results := {name: value for logged, value in logs.items() if (name := result_name(logged))}:
            start = {"step": logs["step"], "epoch": round(logs.get("epoch") or 0.0, 4)}
            entries.setdefault(logs["step"], start).update(results)
    return list(entries.values())


class LogLine(TrainerCallback):
    """Print the results of each logging step on one line."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Print the results. A training loss is printed together with the evaluation of the same step."""
        evaluates = control.should_evaluate and "loss" in logs
        if not state.is_world_process_zero or evaluates or not any(map(result_name, logs)):
            return
        entry = log_entries(state.log_history[-2:])[-1]  # a step logs its loss and its evaluation
        results = "  ".join(f"{name} {value:.4f}" for name, value in entry.items() if name not in ("step", "epoch"))
        tqdm.write(f"{_position(args, state)}: {results}", file=sys.stderr)


class Bar(ProgressCallback):
    """The library's progress bar without results. LogLine prints the results."""

    def on_log(self, *args, **kwargs):
        """Print nothing."""


def _position(args, state) -> str:
    if args.max_steps > 0:
        return f"step {state.global_step} of {state.max_steps}"
    return f"epoch {state.epoch:.3g} of {args.num_train_epochs:g}"


class Losses(TrainerCallback):
    """Save the losses since the last log with every checkpoint.

    The mean losses of a resumed epoch and of the whole training then include all steps.
    """

    KEY = "losses_since_log"
    """Key in TrainerState.stateful_callbacks. Values: `step`, number of `steps` since the last log, `sum` of their
    losses."""

    def __init__(self):
        self.sum: torch.Tensor | float = 0.0
        """Sum over the steps since training began or resumed, or since the last log."""
        self.carried, self.steps = 0.0, 0
        """Sum and number of the losses between the last log and the checkpoint."""
        self.earlier, self.known = 0.0, 0
        """Sum and number of all losses before the checkpoint."""

    def add(self, loss: torch.Tensor) -> None:
        """Count the loss of a batch, a scalar."""
        self.sum = self.sum + loss

    def on_train_begin(self, args, state, control, **kwargs):
        """Read the losses of the checkpoint that the training resumes from."""
        saved = state.stateful_callbacks.pop(self.KEY, None)
        if saved and saved["step"] == state.global_step:
            self.carried, self.steps = saved["sum"], saved["steps"]
        self.began, self.logged_at = state.global_step, state.global_step - self.steps
        for entry in state.log_history:
            if "loss" in entry:
                self.earlier += entry["loss"] * (entry["step"] - self.known)
                self.known = entry["step"]
        self.earlier, self.known = self.earlier + self.carried, self.known + self.steps

    def on_step_end(self, args, state, control, **kwargs):
        """Save the sum if a checkpoint may be written."""
        if control.should_save or control.should_evaluate:
            new = nested_gather(torch.as_tensor(self.sum, device=args.device), args.parallel_mode).mean().item()
            saved = {"sum": self.carried + new, "steps": state.global_step - self.logged_at, "step": state.global_step}
            state.stateful_callbacks[self.KEY] = saved

    on_epoch_end = on_step_end

    def logged(self, loss: float, state: TrainerState) -> float:
        """The mean loss since the last log. loss: mean over the steps since the last log or the resumption."""
        steps = state.global_step - self.logged_at
        mean = (self.carried + loss * (steps - self.steps)) / steps if self.steps else loss
        self.sum, self.carried, self.steps, self.logged_at = 0.0, 0.0, 0, state.global_step
        state.stateful_callbacks.pop(self.KEY, None)
        return mean

    def mean(self, loss: float, step: int) -> float:
        """The mean loss of the whole training. loss: mean since the training began or resumed. step: the last step."""
        now = step - self.began
        return (self.earlier + loss * now) / (self.known + now) if self.known else loss
