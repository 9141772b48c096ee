"""The labels of a table row: dropped layers, training variant and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from layerdrop.criteria.table import STRATEGIES
from layerdrop.runs.spec import RunSpec

WORDS = re.compile(
    r"(?P<name>[^ ,]*)( (?P<layers>\d[\d,]*))?( > (?P<threshold>[^ ,]+))?(?P<variant>[^(]*?)"
    r"( \((?P<settings>.*)\))?(?P<scratch>, from scratch)?"
)
"""Parts of TableRow.strategy."""
SAME_MODEL = ("after", "freeze")
"""Words of a variant that do not change the model before layers are dropped."""


class TableRow(NamedTuple):
    """The labels of a row. The default is the full model."""

    strategy: str = "full"
    """`top, finetuned (num_train_epochs 3)`, `list 3,4`, `contribution > 0.9`, `full, from scratch` ..."""
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
        return _parse(self.strategy)

    @property
    def name(self) -> str:
        """The strategy alone, such as `top`; `full` for K = 0."""
        return self._parts["name"]

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
        return self.name == "full"

    @property
    def is_full(self) -> bool:
        """Whether the row is the plain full model, with any recipe. `full, after` is this model, too."""
        return self.has_full_depth and self.training == FULL

    @property
    def training(self) -> TableRow:
        """K = 0 of the row's training, without settings.

        `after`, `freeze` and the second fine-tuning of `elastic-finetuned` do not change this model.
        """
        words = [word.removesuffix("-finetuned") for word in self.variant.split(", ") if word not in SAME_MODEL]
        return TableRow(_words(", ".join(filter(None, ["full", *words])), scratch=self.from_scratch))

    @property
    def full_depth(self) -> TableRow:
        """K = 0 of the row's training, with the row's settings."""
        return self.training.with_recipe(self._parts["settings"] or "")

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


def full_models(rows: Iterable[TableRow]) -> dict[TableRow, TableRow]:
    """TableRow.full_depth -> its row. Of several rows for one model: the row that names only the model's training."""
    found: dict[TableRow, TableRow] = {}
    for row in sorted((row for row in rows if row.has_full_depth), key=lambda row: row != row.full_depth):
        found.setdefault(row.full_depth, row)
    return found


def lines_of(rows: Sequence[TableRow]) -> dict[str, list[TableRow]]:
    """Name in a figure's legend -> the rows of its line, with the row at its start.

    A line starts at K = 0 of its training variant. Without such a row, it starts at the plain full model, or at its
    first K if all K are of one training. The plain full model has no line of its own.
    """
    of_training = full_models(rows)
    plain = [row for row in of_training.values() if row.is_full]
    lines: dict[str, list[TableRow]] = {}
    for row in (row for row in rows if row not in plain):
        lines.setdefault(row.legend, []).append(row)
    started = set()
    for line in (line for line in lines.values() if not line[0].has_full_depth):
        own = of_training.get(line[0].full_depth)
        if own and own not in plain:
            started.add(own)
            line.insert(0, own)
        elif len(plain) == 1 and not line[0].is_one_training:
            line[:0] = plain
    return {name: line for name, line in lines.items() if line[0] not in started or len(line) > 1}


@cache
def _parse(strategy: str) -> re.Match:
    return WORDS.fullmatch(strategy)


def _words(name: str, *settings: str, scratch: bool) -> str:
    brackets = ", ".join(filter(None, settings))
    return name + f" ({brackets})" * bool(brackets) + ", from scratch" * scratch


def _natural(text: str | None) -> list[str | float]:
    """Sort key that puts `epochs 3.0` before `epochs 10.0`."""
    return [float(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+(?:\.\d+)?)", text or ""))]
