"""When checkpoints to resume from are written, and how a training stops with one."""

import math
import signal
import sys
import threading
import time

from tqdm.auto import tqdm
from transformers import TrainerCallback

from layerdrop.errors import UserError

CHECKPOINT_SECONDS = 60.0
"""Seconds. Checkpoints that only serve to resume are written at the end of an epoch, and no closer together than
this."""


class Interrupted(KeyboardInterrupt):
    """The user asked to stop; the last checkpoint is `checkpoint`."""

    def __init__(self, checkpoint: str):
        super().__init__(f"stopped at {checkpoint}")
        self.checkpoint = checkpoint


class Interrupt(TrainerCallback):
    """On SIGINT or SIGTERM (in a run of one process) finishes the step, writes a checkpoint, raises Interrupted.

    At the last step of an epoch, evaluation precedes any checkpoint, so that the checkpoint holds the epoch's results.
    A second signal stops at once. rolling: checkpoints only serve to resume, so that few are written.
    """

    def __init__(self, rolling: bool):
        self.rolling = rolling
        self.asked = self.due = False
        """Whether a stop was asked for; whether a checkpoint is due at the end of the epoch."""
        self.saved = time.monotonic()
        """When the last checkpoint was written, or else training began."""
        self.old_handlers = {}

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        """Take over the two signals; refuse an optimizer state of other parameters."""
        _check_state(optimizer)
        if args.world_size > 1 or threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self.old_handlers[number] = signal.signal(number, self._ask)

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        tqdm.write("stopping after this step, with a checkpoint (again: at once) ...", file=sys.stderr)

    def on_step_end(self, args, state, control, train_dataloader=None, **kwargs):
        """Ask for a checkpoint where a stop was asked for; at the end of an epoch on_epoch_end does."""
        steps_per_epoch = math.ceil(len(train_dataloader) / args.gradient_accumulation_steps)
        if state.global_step % steps_per_epoch:
            control.should_save |= self.asked
        else:
            self.due, control.should_save = control.should_save, False

    def on_epoch_end(self, args, state, control, **kwargs):
        """Skip a rolling checkpoint at the end of training, and soon after the last one."""
        soon = args.world_size == 1 and time.monotonic() - self.saved < CHECKPOINT_SECONDS
        if self.asked or self.due:
            control.should_save, self.due = True, False
        elif self.rolling and (soon or state.global_step >= state.max_steps):
            control.should_save = False

    def on_save(self, args, state, control, **kwargs):
        """Stop after the checkpoint, if the user has asked to."""
        self.saved = time.monotonic()
        if self.asked:
            raise Interrupted(f"{args.output_dir}/checkpoint-{state.global_step}")

    def restore_signals(self) -> None:
        """Restore the former handlers of SIGINT and SIGTERM."""
        for number, handler in self.old_handlers.items():
            signal.signal(number, handler)
        self.old_handlers.clear()


def _check_state(optimizer) -> None:
    """Raise UserError where a state has another shape than its parameter: AdamW would read past its end."""
    for parameter, state in optimizer.state.items():
        for value in state.values():
            if getattr(value, "ndim", 0) and value.shape != parameter.shape:
                raise UserError(
                    "--resume_from_checkpoint: the optimizer's state is that of other training data or another "
                    "version. Start again with --overwrite_output_dir."
                )
