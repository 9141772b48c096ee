"""Evaluation of a classifier on a dataset: logits, predictions and metrics, without a Trainer or a folder."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from layerdrop.data.batches import batches
from layerdrop.data.labels import Labels
from layerdrop.data.tokens import TokenizedDataset
from layerdrop.finetune.objectives import model_inputs
from layerdrop.finetune.precision import autocast, head_in_fp32
from layerdrop.system.distributed import gather, rank, world_size
from layerdrop.system.progress import progress


@dataclass(frozen=True)
class Evaluation:
    """Results for n rows in the order of the source."""

    metrics: dict[str, float]
    """`loss` and the task's metrics, as fractions; empty without labels."""
    predictions: np.ndarray
    """n predictions of the task's kind, with class ids in the task's order."""
    logits: np.ndarray
    """(units, outputs) float32; columns in the model's order of classes. A unit is a row, or a token with a label."""
    seconds: float


def evaluate(
    model: PreTrainedModel,
    dataset: TokenizedDataset,
    labels: Labels,
    collate: Callable[[list[dict]], dict[str, torch.Tensor]],
    *,
    batch_size: int = 32,
    precision: str = "fp32",
) -> Evaluation:
    """Evaluate a classifier on its device, without changing its training mode or the random state.

    dataset: with labels in the model's order, or without labels. Under torch.distributed, each process computes a share
    of the batches, and all processes return the whole result. Raises FloatingPointError for logits that are not finite.
    """
    start = time.perf_counter()
    logits = logits_of(model, dataset, collate, batch_size, precision)
    if not np.isfinite(logits).all():
        raise FloatingPointError(
            "the model's outputs are not finite: training diverged, or the checkpoint is damaged. "
            "Try a lower --learning_rate or --precision fp32"
        )
    scores = {} if dataset.labels is None else labels.score(logits, dataset)
    return Evaluation(scores, labels.decide(logits, dataset), logits, time.perf_counter() - start)


@dataclass(frozen=True)
class Evaluator:
    """A callable that evaluates a model on a split. `evaluate` describes the other fields."""

    datasets: Mapping[str, TokenizedDataset]
    """Split -> examples: `validation`; for MNLI `validation_matched`, `validation_mismatched`."""
    labels: Labels
    collate: Callable[[list[dict]], dict[str, torch.Tensor]]
    batch_size: int = 32
    precision: str = "fp32"

    def __call__(self, model: PreTrainedModel, split: str) -> Evaluation:
        """Evaluate a model on a split."""
        return evaluate(
            model,
            self.datasets[split],
            self.labels,
            self.collate,
            batch_size=self.batch_size,
            precision=self.precision,
        )


def logits_of(
    model: PreTrainedModel, dataset: TokenizedDataset, collate, batch_size: int, precision: str
) -> np.ndarray:
    """Compute logits (units, outputs), float32, in the order of the source."""
    all_batches, ordered = batches(dataset, batch_size), dataset.longest_first()
    numbers = range(rank(), len(all_batches), world_size())
    was_training = model.training
    model.eval()
    computed: dict[int, torch.Tensor] = {}
    try:
        with torch.no_grad(), head_in_fp32(model), autocast(model.device, precision):
            for number in progress(numbers, "evaluate"):
                batch = model_inputs(collate(all_batches[number]))
                inputs = {name: tensor.to(model.device, non_blocking=True) for name, tensor in batch.items()}
                rows = ordered.rows[number * batch_size : (number + 1) * batch_size]
                computed[number] = dataset.units(model(**inputs).logits.float(), batch["attention_mask"], rows)
    finally:
        model.train(was_training)
    on_host = {number: logits.cpu().numpy() for number, logits in computed.items()}
    parts = {number: logits for part in gather(on_host) for number, logits in part.items()}
    return ordered.in_order(np.concatenate([parts[number] for number in range(len(all_batches))]))
