"""A row of a table: strategy, K, and training variant."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from layerdrop.criteria.table import STRATEGIES
from layerdrop.runs.spec import RunSpec

WORDS = re.compile(
    r"(?P<name>[^ ,]*)( (?P<layers>\d[\d,]*))?( > (?P<threshold>\S+?))?(, (?P<variant>(?!from scratch)[^(]+?))??"
    r"( \((?P<brackets>.*)\))?(?P<scratch>, from scratch)?"
)
"""Pattern of the first of TableRow.words."""


@dataclass(frozen=True)
class TableRow:
    """What was done to the layers."""

    strategy: str | None = None
    k: int | None = None
    threshold: float | None = None
    layers: tuple[int, ...] = ()
    from_scratch: bool = False
    details: str = ""
    """How scores were computed, or which layers a search found, where that differs between the rows of a strategy."""
    variant: str = ""
    """RunSpec.variants: another moment of dropping, another objective; empty for plain dropping."""
    variant_details: str = ""
    """Settings of the variant that differ between the rows of a strategy and variant."""
    recipe: tuple[tuple[str, str], ...] = ()
    """(setting, value) of those that make rows where they would make tables, and in which the model's runs differ."""

    @classmethod
    def of(cls, spec: RunSpec, details: str = "", variant_details: str = "", recipe: tuple = ()) -> TableRow:
        """The row of a run; dropping nothing is one row for all strategies."""
        drop, scratch, variant = spec.drop, spec.model.from_scratch, ", ".join(spec.variants)
        if drop.strategy is None or (drop.k == 0 and drop.threshold is None):
            own = variant_details if variant else ""
            return cls(from_scratch=scratch, variant=variant, variant_details=own, recipe=recipe)
        k = None if drop.threshold is not None else drop.k
        if drop.layers:
            k = len(drop.layers)
        return cls(drop.strategy, k, drop.threshold, drop.layers, scratch, details, variant, variant_details, recipe)

    @classmethod
    def of_words(cls, strategy: str, k: float | None, recipe: tuple = ()) -> TableRow:
        """Parse the first of `words` into a row, as far as possible. Text in brackets becomes part of the recipe."""
        found = WORDS.fullmatch(strategy)
        more = tuple(tuple(f"{part} ".split(" ", 1)) for part in (found["brackets"] or "").split(", ") if part)
        layers = tuple(map(int, found["layers"].split(","))) if found["layers"] else ()
        name, threshold = found["name"], found["threshold"]
        return cls(
            strategy=None if name == "full" else name,
            k=None if k is None or name == "full" else int(k),
            threshold=float(threshold) if threshold else None,
            layers=layers,
            from_scratch=bool(found["scratch"]),
            variant=found["variant"] or "",
            recipe=(*recipe, *((name, value.strip()) for name, value in more)),
        )

    @property
    def plain(self) -> TableRow:
        """The row of the same layers without a training variant."""
        return replace(self, variant="", variant_details="")

    @property
    def is_full(self) -> bool:
        """Whether it is the full model, of whatever recipe."""
        return self == TableRow(recipe=self.recipe)

    @property
    def words(self) -> tuple[str, str]:
        """(strategy, K) for a person."""
        name = self.strategy or "full"
        if self.layers:
            name += " " + ",".join(map(str, self.layers))
        if self.threshold is not None:
            name += f" > {self.threshold:g}"
        if self.variant:
            name += f", {self.variant}"
        if parts := [*map(" ".join, self.recipe), *filter(None, [self.details, self.variant_details])]:
            name += f" ({', '.join(parts)})"
        k = "" if self.threshold is not None else str(self.k or 0)
        return (f"{name}, from scratch" if self.from_scratch else name), k

    def order(self) -> tuple:
        """Sorts rows: the full model, the same from scratch, then strategy by strategy with growing K."""
        place = list(STRATEGIES).index(self.strategy) if self.strategy in STRATEGIES else -1
        size = (self.k or 0, -(self.threshold or 0), self.layers)
        settings = (list(map(_by_number, self.recipe)), self.details, self.variant_details)
        return (place, self.variant, *settings, self.from_scratch, *size)


def _by_number(setting: tuple[str, str]) -> tuple:
    """Sorts `epochs 3.0` before `epochs 10.0`."""
    name, value = setting
    try:
        return (name, 0, float(value), "")
    except ValueError:
        return (name, 1, 0.0, value)


FULL = TableRow()
