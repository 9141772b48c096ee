"""Kinds of labels, one file each. Only this folder distinguishes them. All other modules ask a `Kind`."""

from layerdrop.data.kinds.classes import Classes
from layerdrop.data.kinds.kind import Kind
from layerdrop.data.kinds.label_sets import LabelSets
from layerdrop.data.kinds.token_tags import TokenTags
from layerdrop.data.kinds.values import Values

__all__ = ["KINDS", "Classes", "Kind", "LabelSets", "TokenTags", "Values", "kind_of"]

KINDS: dict[str, type[Kind]] = {row.label_type: row for row in (TokenTags, LabelSets, Values, Classes)}
"""Value of --label_type -> kind. The first kind that recognizes a file or a configuration is used."""


def kind_of(config, architecture: str | None = None) -> Kind:
    """The kind of labels that a classifier predicts.

    config: its PreTrainedConfig. architecture: name of the model's class; None: as in the configuration.
    """
    architecture = architecture or next(iter(getattr(config, "architectures", None) or ()), "")
    kind = next(kind for kind in KINDS.values() if kind.predicted_by(config, architecture))
    return kind.of(tuple(str(config.id2label[i]) for i in sorted(config.id2label or {})))
