"""Measure the cost of several models in turn, as one record."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

from layerdrop.criteria.table import STRATEGIES
from layerdrop.deploy.cost import (
    MeasuredModel,
    Setting,
    describe,
    lengths_like_qqp,
    longest_input,
    peaks,
    time_inference,
    time_training,
)
from layerdrop.errors import UserError, unknown
from layerdrop.runs.environment import environment
from layerdrop.strategies import BY_POSITION
from layerdrop.system.files import write_atomically
from layerdrop.system.process import busy_note
from layerdrop.system.text import short_name

SINGLES = 8
"""Single texts in a round."""


def measure(
    models: Sequence[str],
    strategy: str = "top",
    ks: Sequence[int] = (0,),
    *,
    texts: int = 256,
    length: int = 128,
    batch_size: int = 32,
    repeats: int = 5,
    precision: str = "fp32",
    use_cpu: bool = False,
    log: Callable[[str], Any] = print,
) -> dict[str, Any]:
    """Measure each model with k layers dropped, for each k in `ks`. Returns the record. Raises UserError.

    models: folders, hub names, random:TYPE. texts: pairs with QQP's lengths. length: tokens of a single text.
    """
    if strategy not in STRATEGIES:
        raise unknown("--drop_strategy", strategy, BY_POSITION)
    if strategy not in BY_POSITION:
        raise UserError(
            f"--drop_strategy {strategy}: does not select layers by position. Allowed: {', '.join(BY_POSITION)}. For "
            "other strategies, give the folders of runs that dropped the layers."
        )
    measured = {}
    twice = Counter(map(short_name, dict.fromkeys(models)))  # different folders with the same name
    for given, k in product(models, ks):
        name = given if twice[short_name(given)] > 1 else short_name(given)
        name += f", {strategy} K = {k}" * bool(k)
        if name in measured:
            raise UserError(f"'{name}' is given twice. Give each model and each --k once.")
        measured[name] = MeasuredModel(given, strategy, k)
    loaded = {name: model.load(use_cpu) for name, model in measured.items()}
    if (longest := min(map(longest_input, loaded.values()))) < length:
        log(f"--length {length}: the models read at most {longest} tokens, so {longest} is used")
        length = longest
    notes = [note] if (note := busy_note()) else []
    for note in notes:
        log(note)
    costs = {name: describe(model, length) for name, model in loaded.items()}
    single = Setting((length,) * SINGLES, 1, precision)
    pairs = Setting(lengths_like_qqp(texts, longest), batch_size, precision)
    time_inference(loaded, costs, "single", single, repeats)
    time_inference(loaded, costs, "batch", pairs, repeats)
    time_training(loaded, costs, pairs, repeats)
    kinds = {name: (model.config.model_type, model.config.num_hidden_layers) for name, model in loaded.items()}
    loaded.clear()
    for name, cost in costs.items():
        cost.peak_inference, cost.peak_training = peaks(measured[name], pairs, use_cpu)
    settings = {"texts": texts, "length": length, "batch_size": batch_size, "precision": precision, "repeats": repeats}
    settings |= {"singles": SINGLES, "mean_length": pairs.mean_length, "date": f"{datetime.now():%Y-%m-%d}"}
    rows = [
        {"name": name, "model_type": kinds[name][0], "layers": kinds[name][1], **dataclasses.asdict(cost)}
        for name, cost in costs.items()
    ]
    return {"settings": settings, "environment": environment(use_cpu), "notes": notes, "models": rows}


def write_record(record: dict[str, Any], store: str) -> Path:
    """Write the record of `measure` to a new file in a folder. Returns its path."""
    Path(store).mkdir(parents=True, exist_ok=True)
    path = Path(store) / f"cost_{datetime.now():%Y%m%d_%H%M%S_%f}.json"
    write_atomically(path, json.dumps(record, indent=1) + "\n")
    return path
