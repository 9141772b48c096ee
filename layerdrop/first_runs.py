"""Runs whose trained models another run needs: its start and its teacher."""

import sys
from dataclasses import replace
from pathlib import Path

from layerdrop.checkpoints import Checkpoint, HubOptions
from layerdrop.engines.base import Job, Run
from layerdrop.errors import UserError
from layerdrop.progress import Display
from layerdrop.runs.store import Store, find_record, forget_unless_kept, holds_trained, prior_store
from layerdrop.spec import ModelSpec, Options, RunSpec


class FirstRuns:
    """The runs that a run needs first, in its prior store or where its options say."""

    def __init__(self, spec: RunSpec, options: Options, run: Run | None):
        """run: does them, in this process; None where nothing is to be done.

        Raises UserError where the options name a folder without the trained model.
        """
        self.spec, self.options, self.run = spec, options, run
        if options.start and spec.start and not holds_trained(options.start, spec.start):
            raise UserError(
                f"{options.start}: there is no trained model of the run {spec.start.name}. Do that run first."
            )

    def folder(self, first: RunSpec) -> str:
        """The folder of a first run: as the options say; else beside the run, if it is a run of its own that kept its
        model; else in the prior store."""
        if self.options.start and first == self.spec.start:
            return self.options.start
        beside = Path(self.options.folder).parent
        for there in (Store(str(beside)).folder(first), str(beside / first.name)):
            if holds_trained(there, first):
                return there
        return prior_store(self.options).folder(first)

    def open(self, first: RunSpec) -> Checkpoint | None:
        """The trained model of a first run; None before it is trained."""
        folder = self.folder(first)
        return Checkpoint.open(ModelSpec(folder), HubOptions.of(self.options)) if holds_trained(folder, first) else None

    @property
    def teacher(self) -> Checkpoint | None:
        """The trained teacher; None without one, or before it is trained."""
        distil = self.spec.distil
        if distil and distil.teacher:
            return Checkpoint.open(ModelSpec(distil.teacher), HubOptions.of(self.options), "--teacher")
        return self.open(distil.teacher_run) if distil else None

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the trained models that are there: `start`, `teacher`."""
        start = self.open(self.spec.start) if self.spec.start else None
        found = {"start": start, "teacher": self.teacher}
        return {name: checkpoint.fingerprints["model"] for name, checkpoint in found.items() if checkpoint}

    @property
    def cost(self) -> dict[str, float]:
        """Cost of all first runs, and of the runs that they needed: trainings, steps, seconds of training; empty
        without any."""
        records = [find_record(self.folder(first), first) for first in self.spec.firsts]
        costs = [{"trainings": 1, "steps": r.steps, "seconds": r.seconds.get("train", 0.0)} for r in records]
        costs += [record.first for record in records if record.first]
        return {name: sum(cost[name] for cost in costs) for name in costs[0]} if costs else {}

    def do(self) -> None:
        """Do the missing ones, one after the other. Raises UserError if one fails."""
        for first in self.spec.firsts:
            folder, display = self.folder(first), Display(sys.stderr)
            if holds_trained(folder, first):
                display.say(f"takes the trained model of {first.name}, in {folder}")
            else:
                self._do(first, folder, display)

    def _do(self, first: RunSpec, folder: str, display: Display) -> None:
        from layerdrop.engines.in_process import InProcessEngine
        from layerdrop.execute import execute

        if self.spec.processes > 1:
            raise UserError(
                f"{first.name}: this run is needed first, and torchrun does one run at a time. "
                f"Do it with --output_dir {folder}, then this one."
            )
        store = prior_store(self.options).root
        own = replace(quiet_options(self.options), folder=folder, prior_store=store, save_model=True, resume="auto")
        while not holds_trained(folder, first):
            forget_unless_kept(folder, first)
            display.say(f"first the training of {first.name}; its record is in {folder}")
            try:
                failed = execute([Job(first, own)], InProcessEngine(self.run), display.update).failed
            except KeyboardInterrupt:
                raise KeyboardInterrupt("the same command goes on") from None  # not from a checkpoint of this run
            finally:
                display.close()
            if failed:
                raise UserError(f"{first.name}: this run is needed first, and failed. {failed[0][1]}")


def quiet_options(options: Options) -> Options:
    """A run's options for the runs that it does itself: nothing is predicted, reported or sent anywhere."""
    quiet = {"eval_strategy": "no", "disable_tqdm": True, "report_to": []}
    trainer = {name: value for name, value in options.trainer.items() if not name.startswith(("push_to", "hub_"))}
    changes = {"predict": False, "evaluate": True, "test_file": None, "start": None, "notes": ()}
    return replace(options, trainer=trainer | quiet, overwrite=False, rolling_checkpoints=True, **changes)
