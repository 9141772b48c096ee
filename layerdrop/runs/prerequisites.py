"""Prerequisite runs, which train the start model and the teacher of another run."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.errors import UserError
from layerdrop.runs.fingerprints import Fingerprints
from layerdrop.runs.folder import Locked
from layerdrop.runs.inputs import quiet_options
from layerdrop.runs.record import Run, RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.status import Needs, Status, status_of
from layerdrop.runs.store import find_record, prior_store
from layerdrop.system.distributed import from_first_process, log
from layerdrop.system.process import BUSY, free_memory

POLL = 1.0
"""Seconds between attempts to lock a folder that another process uses."""


class Prerequisites:
    """The prerequisite runs of a dependent run."""

    def __init__(self, spec: RunSpec, options: Options, fingerprints: Fingerprints):
        """Raises UserError if `options.start` has no trained start model."""
        self.spec, self.options, self.fingerprints = spec, options, fingerprints
        if options.start and spec.start and not (status := self._status(spec.start)).has_model:
            why = f" ({', '.join(status.changed)} changed since it was trained)" if status.changed else ""
            raise UserError(
                f"{options.start}: no trained model of the run {spec.start.name}{why}. Execute that run first."
            )

    @property
    def start(self) -> Checkpoint | None:
        """The start model; None if the run has no start model, or if it is not trained yet."""
        return self.fingerprints.start(self.spec, self.options)

    @property
    def teacher(self) -> Checkpoint | None:
        """The teacher; None if the run has no teacher, or if it is not trained yet.

        Raises UserError for an unknown name.
        """
        distil = self.spec.distil
        if distil and distil.teacher:
            return Checkpoint.open(ModelSpec(distil.teacher), self.options.hub, "--teacher")
        return self.fingerprints.teacher(self.spec, self.options)

    @property
    def cost(self) -> dict[str, float]:
        """Total cost of direct and indirect prerequisite runs: trainings, steps, seconds. Empty if there are none.

        resumed: number of resumed trainings, whose seconds cover only a part.
        """
        records = self._records
        costs: list[dict[str, float]] = [
            {
                "trainings": 1,
                "steps": record.steps or 0,
                "seconds": record.seconds.get("train", 0.0),
                "resumed": int(record.resumed_at_step is not None),
            }
            for record in records
        ]
        costs += [record.prerequisites for record in records if record.prerequisites]
        return {name: sum(cost.get(name, 0) for cost in costs) for name in costs[0]} if costs else {}

    @property
    def notes(self) -> list[str]:
        """A note that names the runs whose times were measured beside other processes. Empty if there are none."""
        names = ", ".join(record.spec.name for record in self._records if record.busy)
        return [f"{BUSY} cores during the prerequisite run {names}: its times are not comparable"] * bool(names)

    @property
    def _records(self) -> list[RunRecord]:
        """The records of the direct prerequisite runs."""
        found = (find_record(self._folder(prerequisite), prerequisite) for prerequisite in self.spec.prerequisites)
        return [record for record in found if record]

    def train(self, run: Run) -> None:
        """Train the missing prerequisite runs one after the other. Raises UserError if a run fails."""
        for prerequisite in self.spec.prerequisites:
            if from_first_process(partial(self._is_complete, prerequisite)):
                log(f"using the trained model of {prerequisite.name} in {self._folder(prerequisite)}")
            else:
                self._train(prerequisite, run)

    def _is_complete(self, prerequisite: RunSpec) -> bool:
        """Whether a prerequisite run has its model and, in the prerequisite store, also its other files."""
        status, own = self._status(prerequisite), prior_store(self.options).folder(prerequisite)
        return status.has_model and (status.word == "done" or self._folder(prerequisite) != own)

    def _train(self, prerequisite: RunSpec, run: Run) -> None:
        folder, store = self._folder(prerequisite), prior_store(self.options).root
        own = replace(quiet_options(self.options), folder=folder, prior_store=store, save_model=True, resume="auto")
        if self.spec.train is None and "report_to" in self.options.trainer:  # the only training that can be reported
            own = replace(own, trainer={**own.trainer, "report_to": self.options.trainer["report_to"]})

        def changed() -> tuple[str, ...]:
            fingerprints = self.fingerprints.of(prerequisite, own)
            return from_first_process(lambda: status_of(folder, prerequisite, fingerprints, Needs.of(own)).changed)

        again = f" again ({', '.join(names)} changed since)" if (names := changed()) else ""
        log(f"training the prerequisite run {prerequisite.name}{again} in {folder}")
        record = _run_when_free(run, prerequisite, lambda: replace(own, overwrite=bool(changed())))
        if record.status == "failed":
            raise UserError(
                f"{prerequisite.name}: the prerequisite run failed ({record.error}). Its record is in {folder}. "
                "Correct the cause, then repeat the command."
            )
        if not from_first_process(lambda: self._status(prerequisite).has_model):
            raise UserError(
                f"{prerequisite.name}: this prerequisite run was trained, but its model is not in {folder}. "
                "Check that the folder is writable and that no other program deletes files in it."
            )

    def _folder(self, prerequisite: RunSpec) -> str:
        return self.fingerprints.folder(prerequisite, self.spec, self.options)

    def _status(self, prerequisite: RunSpec) -> Status:
        return self.fingerprints.status(prerequisite, self._folder(prerequisite), self.options)


def _run_when_free(run: Run, spec: RunSpec, options: Callable[[], Options]) -> RunRecord:
    """Execute a run. If another process executes it, wait and try again.

    options: called before every attempt, because the other process may have trained on the current inputs.
    """
    waiting = False
    while True:
        try:
            return run(spec, options())
        except Locked:
            if not waiting:
                log(f"another process trains {spec.name}: waiting for it")
            waiting = True
            time.sleep(POLL)
        except UserError as error:
            raise UserError(f"{spec.name}: the prerequisite run failed. {error}") from error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "Repeat the command to continue."
            ) from None  # the dependent run has no checkpoint yet
        finally:
            free_memory()
