"""Scores of sets of layers from short trainings that go on from a fine-tuned model, one layer less at a time."""

from collections.abc import Sequence
from dataclasses import replace

from layerdrop.errors import UserError
from layerdrop.runs.record import RunRecord
from layerdrop.search import Ids, Level
from layerdrop.spec import DropSpec, RunSpec
from layerdrop.trials import Trials, cost_of

SHARE = 0.075
"""Steps of a short training, as a share of those of a whole one."""
WARMUP = 0.2
"""Share of a short training's steps in which the learning rate rises to the recipe's, where it stays."""


class WarmStarts:
    """An Evaluate of layerdrop.search for `greedy`: a short training of each set.

    Those of the first level go on from a whole fine-tuning in full depth, those of a later one from the model of the
    best set of the level before. That model is trained again to be kept; the models of the other sets never are.
    """

    def __init__(self, trials: Trials):
        """trials: does the trainings. Where it names no metric, sets are compared by their loss."""
        self.trials = trials
        trials.select_on = trials.select_on or "loss"
        self.level: Level | None = None
        """The last one."""
        self.runs: dict[tuple[Ids, int], RunSpec] = {}
        """(set, seed) -> the run that scored it, of the last level; of the full depth before the first."""
        self.steps: dict[int, int] = {}
        """Seed -> steps of its short trainings."""
        self.twice: list[RunRecord] = []
        """Of the models that were trained again to be kept."""

    def __call__(self, sets: Sequence[Ids]) -> list[tuple[float, ...]]:
        """One score a seed for each set. Raises as Trials do, and UserError where the full depth cannot be trained."""
        if self.level is None:
            self._fine_tune()
            gone: Ids = frozenset()
        else:
            gone = next(ids for ids in self.level.ranked if all(ids < each for each in sets))
            self.twice += [self.trials.records[self.runs[gone, seed].id] for seed in self.trials.seeds]
        runs = {(ids, seed): self._short(ids, self.runs[gone, seed]) for ids in sets for seed in self.trials.seeds}
        scores = self.trials.scores(sets, lambda ids, seed: runs[ids, seed])
        self.level, self.runs = Level(dict(zip(sets, scores, strict=True))), runs
        return scores

    def _fine_tune(self) -> None:
        whole = self.trials.whole.spec
        specs = [replace(whole, seed=seed) for seed in self.trials.seeds]
        for spec, record in zip(specs, self.trials.train(specs, save_model=True), strict=True):
            if record is None:
                raise UserError(f"the training in full depth with seed {spec.seed} failed: {self.trials.failed[0][1]}")
            self.runs[frozenset(), spec.seed] = spec
            self.steps[spec.seed] = max(1, round(SHARE * record.steps))

    def _short(self, ids: Ids, start: RunSpec) -> RunSpec:
        train = replace(
            start.train,
            max_steps=self.steps[start.seed],
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=WARMUP,
        )
        return replace(start, drop=DropSpec("list", layers=tuple(sorted(ids))), train=train, start=start)

    @property
    def cost(self) -> dict[str, float]:
        """That of all trainings, those that were done twice counted twice."""
        return cost_of([*self.trials.records.values(), *self.twice])
