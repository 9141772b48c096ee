"""The log of a training, for the record and the terminal."""

import sys

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_pt_utils import nested_gather

TECHNICAL = ("_runtime", "_per_second", "_preparation_time")
"""Endings of the library's names for measurements of speed."""


class EpochLog(TrainerCallback):
    """Keeps results in `entries`, one for each step of logging, and prints each once it is complete."""

    def __init__(self):
        self.entries: list[dict[str, float]] = []
        """`step`, `epoch`, `train_loss`; `loss` and metrics on the development set."""
        self.training = False

    def on_train_begin(self, args, state, control, **kwargs):
        """Take over the log of the checkpoint that training resumes from."""
        self.training = True
        for logs in state.log_history:
            self._keep(logs["step"], logs.get("epoch"), logs)

    def on_train_end(self, args, state, control, **kwargs):
        """Later measurements belong to no epoch."""
        self.training = False

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep the results, and print them on one line with the development set's."""
        if not self.training or not state.is_world_process_zero:
            return
        if not self._keep(state.global_step, state.epoch, logs or {}):
            return
        if not (control.should_evaluate and "loss" in logs):
            tqdm.write(f"{_position(args, state)}: {_words(self.entries[-1])}", file=sys.stderr)

    def _keep(self, step: int, epoch: float | None, logs: dict[str, float]) -> bool:
        """Add the results among `logs` to the entry of a step; False if there are none."""
        results = {name: value for logged, value in logs.items() if (name := result_name(logged))}
        if not results:
            return False
        if not self.entries or self.entries[-1]["step"] != step:
            self.entries.append({"step": step, "epoch": round(epoch or 0.0, 4)})
        self.entries[-1] |= results
        return True


class Losses(TrainerCallback):
    """Save the losses since the last log with every checkpoint.

    With them, the losses of a resumed epoch and of the whole training are means over all steps.
    """

    KEY = "losses_since_log"
    """In TrainerState.stateful_callbacks: `step`, `steps` since the last log, and the `sum` of their losses."""

    def __init__(self):
        self.sum: torch.Tensor | float = 0.0
        """Sum over the steps since training began or resumed, or since the last log."""
        self.carried, self.steps = 0.0, 0
        """Sum of the losses, and number, of the steps between the last log and the checkpoint."""
        self.earlier, self.known = 0.0, 0
        """The same for all steps before the checkpoint."""

    def add(self, loss: torch.Tensor) -> None:
        """Count the loss of a batch, a scalar."""
        self.sum = self.sum + loss

    def on_train_begin(self, args, state, control, **kwargs):
        """Take over the losses of the checkpoint that training resumes from."""
        self.began = self.logged_at = state.global_step
        last = 0
        for entry in state.log_history:
            if "loss" in entry:
                self.earlier, last = self.earlier + entry["loss"] * (entry["step"] - last), entry["step"]
        kept = state.stateful_callbacks.pop(self.KEY, None)
        if kept and kept["step"] == state.global_step:
            self.carried, self.steps = kept["sum"], kept["steps"]
            self.logged_at -= self.steps
        self.earlier, self.known = self.earlier + self.carried, last + self.steps

    def on_step_end(self, args, state, control, **kwargs):
        """Keep the sum where a checkpoint may be written."""
        if control.should_save or control.should_evaluate:
            here = nested_gather(torch.as_tensor(self.sum, device=args.device), args.parallel_mode).mean().item()
            kept = {"sum": self.carried + here, "steps": state.global_step - self.logged_at, "step": state.global_step}
            state.stateful_callbacks[self.KEY] = kept

    on_epoch_end = on_step_end

    def logged(self, loss: float, state: TrainerState) -> float:
        """The mean loss since the last log. loss: mean over its steps after training resumed."""
        step, mean = state.global_step, loss
        if self.steps:
            now = step - self.logged_at - self.steps
            mean = (self.carried + loss * now) / (step - self.logged_at)
        self.sum, self.carried, self.steps, self.logged_at = 0.0, 0.0, 0, step
        state.stateful_callbacks.pop(self.KEY, None)
        return mean

    def mean(self, loss: float, step: int) -> float:
        """The mean loss of a whole training. loss: mean over the steps since it began or resumed. step: last step."""
        now = step - self.began
        return (self.earlier + loss * now) / (self.known + now) if self.known else loss


class Bar(ProgressCallback):
    """The library's progress bar; EpochLog writes the results."""

    def on_log(self, *args, **kwargs):
        """Write nothing."""


def result_name(logged: str) -> str:
    """The record's name for a value that the library logs; empty for speed and progress."""
    if logged == "loss":
        return "train_loss"
    return logged.removeprefix("eval_") if logged.startswith("eval_") and not logged.endswith(TECHNICAL) else ""


def _position(args, state) -> str:
    if args.max_steps > 0:
        return f"step {state.global_step} of {state.max_steps}"
    return f"epoch {state.epoch:.3g} of {args.num_train_epochs:g}"


def _words(entry: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in entry.items() if name not in ("step", "epoch"))
