"""layerdrop: drop layers of a pre-trained transformer encoder, fine-tune the reduced model, and report the results."""

from importlib import import_module
from typing import Any

__version__ = "0.3.0"
_PUBLIC = {
    "DistillationLoss": "layerdrop.finetune.distillation",
    "DropSchedule": "layerdrop.finetune.gradual",
    "ElasticDepthLoss": "layerdrop.finetune.elastic",
    "GradualDrop": "layerdrop.finetune.gradual",
    "LayerDropLoss": "layerdrop.finetune.layer_drop",
    "TheseusLoss": "layerdrop.finetune.theseus",
    "drop_layers": "layerdrop.surgery",
    "load": "layerdrop.deploy.predict",
    "load_classifier": "layerdrop.loading",
    "without": "layerdrop.surgery",
    "DataSpec": "layerdrop.data.spec",
    "DropSpec": "layerdrop.criteria.spec",
    "ModelSpec": "layerdrop.architectures",
    "TrainSpec": "layerdrop.finetune.spec",
    "Checkpoint": "layerdrop.checkpoints",
    "Options": "layerdrop.runs.spec",
    "original_layers": "layerdrop.architectures",
    "reduced_config": "layerdrop.surgery",
    "select": "layerdrop.criteria.table",
    "STRATEGIES": "layerdrop.criteria.table",
    "FAMILIES": "layerdrop.architectures",
    "TASKS": "layerdrop.data.tasks",
    "RunRecord": "layerdrop.runs.record",
    "RunSpec": "layerdrop.runs.spec",
    "UserError": "layerdrop.errors",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name on first use: torch and transformers take seconds to import."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'layerdrop' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return [*globals(), *_PUBLIC]
