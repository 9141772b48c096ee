"""The table of criteria (strategies that compute a score for each layer), and all strategies by name.

A criterion is one function and one row of CRITERIA. This module does not import torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from layerdrop import strategies
from layerdrop.errors import unknown
from layerdrop.strategies import WITHOUT_SCORES, Strategy
from layerdrop.system.limits import RANGES


@dataclass(frozen=True, kw_only=True)
class Criterion(Strategy):
    """One row of the table. `drops` is required."""

    looks_at: Literal["weights", "states", "outputs", "losses"]
    """Input. All but `weights` need texts. `outputs` and `losses` need a head. `losses` also need labels."""
    function: Callable[..., Any]
    """weights: (encoder, weight_scope) -> one score for each layer. states: () -> Collector. outputs, losses: (model,
    batches) -> rows of scores; with `unit="steps"` (model, batches, k) -> k rows."""
    split: str = "train"
    """Default split to score."""

    @property
    def needs_data(self) -> bool:
        """Whether the criterion reads texts."""
        return self.looks_at != "weights"

    @property
    def needs_head(self) -> bool:
        """Whether the criterion needs a head."""
        return self.looks_at in ("outputs", "losses")


def _lazy(module: str, name: str) -> Callable[..., Any]:
    """Import a function of layerdrop.criteria at its first call: torch takes seconds to import."""
    return lambda *args: getattr(import_module(f"layerdrop.criteria.{module}"), name)(*args)


# fmt: off
CRITERIA = {
    row.name: row
    for row in (
        Criterion(
            "contribution", "the layers with the most similar input and output, at the sentence token",
            "Sajjad et al. 2023, Section 3",
            looks_at="states", function=_lazy("states", "contribution"), drops="highest", threshold=True,
            split="validation",
        ),
        Criterion(
            "block-influence", "the layers that change the states of all tokens least", "Men et al. 2024, ShortGPT",
            looks_at="states", function=_lazy("states", "block_influence"), drops="lowest",
        ),
        Criterion(
            "angular-block",
            "the block of k layers with the smallest angle between input and output, at the sentence token",
            "Gromov et al. 2024",
            looks_at="states", function=_lazy("states", "Blocks"), drops="lowest", unit="block",
        ),
        Criterion(
            "relative-magnitude", "the layers with the smallest update relative to output", "Samragh et al. 2023",
            looks_at="states", function=_lazy("states", "relative_magnitude"), drops="lowest",
        ),
        Criterion(
            "linearity", "the layers that a linear map explains best", "Razzhigaev et al. 2024",
            looks_at="states", function=_lazy("states", "linearity"), drops="lowest",
        ),
        Criterion(
            "cka", "the layers with the most aligned output and input", "Kornblith et al. 2019",
            looks_at="states", function=_lazy("states", "cka"), drops="highest",
        ),
        Criterion(
            "loss-drop", "the layers whose removal increases the loss least, each removed alone",
            "Kim et al. 2024, Shortened LLaMA",
            looks_at="losses", function=_lazy("outputs", "loss_drop"), drops="lowest",
        ),
        Criterion(
            "sleb", "the layers whose removal increases the loss least, one after the other", "Song et al. 2024, SLEB",
            looks_at="losses", function=_lazy("outputs", "sleb"), drops="lowest", unit="steps",
        ),
        Criterion(
            "logit-kl", "the layers whose removal changes the outputs least, each removed alone",
            "Sieberling et al. 2024, EvoPress",
            looks_at="outputs", function=_lazy("outputs", "logit_kl"), drops="lowest",
        ),
        Criterion(
            "sleb-kl", "the layers whose removal changes the outputs least, removed one after the other",
            "after Song et al. 2024 and Sieberling et al. 2024; the combination is ours",
            looks_at="outputs", function=_lazy("outputs", "sleb_kl"), drops="lowest", unit="steps",
        ),
        Criterion(
            "taylor", "the layers with the smallest sum of |weight x gradient|", "Ma et al. 2023, LLM-Pruner",
            looks_at="losses", function=_lazy("outputs", "taylor"), drops="lowest",
        ),
        Criterion(
            "fisher", "the layers with the smallest sum of squared gradients", "Lee et al. 2023",
            looks_at="losses", function=_lazy("outputs", "fisher"), drops="lowest",
        ),
        Criterion(
            "variance", "the layers with the lowest variance of their weights", "Sajjad et al. 2023, Section 5.1",
            looks_at="weights", function=_lazy("weights", "variance"), drops="lowest",
        ),
        Criterion(
            "aggregation", "the layers with the lowest mean magnitude of their weights",
            "Sajjad et al. 2023, Section 5.1",
            looks_at="weights", function=_lazy("weights", "aggregation"), drops="lowest",
        ),
    )
}
# fmt: on
STRATEGIES = {name: row for name, row in WITHOUT_SCORES.items() if row.positions} | CRITERIA | WITHOUT_SCORES
"""Name -> strategy, in this order: strategies by position, by score, all others."""


def get_strategy(name: str) -> Strategy:
    """The strategy with a name. Raises UserError with the nearest match."""
    if name not in STRATEGIES:
        raise unknown("--drop_strategy", name, STRATEGIES)
    return STRATEGIES[name]


def select(strategy: str | Strategy, n_layers: int, **arguments: Any) -> list[int]:
    """The ids that a strategy drops, ascending.

    strategy: a name in STRATEGIES, or a row. Other arguments and errors: `layerdrop.strategies.order_of_dropping`.
    """
    if arguments.get("threshold") is not None:
        RANGES["drop_threshold"].check("--drop_threshold", arguments["threshold"])
    return strategies.select(
        strategy if isinstance(strategy, Strategy) else get_strategy(strategy), n_layers, **arguments
    )
