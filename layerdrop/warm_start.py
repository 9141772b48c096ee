"""Scores of sets of layers from short trainings that go on from the fine-tuned model."""

from collections.abc import Sequence
from dataclasses import replace

from layerdrop.errors import UserError
from layerdrop.search import Ids
from layerdrop.spec import DropSpec, RunSpec
from layerdrop.trials import Trials

SHARE = 0.08
"""Steps of a short training, as a share of those of a whole one."""
WARMUP = 0.2
"""Share of a short training's steps in which the learning rate rises to the recipe's, where it stays."""


class WarmStarts:
    """An Evaluate of layerdrop.search: of each set a short training without it, that goes on from the model in full
    depth after its fine-tuning."""

    def __init__(self, trials: Trials):
        """trials: does the trainings."""
        self.trials = trials
        self.short: dict[int, RunSpec] = {}
        """Seed -> the short training of a candidate, still without its `drop`."""

    def __call__(self, sets: Sequence[Ids]) -> list[tuple[float, ...]]:
        """One score a seed for each set. Raises as Trials do, and UserError where the full depth cannot be trained."""
        self.short = self.short or self._fine_tune()
        return self.trials.scores(sets, self._without)

    def _fine_tune(self) -> dict[int, RunSpec]:
        """Train the full depth, keep its models, and say what the short training of each seed is."""
        short, trials = {}, self.trials
        whole = [replace(trials.whole.spec, seed=seed) for seed in trials.seeds]
        for spec, record in zip(whole, trials.train(whole, save_model=True), strict=True):
            if record is None:
                raise UserError(f"the training in full depth with seed {spec.seed} failed: {trials.failed[0][1]}")
            steps = max(1, int(SHARE * record.steps))
            train = replace(spec.train, max_steps=steps, lr_scheduler_type="constant_with_warmup", warmup_steps=WARMUP)
            short[spec.seed] = replace(spec, train=train, start=spec)
        return short

    def _without(self, ids: Ids, seed: int) -> RunSpec:
        return replace(self.short[seed], drop=DropSpec("list", layers=tuple(sorted(ids))))
