"""Record the stages of a run."""

from collections.abc import Mapping, Sequence

import numpy as np

from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.selection import Selection
from layerdrop.data.examples import Examples
from layerdrop.data.labels import Labels
from layerdrop.data.tasks import metric_prefix
from layerdrop.data.tokens import TokenizedDataset, notes_on_unknown_tokens
from layerdrop.finetune.evaluate import Evaluation
from layerdrop.finetune.gradual import DropSchedule
from layerdrop.finetune.trainer import FineTuner
from layerdrop.loading import number_of_parameters
from layerdrop.runs.inputs import RunInputs
from layerdrop.runs.model import dropped_before_training
from layerdrop.runs.record import Clock, Cut, RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.surgery import kept_layers
from layerdrop.system.process import busy_note


def inputs(record: RunRecord, read: RunInputs, teacher: Checkpoint | None) -> None:
    """Record the inputs that were read. teacher: None if the run has no teacher, or if it is not trained yet."""
    spec, task, data, checkpoint, labels = record.spec, read.data.task, read.data, read.checkpoint, read.labels
    record.n_layers = checkpoint.n_original
    record.labels, record.text_columns = list(task.labels), list(task.texts)
    record.label_type, record.label_threshold = task.label_type, task.kind.threshold
    record.positive_label = task.positive_label
    for split, rows in data.examples.items():
        record.data[split] = {"rows": len(rows), "bad_rows": rows.bad_rows, "fingerprint": rows.fingerprint()}
    if data.also_in_train:
        record.data["validation"]["also_in_train"] = data.also_in_train
    record.dropped_before = [i for i in range(checkpoint.n_original) if i not in checkpoint.original_ids]
    notes = [*data.notes, *checkpoint.notes]
    if record.dropped_before:
        notes.append(
            f"the checkpoint has {checkpoint.n_layers} of {checkpoint.n_original} layers: it was already reduced"
        )
    if read.max_length < (requested := spec.data.max_seq_length):
        n = read.max_length
        notes.append(
            f"--max_seq_length {requested}: the model reads at most {n} tokens, so longer texts are truncated to {n}"
        )
    if labels.order is not None:
        notes.append(f"the checkpoint's order of labels is used: {', '.join(labels.names)}")
    for head in (labels, Labels(task, teacher)) if teacher else (labels,):
        if head.checkpoint and (pairs := head.pairs):
            notes.append(
                f"{head.checkpoint.flag} {head.checkpoint.name}: its labels differ from those of {task.name}: {pairs}. "
                "If this is wrong, correct its config.json (id2label, label2id)"
            )
    if spec.train and spec.train.label_smoothing_factor and not task.kind.smoothed:
        notes.append(f"--label_smoothing_factor has no effect on {task.name}, whose labels are {task.kind}")
    if spec.train and spec.train.class_weights and not task.kind.named:
        notes.append(f"--class_weights has no effect on {task.name}, whose labels are {task.kind}")
    if busy := busy_note():
        notes.append(busy)
    record.notes += notes


def tokens(record: RunRecord, datasets: Mapping[str, TokenizedDataset], read: RunInputs) -> None:
    """Note validation splits whose tokens are mostly unknown to the tokenizer."""
    for split, data in datasets.items():
        if split.startswith("validation"):
            record.notes += notes_on_unknown_tokens(data, read.tokenizer, split)


def selection(record: RunRecord, checkpoint: Checkpoint, selection: Selection, labels: Labels) -> None:
    """Record the selected layers, and the parameters before and after."""
    when = record.spec.when
    why = selection.why + (", frozen" if when.frozen else "")
    record.cuts = [cut(checkpoint, 0, dropped_before_training(record.spec, selection), why, selection.scores)]
    record.fingerprints |= selection.fingerprints
    if selection.head:
        record.notes.append(f"scores are measured with {selection.head}")
    record.parameters_before = number_of_parameters(checkpoint, **labels.head)
    last = [] if when.frozen else selection.dropped
    record.parameters_after = number_of_parameters(checkpoint, last, **labels.head)
    if checkpoint.family.shared and selection.dropped:
        record.notes.append(
            f"{checkpoint.family.name} uses one layer n times, so all strategies give the same model. "
            "Dropping saves time, but no parameters"
        )


def drop_schedule(spec: RunSpec, checkpoint: Checkpoint, selection: Selection) -> DropSchedule | None:
    """The schedule of gradual dropping; None for a run without gradual dropping."""
    order = tuple(checkpoint.original_ids[i] for i in selection.order)
    return DropSchedule(order, *spec.when.gradual) if spec.when.gradual else None


def gradual_cuts(record: RunRecord, checkpoint: Checkpoint, selection: Selection, steps_per_epoch: int = 0) -> None:
    """Record the cuts of gradual dropping. steps_per_epoch: 0 if unknown, before the training."""
    if (schedule := drop_schedule(record.spec, checkpoint, selection)) is None:
        return
    for epochs in schedule.drops():
        dropped = [checkpoint.original_ids.index(i) for i in schedule.dropped(epochs)]
        why = f"{selection.why}: after {epochs} epochs"
        record.cuts.append(cut(checkpoint, epochs * steps_per_epoch, dropped, why, selection.scores))


def cut(checkpoint: Checkpoint, step: int, dropped: Sequence[int], why: str, scores: list[float] | None = None) -> Cut:
    """Return the Cut for a record. dropped: layers in the checkpoint's numbering."""
    kept = [checkpoint.original_ids[i] for i in kept_layers(checkpoint.config, dropped)]
    return Cut(step, [i for i in range(checkpoint.n_original) if i not in kept], kept, why, scores)


def class_weights(record: RunRecord, train: TokenizedDataset, labels: Labels) -> np.ndarray | None:
    """Record and return the weights of the classes in the loss, in the model's order. None for a loss without weights.

    train: the training set, with labels in the model's order.
    """
    weighted = record.spec.train and record.spec.train.class_weights
    weights: np.ndarray | None = labels.kind.balanced_weights(train.labels) if weighted else None
    if weights is None:
        return None
    record.class_weights = {name: float(weight) for name, weight in zip(labels.names, weights, strict=True)}
    return weights


def training(record: RunRecord, trainer: FineTuner, clock: Clock) -> None:
    """Record the results of a training."""
    record.epochs, record.steps, record.train_loss = trainer.epochs, trainer.state.global_step, trainer.train_loss
    record.resumed_at_step = trainer.resumed_at_step
    record.tokens_per_second, record.padding_share = trainer.throughput
    clock.add("train", trainer.seconds)
    clock.add("evaluate", trainer.evaluate_seconds)


def evaluation(record: RunRecord, split: str, evaluation: Evaluation, examples: Examples, labels: Labels) -> None:
    """Record the predictions' statistics on a split and, for a validation split, the metrics."""
    predictions, kind = evaluation.predictions, labels.kind
    record.distinct_predictions[split] = kind.n_distinct(predictions)
    if (width := kind.range_in_deviations(predictions, examples.labels)) is not None:
        record.prediction_range[split] = width
    if split.startswith("validation"):
        prefix = metric_prefix(split)
        record.metrics |= {f"{prefix}{name}": value for name, value in evaluation.metrics.items()}
        if by_class := kind.f1_by_class(predictions, examples.labels):
            record.class_f1[split] = by_class


def inference(clock: Clock, evaluations: Mapping[str, Evaluation]) -> None:
    """Record the seconds of the last pass over each validation split."""
    if seconds := [evaluation.seconds for split, evaluation in evaluations.items() if split.startswith("validation")]:
        clock.seconds["inference"] = sum(seconds)
