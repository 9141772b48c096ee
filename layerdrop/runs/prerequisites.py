"""Prerequisite runs: the runs whose trained models another run needs, its start and its teacher."""

import sys
from dataclasses import replace

from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.errors import UserError
from layerdrop.runs.inputs import Inputs, quiet_options
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.store import find_record, prior_store
from layerdrop.sweeps.engines.base import Job, Run
from layerdrop.sweeps.progress import Display

ATTEMPTS = 2
"""Maximum number of trainings of a prerequisite run: another process may train it without keeping its model."""


class Prerequisites:
    """The prerequisite runs of a run."""

    def __init__(self, spec: RunSpec, options: Options, run: Run | None, inputs: Inputs):
        """run: executes them in this process; None if nothing may be trained.

        Raises UserError where the options name a folder without the trained model.
        """
        self.spec, self.options, self.run, self.inputs = spec, options, run, inputs
        if options.start and spec.start and not self._status(spec.start).has_model:
            changed = self._status(spec.start).changed
            why = f" ({', '.join(changed)} changed since it was trained)" if changed else ""
            raise UserError(
                f"{options.start}: there is no trained model of the run {spec.start.name}{why}. Do that run first."
            )

    def folder(self, first: RunSpec) -> str:
        """The folder of a prerequisite run: see Inputs.folder."""
        return self.inputs.folder(first, self.spec, self.options)

    def open(self, first: RunSpec) -> Checkpoint | None:
        """The trained model of a prerequisite run; None before it is trained."""
        return self.inputs.trained(first, self.spec, self.options)

    @property
    def teacher(self) -> Checkpoint | None:
        """The trained teacher; None without one, or before it is trained. Raises UserError for an unknown name."""
        distil = self.spec.distil
        if distil and distil.teacher:
            return Checkpoint.open(ModelSpec(distil.teacher), self.options.hub, "--teacher")
        return self.open(self.spec.teacher) if distil else None

    @property
    def cost(self) -> dict[str, float]:
        """Total cost of direct and indirect prerequisite runs: trainings, steps, seconds. Empty without any."""
        records = [find_record(self.folder(first), first) for first in self.spec.prerequisites]
        costs = [{"trainings": 1, "steps": r.steps, "seconds": r.seconds.get("train", 0.0)} for r in records]
        costs += [record.first for record in records if record.first]
        return {name: sum(cost[name] for cost in costs) for name in costs[0]} if costs else {}

    def do(self) -> None:
        """Train the missing prerequisite runs one after the other. Raises UserError if one fails."""
        for first in self.spec.prerequisites:
            folder, display = self.folder(first), Display(sys.stderr)
            if self._status(first).has_model:
                display.say(f"takes the trained model of {first.name}, in {folder}")
            else:
                self._do(first, folder, display)

    def _status(self, first: RunSpec):
        return self.inputs.status(first, self.folder(first), self.options)

    def _do(self, first: RunSpec, folder: str, display: Display) -> None:
        from layerdrop.sweeps.engines.in_process import InProcessEngine
        from layerdrop.sweeps.execute import execute, statuses

        if self.spec.processes > 1:
            raise UserError(
                f"{first.name}: this run is needed first, and torchrun does one run at a time. "
                f"Do it with --output_dir {folder}, then this one."
            )
        store = prior_store(self.options).root
        own = replace(quiet_options(self.options), folder=folder, prior_store=store, save_model=True, resume="auto")
        for _ in range(ATTEMPTS):
            job = Job(first, own)
            if changed := statuses([job], self.inputs)[0].changed:
                job = Job(first, replace(own, overwrite=True))
            again = f" again ({', '.join(changed)} changed since)" if changed else ""
            display.say(f"first the training of {first.name}{again}; its record is in {folder}")
            try:
                failed = execute([job], InProcessEngine(self.run), display.update, inputs=self.inputs).failed
            except KeyboardInterrupt:
                raise KeyboardInterrupt("the same command goes on") from None  # not from a checkpoint of this run
            finally:
                display.close()
            if failed:
                raise UserError(f"{first.name}: this run is needed first, and failed. {failed[0][1]}")
            if self._status(first).has_model:
                return
        raise UserError(
            f"{first.name}: this prerequisite run was trained, but its model is not in {folder}. "
            "Check that the folder can be written and is not cleaned by another program."
        )
