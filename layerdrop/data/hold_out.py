"""Hold out a share of the training set: searches choose by it, and never see the development set."""

import numpy as np

from layerdrop.data.examples import Examples
from layerdrop.data.tasks import Task
from layerdrop.errors import UserError

SEED = 41
"""Seed of the draw (GLP's). The same rows are held out for every model and every seed of a run."""


def hold_out(train: Examples, share: float, task: Task) -> tuple[Examples, Examples]:
    """(the rest, the part held out) of a training set, both in the order of the source.

    The share is drawn at random among the rows of each class (GLP, Peer et al. 2022, draws among all rows); with values
    instead of classes among all. Raises UserError for a class that is too small to be in both parts.
    """
    groups = [np.arange(len(train))] if task.is_regression else _classes(train.labels)
    generator = np.random.default_rng(SEED)
    held: list[int] = []
    for rows in groups:
        n = round(share * len(rows))
        if not 0 < n < len(rows):
            name = "the training set" if task.is_regression else f"class '{task.labels[train.labels[rows[0]]]}'"
            raise UserError(
                f"--hold_out {share:g}: {name} has {len(rows)} row{'s' * (len(rows) != 1)}, too few to be trained "
                "on and held out. Give another share, or more rows."
            )
        held += generator.permutation(rows)[:n].tolist()
    rest = np.setdiff1d(np.arange(len(train)), held).tolist()
    return train.take(rest), train.take(sorted(held))


def _classes(labels: np.ndarray) -> list[np.ndarray]:
    """The rows of each class that occurs, in id order."""
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
