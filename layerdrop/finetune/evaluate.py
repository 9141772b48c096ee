"""One pass of a classifier over a dataset: logits, predictions and metrics, without a Trainer and without a folder."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from layerdrop.data import metrics
from layerdrop.data.batches import batches
from layerdrop.data.tasks import Task
from layerdrop.data.tokens import Tokenised
from layerdrop.finetune.precision import autocast, head_in_fp32
from layerdrop.system.distributed import gather, rank, world_size


@dataclass(frozen=True)
class Evaluation:
    """Results for n rows in the order of the source."""

    metrics: dict[str, float]
    """`loss` and the task's metrics, as fractions; empty without labels."""
    predictions: np.ndarray
    """(n,) class ids in the task's order, or values."""
    logits: np.ndarray
    """(n, classes) float32; columns in the model's order of classes; (n, 1) for regression."""
    seconds: float


def evaluate(
    model: PreTrainedModel,
    dataset: Tokenised,
    task: Task,
    collate: Callable[[list[dict]], dict[str, torch.Tensor]],
    *,
    batch_size: int = 32,
    precision: str = "fp32",
    task_ids: np.ndarray | None = None,
) -> Evaluation:
    """Evaluate a classifier on its device. The model's training mode and the random state stay as they are.

    dataset: its labels, if any, are class ids in the model's order, or values. task_ids: (classes,) the task's class id
    for each of the model's, where the checkpoint has an order of its own. Under torch.distributed each process computes
    a share of the batches, and all get the whole result. Raises FloatingPointError for logits that are not finite.
    """
    start = time.perf_counter()
    logits = logits_of(model, dataset, collate, batch_size, precision)
    if not np.isfinite(logits).all():
        raise FloatingPointError(
            "the model's outputs are not finite: training diverged. Try a lower --learning_rate or --precision fp32"
        )
    predictions = decide(logits, task, task_ids)
    scores = {} if dataset.labels is None else score(logits, dataset.labels, task, task_ids)
    return Evaluation(scores, predictions, logits, time.perf_counter() - start)


def decide(logits: np.ndarray, task: Task, task_ids: np.ndarray | None = None) -> np.ndarray:
    """(n, classes) logits -> (n,) class ids in the task's order; (n, 1) -> (n,) values. task_ids: as in evaluate."""
    if task.is_regression:
        return logits.reshape(-1)
    ids = logits.argmax(axis=-1)
    return ids if task_ids is None else task_ids[ids]


def score(logits: np.ndarray, labels: np.ndarray, task: Task, task_ids: np.ndarray | None = None) -> dict[str, float]:
    """`loss` (mean over rows) and the task's metrics. labels: (n,) class ids in the model's order, or values."""
    loss = task_loss(torch.from_numpy(logits), torch.from_numpy(np.asarray(labels)), task.is_regression)
    in_task_order = labels if task.is_regression or task_ids is None else task_ids[labels]
    found = metrics.compute(task.metrics, decide(logits, task, task_ids), in_task_order, task.positive)
    return {"loss": float(loss), **found}


def task_loss(
    logits: torch.Tensor, labels: torch.Tensor, regression: bool, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Mean over rows, in fp32: squared error of (n, 1) logits, or cross-entropy of (n, classes). labels: (n,)."""
    if regression:
        return torch.nn.functional.mse_loss(logits.float().squeeze(-1), labels.float())
    return torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


def logits_of(model: PreTrainedModel, dataset: Tokenised, collate, batch_size: int, precision: str) -> np.ndarray:
    """(n, classes) float32, in the order of the source."""
    all_batches = batches(dataset, batch_size)
    numbers = range(rank(), len(all_batches), world_size())
    was_training = model.training
    model.eval()
    computed: dict[int, torch.Tensor] = {}
    try:
        with torch.no_grad(), head_in_fp32(model), autocast(model.device, precision):
            for number in tqdm(numbers, desc="evaluate", delay=2, leave=False, disable=None):
                computed[number] = model(**_inputs(collate(all_batches[number]), model.device)).logits.float()
    finally:
        model.train(was_training)
    parts = {number: logits for part in gather(_on_host(computed)) for number, logits in part.items()}
    in_order = np.concatenate([parts[number] for number in range(len(all_batches))])
    logits = np.empty_like(in_order)
    logits[dataset.longest_first().rows] = in_order
    return logits


def _inputs(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items() if name != "labels"}


def _on_host(computed: dict[int, torch.Tensor]) -> dict[int, np.ndarray]:
    return {number: logits.cpu().numpy() for number, logits in computed.items()}
