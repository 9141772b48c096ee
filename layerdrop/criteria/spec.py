"""Which layers a run drops."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DropSpec:
    """Which layers go. Ids count from 0 in the numbering of the checkpoint."""

    strategy: str | None = None
    """A name in layerdrop.strategies.STRATEGIES; None: nothing is dropped."""
    k: int | None = None
    threshold: float | None = None
    layers: tuple[int, ...] = ()
    """`list`: the ids."""
    found: tuple[int, ...] = ()
    """The ids that a search found for this k, ascending; in its order for gradual dropping."""
    score_on: str | None = None
    """Scores come from this checkpoint instead of the model."""
    score_split: str | None = None
    score_samples: int | None = None
    weight_scope: str | None = None
