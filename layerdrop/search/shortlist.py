"""Sets of layers that strategies propose, before any of them is trained."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from layerdrop.criteria.selection import Selection
from layerdrop.criteria.spec import DropSpec
from layerdrop.criteria.table import CRITERIA
from layerdrop.search.candidates import Candidates
from layerdrop.search.methods import PROPOSED_BY, Ids

SCORE_ROWS = 1000
"""Rows of the training set, from its start, that scores look at."""
Choose = Callable[[DropSpec], Selection]
"""Selects the layers that a strategy drops from the searched model."""


class Shortlist:
    """A Proposing of layerdrop.search.methods: sets are scored by whole trainings, as Candidates do."""

    def __init__(self, trials: Candidates, choose: Choose):
        """trials: does the trainings. choose: scores layers on the rows that are not held out."""
        self.trials, self.choose = trials, choose
        self.seconds = 0.0
        """The time that the scores of the proposals took."""

    def __call__(self, sets: Sequence[Ids]) -> list[tuple[float, ...]]:
        """One score a seed for each set. Raises as Candidates do."""
        return self.trials(sets)

    def propose(self, k: int) -> dict[str, list[int]]:
        """Strategy -> the k layers that it drops, first to go first. Strategies that need a head score the full model,
        fine-tuned with the first seed. Raises as Candidates do."""
        chosen = {name: self.choose(self._drop(name, k)) for name in PROPOSED_BY}
        self.seconds = sum(selection.seconds for selection in chosen.values())
        return {name: selection.order for name, selection in chosen.items()}

    @property
    def cost(self) -> dict[str, float]:
        """As Candidates', and `scoring_seconds`."""
        return self.trials.cost | {"scoring_seconds": self.seconds}

    def _drop(self, name: str, k: int) -> DropSpec:
        if name not in CRITERIA:
            return DropSpec(name, k)
        tuned = None
        if CRITERIA[name].needs_head:
            full = self.trials.full_run.spec
            tuned = self.trials.model(full.start or replace(full, seed=self.trials.seeds[0]))
        return DropSpec(name, k, score_on=tuned, score_split="train", score_samples=SCORE_ROWS)
