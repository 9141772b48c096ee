"""Exported models side by side: score, size, latency."""

import statistics
from collections.abc import Sequence

from layerdrop.report.table import Table


def exports_table(exports: Sequence) -> Table:
    """One row for each variant of each `layerdrop.deploy.export.Export`. Ratios are to the first row."""
    first = exports[0].forms[0]
    sizes = next((list(form.latency) for export in exports for form in export.forms if form.latency), [])
    rows, values = [], []
    for export in exports:
        for form in export.forms:
            row = [export.run, form.name, f"{form.score:.1f}", f"{form.megabytes:.1f}"]
            value = {"run": export.run, "form": form.name, "metric": export.metric, "score": form.score}
            value["megabytes"] = form.megabytes
            for size in sizes:
                if form.latency:
                    ms = statistics.median(form.latency[size])
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
