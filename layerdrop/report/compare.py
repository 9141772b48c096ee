"""A few runs side by side, in words for a person."""

from layerdrop.runs.record import RunRecord


def compare(records: list[RunRecord]) -> str:
    """A table of runs of one task; each difference is to the first run, in points (hundredths) for metrics."""
    first = records[0]
    names = [name for name in first.metrics if not name.endswith("loss")]
    header = ["layers", "dropped", "parameters", *names, "training", "evaluation"]
    rows = [header, *(_row(record, first, names) for record in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _row(record: RunRecord, first: RunRecord, names: list[str]) -> list[str]:
    def against(value: float, base: float, text: str) -> str:
        return text if record is first else f"{text} ({100 * (value / base - 1):+.0f}%)"

    def points(name: str) -> str:
        value, base = record.metrics[name], first.metrics[name]
        return f"{100 * value:.1f}" + ("" if record is first else f" ({100 * (value - base):+.1f})")

    def seconds(stage: str) -> str:
        if stage not in record.seconds:
            return "-"
        return against(record.seconds[stage], first.seconds[stage], f"{record.seconds[stage]:.1f} s")

    parameters = record.parameters_after
    return [
        str(len(record.kept)),
        ",".join(map(str, record.dropped)) or "none",
        against(parameters, first.parameters_after, f"{parameters:,}"),
        *map(points, names),
        seconds("train"),
        seconds("evaluate"),
    ]
