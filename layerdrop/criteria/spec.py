"""The layer selection of a run."""

from dataclasses import dataclass
from typing import Literal

ScoreSplit = Literal["train", "validation", "test"]
WeightScope = Literal["final", "layer"]
"""Matrices to score: the second feed-forward matrix (final), or all matrices of the layer."""


@dataclass(frozen=True)
class DropSpec:
    """Selection of layers. Ids count from 0 in the checkpoint's numbering."""

    strategy: str | None = None
    """A name in layerdrop.criteria.table.STRATEGIES; None: drop no layers."""
    k: int | None = None
    threshold: float | None = None
    layers: tuple[int, ...] = ()
    """The ids of the strategy `list`."""
    found: tuple[int, ...] = ()
    """k ids of a search result, ascending. For gradual dropping: in the order of the search."""
    score_on: str | None = None
    """Checkpoint to score instead of the model."""
    score_split: ScoreSplit | None = None
    score_samples: int | None = None
    weight_scope: WeightScope | None = None
