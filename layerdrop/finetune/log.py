"""The log of a training, for the record and the terminal."""

import sys

from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

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
