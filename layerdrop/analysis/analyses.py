"""The analyses of `layerdrop layers`: each computes the values that layerdrop.report.layer_report shows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerdrop.analysis import layers, probing
from layerdrop.analysis.inputs import AnalysisInput, cached
from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.stored import stored_scores
from layerdrop.criteria.table import CRITERIA
from layerdrop.errors import UserError, unknown
from layerdrop.loading import load_encoder
from layerdrop.runs.store import SCORE_FOLDER
from layerdrop.strategies import by_score, order_of_dropping
from layerdrop.surgery import droppable
from layerdrop.system.text import short_name


@dataclass(frozen=True)
class AnalysisSettings:
    """Settings of an analysis; the fields are the flags of `layerdrop layers`."""

    analysis: str
    store: str
    split: str = "train"
    criteria: Sequence[str] | None = None
    token: str = "sentence"
    pretrained: str | None = None


SHOWN = {"steps": "scores of the first step only", "block": "scores of blocks of one layer (K = 1)"}
"""Unit of a criterion -> which of its scores the table shows. Criteria of single layers show all."""


def scores(item: AnalysisInput, settings: AnalysisSettings) -> dict[str, Any]:
    """The scores of every criterion, and the order of dropping that each implies."""
    for name in settings.criteria or ():
        if name not in CRITERIA:
            raise unknown("--criteria", name, CRITERIA)
    n, folder = item.checkpoint.n_layers, str(Path(settings.store) / SCORE_FOLDER)

    def compute(names):
        return stored_scores(
            names, item.checkpoint, item.examples(settings.split), item.task, folder=folder, k=n - 1,
            tokenizer=item.checkpoint.tokenizer, weight_scope="final", max_seq_length=item.spec.data.max_seq_length,
            device=item.device, batch_size=item.batch_size,
        )  # fmt: skip

    texts = f"{len(item.examples(settings.split)):,} texts of {settings.split}"
    notes = []
    stored = compute(settings.criteria or [name for name in CRITERIA if not CRITERIA[name].needs_head])
    if not settings.criteria:
        with_head = [name for name in CRITERIA if CRITERIA[name].needs_head]
        try:
            stored.rows |= (more := compute(with_head)).rows
            stored.head = more.head
        except UserError as error:
            notes.append(f"No scores of {', '.join(with_head)}: {error}")
    shown = [f"{name}: {SHOWN[unit]}." for name in stored.rows if (unit := CRITERIA[name].unit) in SHOWN]
    notes.insert(0, " ".join([f"{texts}.", *shown]))
    if stored.head:
        notes.append(f"Criteria that need a head use {stored.head}.")
    notes.append(f"The scores are stored in {folder}. To use them: layerdrop run --score_store {folder}")
    return {
        "scores": {name: [*rows[0], *[None] * (n - len(rows[0]))] for name, rows in stored.rows.items()},
        "orders": {name: whole_order(name, rows, item.checkpoint) for name, rows in stored.rows.items()},
        "notes": notes,
    }


def whole_order(name: str, rows: list[list[float]], checkpoint: Checkpoint) -> list[int]:
    """All layers of a checkpoint in the order of dropping by a criterion. Layers that cannot be dropped come last."""
    n, among, row = checkpoint.n_layers, droppable(checkpoint.config), CRITERIA[name]
    if row.unit == "block":  # a block of one layer
        order = by_score(rows[0], len(among), "lowest", among)
    else:
        values = rows if row.unit == "steps" else rows[0]
        order = order_of_dropping(row, n, k=min(len(among), n - 1), scores=values, among=among)
    return [*order, *(i for i in range(n) if i not in order)]


def probe(item: AnalysisInput, settings: AnalysisSettings) -> dict[str, Any]:
    """The validation score of a linear classifier on each layer."""

    def compute():
        train, validation = item.tokens("train"), item.tokens("validation")
        return {
            "scores": probing.probe(item.encoder(), train, validation, item.task, item.collate, token=settings.token)
        }

    return _cached(item, settings, compute, token=settings.token) | {"token": settings.token}


def drift(item: AnalysisInput, settings: AnalysisSettings) -> dict[str, Any]:
    """The change of each layer's states by fine-tuning."""
    if not settings.pretrained:
        raise UserError("drift: needs the model before fine-tuning. Add --pretrained M.")
    before = Checkpoint.open(settings.pretrained, flag="--pretrained")
    if item.checkpoint.n_original != before.n_original:
        name, n = item.checkpoint.name, item.checkpoint.n_original
        raise UserError(
            f"--pretrained {settings.pretrained}: has {before.n_original} layers, but {name} is made from a model of "
            f"{n}. Give the model from which {name} was fine-tuned."
        )

    def compute():
        return layers.drift(item.encoder(), load_encoder(before).to(item.device), item.batches(settings.split))

    return _cached(item, settings, compute, pretrained=before.fingerprints)


def profile(item: AnalysisInput, settings: AnalysisSettings) -> dict[str, Any]:
    """Contribution of each layer, variance and magnitude of its weights."""
    return _cached(item, settings, lambda: layers.profile(item.encoder(), item.batches(settings.split)))


def similarity(item: AnalysisInput, settings: AnalysisSettings) -> dict[str, Any]:
    """Cosine and CKA of every two points, and the angle across blocks of layers."""
    return _cached(item, settings, lambda: layers.similarity(item.encoder(), item.batches(settings.split)))


def _cached(item: AnalysisInput, settings: AnalysisSettings, compute: Callable[[], dict], **of: Any) -> dict[str, Any]:
    """Read the result of an analysis from the store, or compute it."""
    name = f"{settings.analysis}_{short_name(item.spec.model.name)}_{item.spec.data.task}"
    return cached(settings.store, name, item.contents() | of, compute)


ANALYSES: Mapping[str, Callable[[AnalysisInput, AnalysisSettings], dict[str, Any]]] = {
    "scores": scores,
    "probe": probe,
    "drift": drift,
    "profile": profile,
    "similarity": similarity,
}
