"""The summary of a run for the terminal."""

from collections.abc import Sequence

from layerdrop.criteria.spec import DropSpec
from layerdrop.data.examples import shortened
from layerdrop.runs.record import RunRecord
from layerdrop.system.text import printable


def summary(record: RunRecord) -> str:
    """Format a record. Each line has a label of at most ten letters, and values."""
    spec = record.spec
    lines = [("task", f"{spec.data.task} ({_source(record)})"), ("model", spec.model.name)]
    if spec.data.files and record.labels:  # own data
        lines.append(("labels", f"{record.task.kind}: {shortened(record.labels)}"))
    if record.n_layers is not None:
        lines += [("strategy", strategy_words(spec.drop)), ("dropped", _dropped(record)), ("kept", _ids(record.kept))]
    if record.scores:
        lines.append(("scores", "  ".join(f"{i}: {score:.4g}" for i, score in enumerate(record.scores))))
    if cost := record.prerequisites:
        runs = f"{cost['trainings']:,} prerequisite run{'s' * (cost['trainings'] != 1)}"
        part = " (a training was resumed: only its last part)" * bool(cost.get("resumed"))
        lines.append(("requires", f"{runs}, {cost['steps']:,} steps, {cost['seconds']:,.0f} s{part}"))
    if record.parameters_after is not None and record.parameters_before:
        before, after = record.parameters_before, record.parameters_after
        lines.append(("parameters", f"{before:,} -> {after:,} ({100 * (after - before) / before:+.1f}%)"))
    if record.metrics:
        lines.append(("metrics", metrics_words(record)))
    lines += [("warning", words) for words in constant_words(record)]
    if record.resumed_at_step is not None:
        lines.append(("resumed", f"at step {record.resumed_at_step:,}: seconds count from this step"))
    if record.seconds:
        lines.append(("seconds", "  ".join(f"{name} {value:.1f}" for name, value in record.seconds.items())))
    if record.tokens_per_second:
        padding = f", {100 * record.padding_share:.1f}% padding" if record.padding_share is not None else ""
        lines.append(("training", f"{record.tokens_per_second:,.0f} tokens/s in {spec.precision}{padding}"))
    lines.append(("status", record.status + (f": {record.error}" if record.error else "")))
    if record.status != "dry_run":
        lines.append(("folder", record.folder))
    return "\n".join(f"{name:<11}{printable(value)}" for name, value in lines)


def metrics_words(record: RunRecord) -> str:
    """`accuracy 0.9120  f1 0.9034`: the metrics without losses."""
    shown = (f"{name} {value:.4f}" for name, value in record.named_metrics.items() if not name.endswith("loss"))
    return "  ".join(shown)


def constant_words(record: RunRecord, kind: str = "") -> list[str]:
    """One sentence for each split with constant or nearly constant predictions. kind: as constant_predictions."""
    return [_constant(record, split, n) for split, n in record.constant_predictions(kind).items()]


def _constant(record: RunRecord, split: str, n: int) -> str:
    if n == 1:
        return f"the same prediction for every row of {split}"
    width = f"{n} values within {record.prediction_range[split]:.2g} standard deviations of the labels"
    return f"nearly the same prediction for every row of {split}: {width}"


def strategy_words(drop: DropSpec) -> str:
    """`top, K = 2`; `contribution, threshold 0.95`; `none`."""
    k = f", K = {drop.k}" if drop.k is not None else ""
    threshold = f", threshold {drop.threshold}" if drop.threshold is not None else ""
    return (drop.strategy or "none") + k + threshold


def _source(record: RunRecord) -> str:
    data = record.spec.data
    dataset = " ".join(filter(None, (data.dataset_name, data.dataset_config_name)))
    return (f"{dataset}: " if dataset else "") + (", ".join(path for _, path in data.files) or data.source)


def _dropped(record: RunRecord) -> str:
    before = f"; {_ids(record.dropped_before)} were dropped before" if record.dropped_before else ""
    return f"{_ids(record.dropped)} ({len(record.dropped)} of {record.n_layers} layers{before})"


def _ids(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids)) if ids else "none"
