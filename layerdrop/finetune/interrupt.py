"""Decide when to write checkpoints, and stop a training with a checkpoint."""

import math
import signal
import sys
import threading
import time

from tqdm.auto import tqdm
from transformers import TrainerCallback

CHECKPOINT_SECONDS = 60.0
"""Minimum seconds between a rolling checkpoint at the end of an epoch and the checkpoint before it."""
WITHIN_EPOCH_SECONDS = 600.0
"""The same for a rolling checkpoint within an epoch."""
CHECKPOINT_SHARE = 0.05
"""Maximum share of the time that rolling checkpoints take: on a slow disk, they are written less often."""


class Interrupted(KeyboardInterrupt):
    """The user stopped the training. `checkpoint` is the folder of its last checkpoint."""

    def __init__(self, checkpoint: str):
        super().__init__(f"stopped at {checkpoint}")
        self.checkpoint = checkpoint


class Interrupt(TrainerCallback):
    """On SIGINT or SIGTERM: finish the step, write a checkpoint, raise Interrupted. A second signal stops at once.

    Only a run of one process handles the signals. At the end of an epoch, the checkpoint is written after the
    evaluation and contains its results. rolling: write few checkpoints, which are only for resuming.
    """

    def __init__(self, rolling: bool):
        self.rolling = rolling
        self.stop_requested = False
        """Whether the user asked to stop."""
        self.save_at_epoch_end = False
        """Whether on_epoch_end writes the checkpoint of the epoch's last step."""
        self.saved = time.monotonic()
        """Time of the last checkpoint, or of the start."""
        self.saving = self.saved
        """Time at which the next checkpoint begins, if one is written."""
        self.wait = CHECKPOINT_SECONDS
        """Seconds until the next rolling checkpoint."""
        self.old_handlers = {}

    def on_train_begin(self, args, state, control, **kwargs):
        """Install the handlers of both signals."""
        if args.world_size == 1 and threading.current_thread() is threading.main_thread():
            self.old_handlers = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, number, frame):
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True
        tqdm.write("stopping after this step with a checkpoint (a second Ctrl-C stops at once) ...", file=sys.stderr)

    def on_step_end(self, args, state, control, train_dataloader=None, **kwargs):
        """Write a checkpoint if the user asked to stop, or a rolling checkpoint within a long epoch.

        At the last step of an epoch, on_epoch_end writes it.
        """
        self.saving = time.monotonic()
        steps_per_epoch = math.ceil(len(train_dataloader) / args.gradient_accumulation_steps)
        if state.global_step % steps_per_epoch:
            due = self.saving - self.saved >= max(WITHIN_EPOCH_SECONDS, self.wait)
            rolling = self.rolling and args.world_size == 1 and state.global_step < state.max_steps
            control.should_save |= self.stop_requested or (rolling and due)
        else:
            self.save_at_epoch_end, control.should_save = control.should_save, False

    def on_epoch_end(self, args, state, control, **kwargs):
        """Skip a rolling checkpoint at the end of training, or within `wait` seconds of the last checkpoint."""
        self.saving = time.monotonic()
        soon = args.world_size == 1 and self.saving - self.saved < self.wait
        if self.stop_requested or self.save_at_epoch_end:
            control.should_save, self.save_at_epoch_end = True, False
        elif self.rolling and (soon or state.global_step >= state.max_steps):
            control.should_save = False

    def on_evaluate(self, args, state, control, **kwargs):
        """The Trainer evaluates before it writes a checkpoint."""
        self.saving = time.monotonic()

    def on_save(self, args, state, control, **kwargs):
        """Raise Interrupted after the checkpoint is written if the user asked to stop."""
        self.saved = time.monotonic()
        self.wait = max(CHECKPOINT_SECONDS, (self.saved - self.saving) / CHECKPOINT_SHARE)
        if self.stop_requested:
            raise Interrupted(f"{args.output_dir}/checkpoint-{state.global_step}")

    def restore_signals(self) -> None:
        """Restore the former handlers of both signals."""
        for number, handler in self.old_handlers.items():
            signal.signal(number, handler)
        self.old_handlers.clear()
