"""Scores of layers: the table of criteria, and what computes them."""

from layerdrop.criteria.table import SCORERS, WEIGHT_SCOPES, Scorer

__all__ = ["SCORERS", "WEIGHT_SCOPES", "Scorer"]
