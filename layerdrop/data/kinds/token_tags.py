"""A label for each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from layerdrop.data.kinds.classes import Classes

if TYPE_CHECKING:
    import torch

    from layerdrop.data.tables import Table

IGNORED = -100
"""Label of a token without a prediction, as in the library."""


@dataclass(frozen=True)
class TokenTags(Classes):
    """A class for each token. A unit is a token whose label is not IGNORED."""

    label_type = "token"
    problem_type = None

    @classmethod
    @override
    def predicted_by(cls, config: Any, architecture: str) -> bool:
        return architecture.endswith(("ForTokenClassification", "ForMaskedLM"))

    @override
    def units(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        labeled = labels != IGNORED
        return logits[labeled], labels[labeled]

    @classmethod
    @override
    def found_in(cls, table: Table, label: str) -> bool:
        return False
