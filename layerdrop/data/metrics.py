"""GLUE's metrics without the hub. The formulas (scikit-learn, SciPy) are those of the hub's metric `glue`.

Both libraries are imported at the first call, to keep the start-up fast.
"""

from collections.abc import Sequence

import numpy as np


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of predictions that equal the label; (n,) and (n,) ids."""
    return float((predictions == labels).mean())


def f1(predictions: np.ndarray, labels: np.ndarray, positive: int = 1) -> float:
    """F1 of one of two classes; (n,) and (n,) ids. 0.0 for a class that is neither predicted nor present."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, pos_label=positive, zero_division=0.0))


def f1_by_class(predictions: np.ndarray, labels: np.ndarray, n_classes: int) -> list[float]:
    """F1 of every class, in id order; arrays as for `f1_macro`. 0.0 for a class without predictions and labels."""
    from sklearn.metrics import f1_score

    return f1_score(labels, predictions, labels=range(n_classes), average=None, zero_division=0.0).tolist()


def f1_macro(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Unweighted mean of the F1 of every class; (n,) ids, or (n, classes) 0 and 1 for several labels."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def f1_micro(predictions: np.ndarray, labels: np.ndarray) -> float:
    """F1 over all rows and labels together; (n, classes) 0 and 1. 0.0 if no label is predicted or present."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="micro", zero_division=0.0))


def exact_match(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of rows whose labels are all correct; (n, classes) 0 and 1."""
    return float((predictions == labels).all(axis=1).mean())


def matthews_correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation coefficient; (n,) and (n,) ids. 0.0 for a constant prediction, as in scikit-learn."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson correlation; (n,) values each. NaN for constants, one row, or infinite values."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predictions, labels)


def spearmanr(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Spearman correlation of ranks; (n,) values each. NaN for constants, one row, or infinite values."""
    from scipy.stats import spearmanr as spearman

    return _correlation(spearman, predictions, labels)


def _correlation(function, predictions: np.ndarray, labels: np.ndarray) -> float:
    """A correlation; NaN for fewer than two rows, for constant predictions or labels, and for infinite values.

    SciPy also returns NaN, with a warning, but raises an error for fewer than two rows, and ranks infinity.
    """
    if len(labels) < 2 or not (np.isfinite(predictions).all() and np.isfinite(labels).all()):
        return float("nan")
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return float("nan")
    return float(function(predictions, labels)[0])


Tags = Sequence[Sequence[str]]
"""Tags of each sentence, in the scheme IOB or IOBES."""


def entities(predictions: Tags, labels: Tags) -> dict[str, float]:
    """`entity_f1`, `entity_precision` and `entity_recall` over all entities, by seqeval as conlleval.

    An entity is correct if its type, first and last token are correct. 0.0 without any entity.
    """
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    scores = precision_recall_fscore_support(labels, predictions, average="micro", zero_division=0)
    return dict(zip(("entity_precision", "entity_recall", "entity_f1"), map(float, scores[:3]), strict=True))


def f1_by_entity(predictions: Tags, labels: Tags) -> dict[str, float]:
    """Type of the entities -> F1; arguments as for `entities`."""
    from seqeval.metrics import f1_score
    from seqeval.metrics.sequence_labeling import get_entities

    types = sorted({name for tags in (labels, predictions) for name, _, _ in get_entities([*map(list, tags)])})
    scores = f1_score(labels, predictions, average=None, zero_division=0) if types else []
    return dict(zip(types, map(float, scores), strict=True))


METRICS = {
    function.__name__: function
    for function in (accuracy, f1, f1_macro, f1_micro, exact_match, matthews_correlation, pearson, spearmanr)
}


def compute(names: Sequence[str], predictions: np.ndarray, labels: np.ndarray, positive: int = 1) -> dict[str, float]:
    """Compute the named metrics (keys of METRICS).

    predictions, labels: (n,) class ids or values, or (n, classes) 0 and 1 for several labels. positive: the class that
    `f1` measures.
    """
    arguments = {"f1": {"positive": positive}}
    return {name: METRICS[name](predictions, labels, **arguments.get(name, {})) for name in names}


def rank_key(score: float) -> float:
    """Sort key for a score where higher is better. NaN (undefined) ranks below every number."""
    return float("-inf") if np.isnan(score) else float(score)
