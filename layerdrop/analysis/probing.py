"""Probing: a linear classifier on the states of each layer. The protocol is ours; Sajjad et al. (2023) do not say
theirs (Figure 3).

At every point (the embeddings, and behind each layer) a logistic regression, or a ridge regression for values, is
trained on the sentence token or on the mean over tokens, standardised. The strength of its regularisation is chosen on
a held-out 15% of the training set (a fixed seed, the same share of each class). Then it is trained on all of it, and
scored on the development set by the task's metric.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from layerdrop.analysis.layers import points_of
from layerdrop.data.batches import Collator
from layerdrop.data.tasks import Task
from layerdrop.data.tokens import Tokenised
from layerdrop.states import layer_states, sentence_tokens

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of the regularisation."""
ITERATIONS = 500
"""Limit of L-BFGS."""
HELD_OUT, SEED = 0.15, 41


def probe(
    model: PreTrainedModel,
    train: Tokenised,
    development: Tokenised,
    task: Task,
    collate: Collator,
    *,
    token: str = "sentence",
    batch_size: int = 32,
) -> list[float]:
    """The development score at every point, n_layers + 1 fractions; both sets with labels.

    model: an encoder in evaluation mode, on its device. token: `sentence`, or `mean` over real tokens. Features lie in
    a temporary file: memory holds those of one point.
    """
    with tempfile.TemporaryDirectory() as folder:
        x, x_dev = (
            features(model, data, collate, token, batch_size, Path(folder) / name)
            for name, data in (("train", train), ("development", development))
        )
        points = tqdm(range(x.n_points), desc="probes", delay=2, leave=False)
        return [fit_and_score(x.at(i), train.labels, x_dev.at(i), development.labels, task) for i in points]


class Features:
    """One vector for each point and row, (n_points, rows, hidden) float32, in a file, which is read and written instead
    of mapped: mapped pages count as memory of the process."""

    def __init__(self, file: Path, n_points: int, rows: np.ndarray, hidden: int):
        """rows: (rows,) the order in which they are written, as places in the source."""
        self.file, self.n_points, self.rows, self.hidden = file, n_points, rows, hidden
        file.touch()

    def write(self, start: int, values: np.ndarray) -> None:
        """values: (n_points, n, hidden), of the rows that are written from place `start` on."""
        with open(self.file, "r+b") as file:
            for point, of_point in enumerate(values):
                file.seek(self._offset(point) + start * self.hidden * 4)
                file.write(of_point.astype(np.float32).tobytes())

    def at(self, point: int) -> np.ndarray:
        """(rows, hidden) of one point, in the order of the source."""
        size = len(self.rows) * self.hidden
        written = np.fromfile(self.file, np.float32, size, offset=self._offset(point)).reshape(-1, self.hidden)
        found = np.empty_like(written)
        found[self.rows] = written
        return found

    def _offset(self, point: int) -> int:
        return point * len(self.rows) * self.hidden * 4


def features(
    model: PreTrainedModel, data: Tokenised, collate: Collator, token: str, batch_size: int, file: Path
) -> Features:
    """Those of n_layers + 1 points, from one pass over the data."""
    dataset = data.longest_first()
    found = Features(file, model.config.num_hidden_layers + 1, dataset.rows, model.config.hidden_size)
    for start in tqdm(range(0, len(data), batch_size), desc="states", delay=2, leave=False):
        batch = collate([dataset[i] for i in range(start, min(start + batch_size, len(data)))])
        points = torch.stack(points_of(layer_states(model, batch))).float()
        mask = batch["attention_mask"].to(points.device)
        if token == "mean":
            real = mask[..., None]
            values = (points * real).sum(2) / real.sum(1)
        else:
            values = points[:, torch.arange(len(mask), device=mask.device), sentence_tokens(model, mask)]
        found.write(start, values.cpu().numpy())
    return found


def fit_and_score(x: np.ndarray, y: Sequence, x_dev: np.ndarray, y_dev: Sequence, task: Task) -> float:
    """Of one point. x: (rows, hidden); y: class ids or values."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    y, y_dev = np.asarray(y), np.asarray(y_dev)
    scale = StandardScaler().fit(x)
    x, x_dev = scale.transform(x), scale.transform(x_dev)
    parts = dict(test_size=HELD_OUT, random_state=SEED, stratify=task.kind.stratified_by(y))
    fit, held = train_test_split(np.arange(len(x)), **parts)
    tried = [_score(_fit(x[fit], y[fit], strength, task), x[held], y[held], task) for strength in STRENGTHS]
    best = STRENGTHS[int(np.argmax(np.nan_to_num(tried, nan=-1.0)))]
    return _score(_fit(x, y, best, task), x_dev, y_dev, task)


def _fit(x: np.ndarray, y: np.ndarray, strength: float, task: Task):
    from sklearn.exceptions import ConvergenceWarning

    model = task.kind.linear_model(strength, ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the protocol has at most ITERATIONS
        return model.fit(x, y)


def _score(model, x: np.ndarray, y: np.ndarray, task: Task) -> float:
    return task.kind.measure((task.selection_metric,), model.predict(x), y)[task.selection_metric]
