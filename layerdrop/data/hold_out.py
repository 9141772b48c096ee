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
    generator = np.random.default_rng(SEED)
    held: list[int] = []
    for rows in task.kind.strata(train.labels):
        n = round(share * len(rows))
        if not 0 < n < len(rows):
            name = f"class '{task.labels[train.labels[rows[0]]]}'" if task.labels else "the training set"
            raise UserError(
                f"--hold_out {share:g}: {name} has {len(rows)} row{'s' * (len(rows) != 1)}, too few to be trained "
                "on and held out. Give another share, or more rows."
            )
        held += generator.permutation(rows)[:n].tolist()
    rest = np.setdiff1d(np.arange(len(train)), held).tolist()
    return train.take(rest), train.take(sorted(held))
