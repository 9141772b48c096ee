"""Probing: score of a linear classifier on the states after each layer (Sajjad et al. 2023, Figure 3).

The paper does not describe its protocol. Our protocol trains a logistic regression (for values: a ridge regression)
after the embeddings and after each layer, on the standardized states of the sentence token or the mean over tokens. The
regularization is chosen on 15% of the training set (a fixed seed, the same share of each class). The classifier is then
trained on the whole training set, and scored on the validation set by the task's metric."""

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from layerdrop.analysis.layers import points_of
from layerdrop.data.batches import Collator
from layerdrop.data.tasks import Task
from layerdrop.data.tokens import TokenizedDataset
from layerdrop.errors import UserError
from layerdrop.states import layer_states, sentence_tokens
from layerdrop.system.progress import progress

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of the regularization."""
ITERATIONS = 500
"""Limit of L-BFGS."""
HELD_OUT, SEED = 0.15, 41


def probe(
    model: PreTrainedModel,
    train: TokenizedDataset,
    validation: TokenizedDataset,
    task: Task,
    collate: Collator,
    *,
    token: str = "sentence",
    batch_size: int = 32,
) -> list[float]:
    """Validation scores at the n_layers + 1 points, as fractions. Both sets have labels.

    model: an encoder in evaluation mode, on its device. token: `sentence`, or `mean` over real tokens. Features are
    stored in temporary files. Only the features of one point are in memory.
    """
    if train.words is not None:
        raise UserError(
            f"probe: {task.name} has labels of tokens, but a probe predicts one label for each text. Choose another "
            "task, or another analysis."
        )
    with tempfile.TemporaryDirectory() as folder:
        x, x_val = (
            features(model, data, collate, token, batch_size, Path(folder) / name)
            for name, data in (("train", train), ("validation", validation))
        )
        points = progress(range(len(x.files)), "probes")
        return [fit_and_score(x.at(i), train.labels, x_val.at(i), validation.labels, task) for i in points]


@dataclass(frozen=True)
class Features:
    """A float32 vector for each point and row, in a file for each point. (Pages of a memory-mapped file would count as
    memory of the process.)"""

    files: list[Path]
    rows: np.ndarray
    """(rows,) index in the source of each row of the files."""

    def at(self, point: int) -> np.ndarray:
        """(rows, hidden) features of a point, in the order of the source."""
        written = np.fromfile(self.files[point], np.float32).reshape(len(self.rows), -1)
        in_order = np.empty_like(written)
        in_order[self.rows] = written
        return in_order


def features(
    model: PreTrainedModel, data: TokenizedDataset, collate: Collator, token: str, batch_size: int, folder: Path
) -> Features:
    """Compute the features of the n_layers + 1 points in one pass over the data. folder: a new folder for the files."""
    folder.mkdir()
    dataset, files = data.longest_first(), [folder / str(i) for i in range(model.config.num_hidden_layers + 1)]
    for start in progress(range(0, len(data), batch_size), "states"):
        batch = collate([dataset[i] for i in range(start, min(start + batch_size, len(data)))])
        points = torch.stack(points_of(layer_states(model, batch))).float()
        mask = batch["attention_mask"].to(points.device)
        if token == "mean":
            real = mask[..., None]
            values = (points * real).sum(2) / real.sum(1)
        else:
            values = points[:, torch.arange(len(mask), device=mask.device), sentence_tokens(model, mask)]
        for file, of_point in zip(files, values.cpu().numpy(), strict=True):
            with open(file, "ab") as stream:
                stream.write(of_point.tobytes())
    return Features(files, dataset.rows)


def fit_and_score(x: np.ndarray, y: Sequence, x_val: np.ndarray, y_val: Sequence, task: Task) -> float:
    """Validation score of a linear classifier. x: (rows, hidden); y: class ids or values."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    y, y_val = np.asarray(y), np.asarray(y_val)
    scale = StandardScaler().fit(x)
    x, x_val = scale.transform(x), scale.transform(x_val)
    stratify = task.kind.stratified_by(y)
    fit, held = train_test_split(np.arange(len(x)), test_size=HELD_OUT, random_state=SEED, stratify=stratify)
    tried = [_score(_fit(x[fit], y[fit], strength, task), x[held], y[held], task) for strength in STRENGTHS]
    best = STRENGTHS[int(np.argmax(np.nan_to_num(tried, nan=-1.0)))]
    return _score(_fit(x, y, best, task), x_val, y_val, task)


def _fit(x: np.ndarray, y: np.ndarray, strength: float, task: Task):
    model = task.kind.linear_model(strength, ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # not converged after ITERATIONS, or a label that is constant
        return model.fit(x, y)


def _score(model, x: np.ndarray, y: np.ndarray, task: Task) -> float:
    return task.kind.measure((task.selection_metric,), model.predict(x), y)[task.selection_metric]
