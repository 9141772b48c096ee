"""Exported models side by side: score, size, latency."""

import statistics
from collections.abc import Sequence

from layerdrop.report.table import Table


def exports_table(exports: Sequence) -> Table:
    """One row for each variant of each `layerdrop.deploy.export.Export`. Ratios are to the first row."""
    first = exports[0].variants[0]
    sizes = next((list(variant.latency) for export in exports for variant in export.variants if variant.latency), [])
    rows, values = [], []
    for export in exports:
        for variant in export.variants:
            row = [export.run, variant.name, f"{variant.score:.1f}", f"{variant.megabytes:.1f}"]
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
    header = ["run", "form", exports[0].metric, "MB", *(f"a text, batch {size}" for size in sizes)]
    note = "Points on the validation set; milliseconds per validation text on the CPU, median of 3 rounds in turn."
    return Table("export", "exported models", header, rows, [note], values)
