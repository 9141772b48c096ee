"""Result of a search: a record, a layer file for --drop_order_file, and a summary."""

import hashlib
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from layerdrop.criteria.orders import order_text, sets_text
from layerdrop.criteria.table import STRATEGIES
from layerdrop.runs.command import command_of
from layerdrop.runs.spec import RunSpec
from layerdrop.search.methods import Ids, Level, order_of
from layerdrop.system.files import read_json, write_atomically
from layerdrop.system.text import short_name


@dataclass
class SearchRecord:
    """A search and its result. Layer ids are the checkpoint's, from 0."""

    method: str
    spec: RunSpec
    """The run of the full model. Candidates differ only in `drop` and seed."""
    seeds: tuple[int, ...]
    select_on: str = ""
    """The selection metric. `loss` is negated."""
    digits: int | None = None
    levels: list[Level] = field(default_factory=list)
    constant: list[int] = field(default_factory=list)
    """Every K whose best set has constant predictions for at least one seed."""
    cost: dict[str, float] = field(default_factory=dict)
    """`trainings`, `steps`, `seconds` of whole runs; `resumed`: trainings whose seconds cover only a part;
    `scoring_seconds` if criteria propose sets."""

    @property
    def sets(self) -> list[list[int]]:
        """The best sets of 1, 2, 3 ... layers, ids ascending."""
        if order := self._proposed:
            return [sorted(order[:k]) for k in range(1, len(order) + 1)]
        return [sorted(level.best) for level in self.levels]

    @property
    def order(self) -> tuple[int, ...] | None:
        """The order of dropping; None if the best sets are not nested."""
        return self._proposed or order_of([level.best for level in self.levels])

    @property
    def _proposed(self) -> tuple[int, ...] | None:
        """The proposed order of the best set. None for methods without proposals."""
        last = self.levels[-1]
        return last.proposed[last.best].order if last.proposed else None

    @property
    def strategy(self) -> str:
        """The --drop_strategy that reads the layer file."""
        return self.method if self.method in STRATEGIES else "optimal"

    @property
    def id(self) -> str:
        """Hash of everything that determines the result: 16 hexadecimal digits."""
        parts = [self.method, self.spec.id, self.seeds, self.select_on, self.digits, len(self.sets)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "id": self.id,
            "method": self.method,
            "spec": self.spec.to_dict(),
            "seeds": list(self.seeds),
            "select_on": self.select_on,
            "round": self.digits,
            "sets": self.sets,
            "order": self.order and list(self.order),
            "levels": [_level(level) for level in self.levels],
            "constant": self.constant,
            "cost": self.cost,
        }

    def write(self, root: str) -> str:
        """Write MODEL_TASK_METHOD.json and .txt (the layer file) into a folder. Returns the path of the layer file.

        The files are named MODEL_TASK_METHOD_ID if another search or program has written one of the two files.
        """
        path = Path(root) / f"{short_name(self.spec.model.name)}_{self.spec.data.task}_{self.method}"
        if _writer_of(path) not in (None, self.id):
            path = Path(f"{path}_{self.id[:8]}")
        write_atomically(Path(f"{path}.json"), json.dumps(self.to_dict(), indent=1) + "\n")
        order = None if self.strategy == "optimal" else self.order
        text = sets_text(self.sets) if order is None else order_text(order)
        write_atomically(Path(f"{path}.txt"), text)
        return f"{path}.txt"


def _writer_of(path: Path) -> str | None:
    """The id of the search that wrote PATH.json and PATH.txt. Empty for other files; None if neither exists."""
    try:
        return str(read_json(f"{path}.json")["id"])
    except FileNotFoundError:  # .json is written first
        return "" if Path(f"{path}.txt").exists() else None
    except (ValueError, KeyError, TypeError):
        return ""


def _level(level: Level) -> dict[str, Any]:
    return {
        "k": len(level.best),
        "best": sorted(level.best),
        "margin": level.margin,
        "spread": level.spread,
        "ties": [sorted(ids) for ids in level.ties],
        "scores": {_name(ids): [None if math.isnan(s) else s for s in level.scores[ids]] for ids in level.ranked},
        "proposed": {_name(ids): {"order": list(p.order), "by": list(p.by)} for ids, p in level.proposed.items()},
    }


def _name(ids: Ids) -> str:
    return "-".join(map(str, sorted(ids)))


# ---- summary ---------------------------------------------------------------------------------------------------------
def level_words(level: Level) -> str:
    """Describe a level, with its tie or small margin if any: `K = 2: drop 10, 11  0.5780  margin 0.0020`."""
    ids = ", ".join(map(str, sorted(level.best)))
    by = f" (by {', '.join(level.proposed[level.best].by)})" if level.proposed else ""
    words = [f"K = {len(level.best)}: drop {ids}{by}", f"{level.mean(level.best):.4f}"]
    if level.margin is not None:
        words.append(f"margin {level.margin:.4f}" + (f", {doubt}" if (doubt := _doubt(level)) else ""))
    if failed := sum(math.isnan(level.mean(ids)) for ids in level.scores):
        words.append(f"{failed} of {len(level.scores)} without a score")
    return "  ".join(words)


def _doubt(level: Level) -> str:
    """Reason to doubt a decision: a tie, or a margin below the spread over seeds. Empty for a clear decision."""
    if level.ties:
        wins = "the first proposal wins" if level.proposed else "the higher ids are dropped"
        return f"a tie of {len(level.ties) + 1}: {wins}"
    if level.margin is not None and level.spread is not None and level.margin < level.spread:
        return f"less than the spread over seeds, {level.spread:.4f}"
    return ""


def summary(record: SearchRecord, file: str, more: Sequence[str] = ()) -> str:
    """The levels with the scores behind each decision, the cost, and the command that uses the result.

    more: additional words of the command, which are not in the search's spec.
    """
    spec, cost, n_seeds = record.spec, record.cost, len(record.seeds)
    on = f"{record.select_on} (negated)" if record.select_on == "loss" else record.select_on
    held_out = f"{spec.data.hold_out:.0%} of the training set held out, {n_seeds} seed{'s' * (n_seeds > 1)}"
    lines = [f"{record.method}: {spec.model.name} on {spec.data.task}; {on} on {held_out}"]
    lines += [level_words(level) for level in record.levels]
    if doubtful := sum(bool(_doubt(level)) for level in record.levels):
        lines.append(f"{doubtful} of {len(record.levels)} levels are not decisive: other layers may be as good")
    elif n_seeds == 1:
        lines.append("one seed: margins cannot be compared with the spread over seeds. Add --seeds 1 2 3")
    further = ". Try --select_on loss" if record.select_on != "loss" else ""
    for k in record.constant:
        lines.append(
            f"K = {k}: the selected model predicts the same, or nearly the same, for every row, so its "
            f"{record.select_on} reflects only the label frequencies{further}"
        )
    if record.order:
        lines.append(f"order of dropping: {' '.join(map(str, record.order))}")
    trainings = f"{cost['trainings']:,} training{'s' * (cost['trainings'] != 1)}, {cost['steps']:,} steps"
    scoring = f", {cost['scoring_seconds'] / 60:.1f} min of scoring" if "scoring_seconds" in cost else ""
    part = f" ({n} resumed: only the last part)" if (n := cost.get("resumed")) else ""
    lines.append(f"cost: {trainings}, {cost['seconds'] / 60:.1f} min of runs{part}{scoring}")
    lacks_file = spec.data.source == "files" and not spec.data.validation_share and "--validation_file" not in more
    lines.append(
        "use the result"
        + (" (add --validation_file FILE with rows that this search has not read)" if lacks_file else "")
        + ":"
    )
    drop = ["--drop_strategy", record.strategy, "--drop_order_file", file, "--drop_k", str(len(record.sets))]
    whole = replace(spec, data=replace(spec.data, hold_out=None))
    lines.append(f"{command_of(whole)} {shlex.join([*more, *drop])}")
    return "\n".join(lines)
