"""A cache of scores in files: a criterion is computed once for a checkpoint and its texts, for every K."""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.scoring import Scores, score_layers
from layerdrop.criteria.table import SCORERS
from layerdrop.data.examples import Examples
from layerdrop.data.tasks import Task
from layerdrop.system.files import write_atomically

VERSION = 1
"""Version of the formulas; part of every key."""


def stored_scores(
    names: Sequence[str],
    checkpoint: Checkpoint,
    examples: Examples | None = None,
    task: Task | None = None,
    *,
    folder: str | None = None,
    k: int = 1,
    **how: Any,
) -> Scores:
    """As score_layers, with a cache in a folder. None: no cache."""
    path = folder and Path(folder) / f"{_key(checkpoint, examples, task, how)}.json"
    there = _read(path) if path else {}
    known = {name: found for name, found in there.items() if _enough(name, found["rows"], k)}
    found = Scores(encoder_weights=None)
    if missing := [name for name in names if name not in known]:
        start = time.perf_counter()
        found = score_layers(missing, checkpoint, examples, task, k=k, **how)
        found.seconds = time.perf_counter() - start
        if path:
            heads = {name: found.head if SCORERS[name].needs_head else "" for name in found.rows}
            new = {
                name: {"rows": _plain(rows), "head": heads[name], "seconds": found.seconds / len(missing)}
                for name, rows in found.rows.items()
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(_read(path) | new, indent=1) + "\n")
    for name in (name for name in names if name in known):
        found.rows[name] = [[math.nan if score is None else score for score in row] for row in known[name]["rows"]]
        found.head = found.head or known[name]["head"]
        found.seconds += known[name].get("seconds", 0.0)
    return found


def _plain(rows: list[list[float]]) -> list[list[float | None]]:
    return [[None if math.isnan(score) else score for score in row] for row in rows]


def _enough(name: str, rows: list[list[float]], k: int) -> bool:
    return not SCORERS[name].by_steps or len(rows) >= k


def _key(checkpoint: Checkpoint, examples: Examples | None, task: Task | None, how: dict[str, Any]) -> str:
    """Of everything that changes a score: the contents of checkpoint and texts, lengths, scope."""
    parts = {
        "version": VERSION,
        "checkpoint": checkpoint.fingerprints,
        "examples": examples.fingerprint() if examples else None,
        "task": task.name if task else None,
        "max_seq_length": how.get("max_seq_length"),
        "weight_scope": how.get("weight_scope"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Criterion -> rows, head, seconds; empty without a file that can be read."""
    with suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return {}
