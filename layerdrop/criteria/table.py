"""The table of criteria that give layers a score."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from layerdrop.criteria import outputs, states, weights


@dataclass(frozen=True)
class Scorer:
    """One row of the table."""

    name: str
    looks_at: Literal["weights", "states", "outputs", "losses"]
    """`states` and the following look at texts, `outputs` and `losses` through a head, `losses` at labels too where
    that is a classifier's."""
    make: Callable[..., Any]
    """weights: (model, weight_scope) -> scores; states: () -> Collector; outputs, losses: (model, batches) -> rows,
    where `by_steps` (model, batches, k)."""
    split: str = "train"
    """The split that is scored unless another one is asked for."""
    by_steps: bool = False

    @property
    def needs_data(self) -> bool:
        """Whether it looks at texts."""
        return self.looks_at != "weights"

    @property
    def needs_head(self) -> bool:
        """Whether it needs a head."""
        return self.looks_at in ("outputs", "losses")


SCORERS = {
    row.name: row
    for row in (
        Scorer("contribution", "states", lambda: states.Mean(states.cosine, sentence=True), split="validation"),
        Scorer("block-influence", "states", lambda: states.Mean(states.influence)),
        Scorer("angular-block", "states", states.Blocks),
        Scorer("relative-magnitude", "states", lambda: states.Mean(states.relative_magnitude)),
        Scorer("linearity", "states", lambda: states.Moments(states.residual)),
        Scorer("cka", "states", lambda: states.Moments(states.linear_cka)),
        Scorer("loss-drop", "losses", outputs.loss_drop),
        Scorer("sleb", "losses", outputs.sleb, by_steps=True),
        Scorer("logit-kl", "outputs", outputs.logit_kl),
        Scorer("sleb-kl", "outputs", outputs.sleb_kl, by_steps=True),
        Scorer("taylor", "losses", outputs.taylor),
        Scorer("fisher", "losses", outputs.fisher),
        Scorer("variance", "weights", weights.variance),
        Scorer("aggregation", "weights", weights.aggregation),
    )
}
WEIGHT_SCOPES = ("final", "layer")
