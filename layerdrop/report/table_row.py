"""The labels of a table row: dropped layers, training variant and settings."""

from __future__ import annotations

import re
from typing import NamedTuple

from layerdrop.criteria.table import STRATEGIES
from layerdrop.runs.spec import RunSpec

WORDS = re.compile(
    r"(?P<name>[^ ,]*)( (?P<layers>\d[\d,]*))?( > (?P<threshold>[^ ,]+))?(?P<variant>[^(]*?)"
    r"( \((?P<settings>.*)\))?(?P<scratch>, from scratch)?"
)
"""Parts of TableRow.strategy."""


class TableRow(NamedTuple):
    """The labels of a row. The default is the full model."""

    strategy: str = "full"
    """`top, finetuned (num_train_epochs 3.0)`, `list 3,4`, `contribution > 0.9`, `full, from scratch` ..."""
    k: str = "0"
    """Number of dropped layers; empty for a threshold."""

    @classmethod
    def of(
        cls, spec: RunSpec, recipe: str = "", details: str = "", variant_details: str = "", variant: str | None = None
    ) -> TableRow:
        """The row of a run. K = 0 is one row for all strategies.

        recipe, details, variant_details: the settings that differ among all rows, among the rows of a strategy, and
        among the rows of a training variant. variant: None for the run's own variant.
        """
        drop, scratch = spec.drop, spec.model.from_scratch
        variant = ", ".join(spec.variants) if variant is None else variant
        variant_details = variant_details if variant else ""
        if drop.strategy is None or (drop.k == 0 and drop.threshold is None):
            return cls(_words(", ".join(filter(None, ["full", variant])), recipe, variant_details, scratch=scratch))
        name = " ".join(filter(None, [drop.strategy, ",".join(map(str, drop.layers))]))
        name += "" if drop.threshold is None else f" > {drop.threshold:g}"
        words = _words(", ".join(filter(None, [name, variant])), recipe, details, variant_details, scratch=scratch)
        return cls(words, "" if drop.threshold is not None else str(len(drop.layers) or drop.k or 0))

    def with_recipe(self, recipe: str) -> TableRow:
        """The row with further settings before its own settings."""
        settings, scratch = self._parts["settings"] or "", self._parts["scratch"] or ""
        name = self.strategy.removesuffix(scratch).removesuffix(f" ({settings})")
        return TableRow(_words(name, recipe, settings, scratch=bool(scratch)), self.k)

    @property
    def _parts(self) -> re.Match:
        return WORDS.fullmatch(self.strategy)

    @property
    def settings(self) -> set[str]:
        """The settings in brackets, each `NAME VALUE`."""
        return set(filter(None, (self._parts["settings"] or "").split(", ")))

    @property
    def variant(self) -> str:
        """RunSpec.variants, separated by commas; empty for plain dropping."""
        return self._parts["variant"].removeprefix(", ")

    @property
    def has_full_depth(self) -> bool:
        """Whether the row drops no layer, with any training."""
        return self._parts["name"] == "full"

    @property
    def is_full(self) -> bool:
        """Whether the row is the full model, with any recipe."""
        return self.has_full_depth and not (self.variant or self.from_scratch)

    @property
    def training(self) -> tuple[str, bool]:
        """The training variant of the model before layers are dropped, and whether it starts from scratch.

        `after` and `elastic-finetuned` do not change this model.
        """
        words = [word.removesuffix("-finetuned") for word in self.variant.split(", ") if word != "after"]
        return ", ".join(words), self.from_scratch

    @property
    def full_depth(self) -> TableRow:
        """The row of K = 0 with the same training and settings. Dropping `after` it does not change it."""
        variant = ", ".join(word for word in self.variant.split(", ") if word != "after")
        return TableRow(_words(", ".join(filter(None, ["full", variant])), self._parts["settings"], scratch=False))

    @property
    def is_one_training(self) -> bool:
        """Whether one training other than the plain full model's serves the rows of every K."""
        return bool({"elastic", "after"} & set(self.variant.split(", "))) and not self.full_depth.is_full

    @property
    def from_scratch(self) -> bool:
        """Whether the model was trained from random weights."""
        return bool(self._parts["scratch"])

    @property
    def legend(self) -> str:
        """The name of the row in a legend, without layer ids."""
        layers = self._parts["layers"]
        return self.strategy.replace(f" {layers}", "", 1) if layers else self.strategy

    def order(self) -> tuple:
        """Sort key: the full model, the full model from scratch, then strategy by strategy with growing K."""
        parts = self._parts
        place = list(STRATEGIES).index(parts["name"]) if parts["name"] in STRATEGIES else -1
        size = (int(self.k or 0), -float(parts["threshold"] or 0), _natural(parts["layers"]))
        return (place, self.variant, _natural(parts["settings"]), self.from_scratch, *size)


FULL = TableRow()


def _words(name: str, *settings: str, scratch: bool) -> str:
    brackets = ", ".join(filter(None, settings))
    return name + f" ({brackets})" * bool(brackets) + ", from scratch" * scratch


def _natural(text: str | None) -> list[str | float]:
    """Sort key that puts `epochs 3.0` before `epochs 10.0`."""
    return [float(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+(?:\.\d+)?)", text or ""))]
