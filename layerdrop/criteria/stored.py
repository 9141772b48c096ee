"""File cache of scores: a criterion is computed once for a checkpoint and texts, and reused for every K."""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.scoring import Scores, score_layers
from layerdrop.criteria.table import CRITERIA
from layerdrop.data.examples import Examples
from layerdrop.data.tasks import Task
from layerdrop.system.files import read_json, write_atomically
from layerdrop.system.typecheck import check_type

VERSION = 1
"""Version of the code outside this folder that scores depend on. Every key depends on it, and on CRITERIA_HASH."""


def _hash_of_modules() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


CRITERIA_HASH = _hash_of_modules()
"""Hash of the modules of this folder when they were imported. A changed criterion is computed again."""


class Stored(TypedDict, total=False):
    """The scores of a criterion in a file."""

    rows: list[list[float | None]]
    head: str
    seconds: float


def stored_scores(
    names: Sequence[str],
    checkpoint: Checkpoint,
    examples: Examples | None = None,
    task: Task | None = None,
    *,
    folder: str | None = None,
    k: int = 1,
    **arguments: Any,
) -> Scores:
    """Compute scores as score_layers does, with a cache in `folder`; None: no cache."""
    path = folder and Path(folder) / f"{_key(checkpoint, examples, task, arguments)}.json"
    cached = _read(path) if path else {}
    enough = {name for name in names if name in cached and _has_steps(name, cached[name]["rows"], k)}
    scores = Scores(encoder_weights=None)
    if missing := [name for name in names if name not in enough]:
        start = time.perf_counter()
        scores = score_layers(missing, checkpoint, examples, task, k=k, **arguments)
        scores.seconds = time.perf_counter() - start
        if path:
            new = {
                name: {
                    "rows": [[None if math.isnan(score) else score for score in row] for row in rows],
                    "head": scores.head if CRITERIA[name].needs_head else "",
                    "seconds": scores.seconds / len(missing),
                }
                for name, rows in scores.rows.items()
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(_read(path) | new, indent=1) + "\n")
    for name in (name for name in names if name in enough):
        scores.rows[name] = [[math.nan if score is None else score for score in row] for row in cached[name]["rows"]]
        scores.head = scores.head or cached[name]["head"]
        scores.seconds += cached[name].get("seconds", 0.0)
    return scores


def _has_steps(name: str, rows: list[list[float]], k: int) -> bool:
    """Whether cached rows suffice for k steps."""
    return CRITERIA[name].unit != "steps" or len(rows) >= k


def _key(checkpoint: Checkpoint, examples: Examples | None, task: Task | None, arguments: dict[str, Any]) -> str:
    """Hash of everything that changes a score: code, contents of checkpoint and texts, maximum length, weight scope."""
    parts = {
        "version": VERSION,
        "criteria": CRITERIA_HASH,
        "checkpoint": checkpoint.fingerprints,
        "examples": examples.fingerprint() if examples else None,
        "task": task.name if task else None,
        "max_seq_length": arguments.get("max_seq_length"),
        "weight_scope": arguments.get("weight_scope"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Read criterion -> rows, head, seconds. Empty if the file cannot be read."""
    with suppress(OSError, ValueError, TypeError):
        stored = read_json(path)
        check_type(stored, dict[str, Stored])
        return {name: scores for name, scores in stored.items() if {"rows", "head"} <= scores.keys()}
    return {}
