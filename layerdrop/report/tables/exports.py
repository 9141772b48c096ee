"""Exported models side by side: score, size, latency."""

import statistics
from collections.abc import Sequence

from layerdrop.report.table import Table


def exports_table(exports: Sequence, busy: str | None = None) -> Table:
    """One row for each variant of each `layerdrop.deploy.export.Export`. Ratios are to the first row.

    busy: a note on other processes during the timing.
    """
    first, metrics = exports[0].variants[0], list(dict.fromkeys(export.metric for export in exports))
    sizes = next((list(variant.latency) for export in exports for variant in export.variants if variant.latency), [])
    rows, values = [], []
    for export in exports:
        for variant in export.variants:
            score = f"{variant.score:.1f}" + f" {export.metric}" * (len(metrics) > 1)
            row = [export.run, variant.name, score, f"{variant.megabytes:.1f}"]
            value = {"run": export.run, "form": variant.name, "metric": export.metric, "score": variant.score}
            value["megabytes"] = variant.megabytes
            for size in sizes:
                if variant.latency:
                    ms = statistics.median(variant.latency[size])
                    times = statistics.median(first.latency[size]) / ms
                    row.append(f"{ms:.1f} ms ({times:.2f} x)")
                    value |= {f"ms_batch_{size}": ms, f"speed_up_batch_{size}": times}
                else:
                    row.append("")
            rows.append(row)
            values.append(value)
    header = ["run", "form", metrics[0] if len(metrics) == 1 else "score", "MB"]
    header += [f"a text, batch {size}" for size in sizes]
    time = "; milliseconds per validation text on the CPU, median of 3 rounds in turn"
    notes = [f"Points on the validation set{time * bool(sizes)}."]
    sets = {export.run: export.validation_set for export in exports}
    if (n := len({fingerprint for _, _, fingerprint in sets.values()})) > 1:
        by_content = len({(task, rows) for task, rows, _ in sets.values()}) < n
        different = "; ".join(
            f"{run}: {task}, {rows:,} rows" + f" with fingerprint {fingerprint}" * by_content
            for run, (task, rows, fingerprint) in sets.items()
        )
        notes.append(f"The scores are not comparable: the validation sets differ ({different}).")
    notes += [f"{busy[0].upper()}{busy[1:]}."] if busy and sizes else []
    return Table("export", "exported models", header, rows, notes, values)
