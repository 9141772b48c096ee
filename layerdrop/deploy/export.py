"""Export of a run's model: converted, checked against the run, evaluated, and only then written to its folder."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.deploy.onnx import FILE, OnnxClassifier, check_packages, export_onnx, latency, quantise
from layerdrop.deploy.snippets import lines
from layerdrop.errors import UserError
from layerdrop.finetune.evaluate import Evaluation, evaluate
from layerdrop.finetune.spec import WhenSpec
from layerdrop.loading import load_classifier, quiet
from layerdrop.runs.inputs import RunInputs
from layerdrop.runs.record import RunRecord, read_record
from layerdrop.runs.results import CARD_FILE
from layerdrop.runs.spec import Options
from layerdrop.runs.status import holds_model
from layerdrop.runs.training_arguments import training_arguments
from layerdrop.system.files import (
    folder_beside,
    foreign_file,
    hash_file,
    hashes_in,
    make_folder,
    put_in_place,
    write_atomically,
)

EXPORT_FILE = "export.json"
"""File with the facts of an export and the hashes of its other files."""
SINGLE, BATCH = 1, 32
"""Batch sizes of the latencies."""


Classifier = Callable[[dict[str, torch.Tensor]], Any]


@dataclass
class Variant:
    """One form of a model: its size, score and latency."""

    name: str
    megabytes: float
    score: float
    """Points of the task's metric on the development set."""
    latency: dict[int, list[float]] = field(default_factory=dict)
    """Batch size -> milliseconds for a text, one for each round."""


@dataclass
class Export:
    """The result of an export."""

    run: str
    metric: str
    forms: list[Variant]
    """The run's model in torch, fp32, first; the one that is written last."""
    largest_difference: float = 0.0
    """Largest difference of a logit between the fp32 form and torch."""
    changed: int = 0
    """Rows of the development set that the fp32 form predicts otherwise; of values: beyond a thousandth."""
    rows: int = 0
    models: dict[str, Classifier] = field(default_factory=dict)
    """Name of a form -> the classifier to time."""
    written: bool = False

    @property
    def loss(self) -> float:
        """Points that the written form loses against the run's model."""
        return self.forms[0].score - self.forms[-1].score


class ExportedRun:
    """The model of a run, and the development data that it is checked on."""

    def __init__(self, folder: str, places: Mapping[str, str] | None = None):
        """places: as in `data_to_check_on`. Raises UserError without a trained model of a successful run, or without
        data."""
        record = _record(folder)
        spec = record.spec
        spec = replace(
            spec,
            model=ModelSpec(folder),
            drop=DropSpec(),
            when=WhenSpec(),
            train=None,
            start=None,
            distil=None,
            theseus=None,
            precision="fp32",
            processes=1,
            data=data_to_check_on(record, places or {}),
        )
        self.folder, self.record, self.metric = folder, record, record.task.selection_metric
        self.checkpoint, options = Checkpoint.open(folder), Options(folder=folder, use_cpu=True, save_model=False)
        self.inputs = RunInputs.read(spec, options, training_arguments(spec, options), self.checkpoint)
        self.split = self.inputs.data.splits("validation")[0]
        self.model: PreTrainedModel = load_classifier(self.checkpoint, replace_head=False)[0]

    def export(
        self, form: str, folder: str, *, int8: bool = False, max_loss: float = 1.0, force: bool = False
    ) -> Export:
        """Write the model into a folder as `safetensors` or `onnx`.

        int8: with onnx: quantised. A form that loses more than max_loss points on the development set is not written,
        unless `force`.
        """
        if form == "onnx":
            check_packages()
        check_output(folder)
        target = Path(os.path.realpath(folder))
        with folder_beside("--output", target) as made:
            found = self._onnx(made, int8) if form == "onnx" else self._safetensors(made)
            found.written = found.loss <= max_loss or force
            if found.written:
                self._write_beside(made, found)
                check_output(folder)
                put_in_place(made, target)
        return found

    def batches(self, size: int, texts: int = 64) -> list[dict[str, torch.Tensor]]:
        """The first texts of the development set."""
        data = self.inputs.dataset(self.split)
        rows = [data[i] for i in range(min(texts, len(data)))]
        return [self.inputs.collate(rows[i : i + size]) for i in range(0, len(rows), size)]

    def _evaluate(self, model: PreTrainedModel) -> Evaluation:
        inputs = self.inputs
        return evaluate(model, inputs.dataset(self.split), inputs.labels, inputs.collate, batch_size=inputs.batch_size)

    def _reference(self) -> tuple[np.ndarray, Variant]:
        evaluation = self._evaluate(self.model)
        size = 4 * sum(p.numel() for p in self.model.parameters()) / 1e6
        return evaluation.logits, Variant("torch fp32", size, 100 * evaluation.metrics[self.metric])

    def _safetensors(self, folder: Path) -> Export:
        with quiet():
            self.model.save_pretrained(folder)
        logits, form = self._reference()
        loaded = load_classifier(str(folder), replace_head=False)[0]
        again = self._evaluate(loaded)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
        forms = [form, Variant("safetensors", size, 100 * again.metrics[self.metric])]
        return self._compared(forms, logits, again.logits)

    def _onnx(self, folder: Path, int8: bool) -> Export:
        names = self.checkpoint.tokenizer.model_input_names
        export_onnx(self.model, names, folder / FILE)
        logits, form = self._reference()
        models = {form.name: self._torch, "onnx fp32": OnnxClassifier(folder / FILE)}
        ours, fp32 = self._scored("onnx fp32", models["onnx fp32"], folder / FILE)
        found = self._compared([form, fp32], logits, ours)
        if int8:
            small = folder / "int8.onnx"
            quantise(folder / FILE, small)
            models["onnx int8"] = OnnxClassifier(small)
            found.forms.append(self._scored("onnx int8", models["onnx int8"], small)[1])
            for file in folder.glob(f"{FILE}*"):
                file.unlink()
            small.rename(folder / FILE)
        self.model.config.save_pretrained(folder)
        found.models = models
        return found

    def _torch(self, batch: dict[str, torch.Tensor]) -> None:
        with torch.inference_mode():
            self.model(**{name: value for name, value in batch.items() if name != "labels"})

    def _scored(self, name: str, classifier: OnnxClassifier, path: Path) -> tuple[np.ndarray, Variant]:
        data = self.inputs.dataset(self.split)
        logits = classifier.logits(data, self.inputs.collate)
        size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) / 1e6
        return logits, Variant(name, size, 100 * self.inputs.labels.score(logits, data.labels)[self.metric])

    def _compared(self, forms: list[Variant], reference: np.ndarray, logits: np.ndarray) -> Export:
        kind = self.inputs.labels.kind
        changed = kind.differs(kind.decide(reference), kind.decide(logits))
        worst = float(np.abs(reference - logits).max())
        return Export(self.folder, self.metric, forms, worst, int(changed.sum()), len(changed))

    def _write_beside(self, folder: Path, found: Export) -> None:
        """Write the tokenizer and the card, then the facts with the list of files."""
        from layerdrop.runs.card import card

        self.checkpoint.tokenizer.save_pretrained(folder)
        write_atomically(folder / CARD_FILE, str(card(self.record, self._use(found))))
        facts = self._said(found) | {"files": hashes_in(folder)}
        write_atomically(folder / EXPORT_FILE, json.dumps(facts, indent=1) + "\n")

    def _use(self, found: Export) -> str:
        """How to run the model, for the card."""
        model, last = found.forms[0], found.forms[-1]
        scores = f"{last.score:.1f} points of {found.metric} on the validation set ({model.name}: {model.score:.1f})"
        code = lines(last.name.startswith("onnx"), len(self.inputs.data.task.texts) > 1, self.inputs.max_length)
        classes = " The logits are in the order of `id2label` in config.json." if self.inputs.labels.names else ""
        return f"The run's model as {last.name}: {scores}.{classes} In this folder:\n\n```python\n{code}```"

    def _said(self, found: Export) -> dict:
        record = self.record
        return {
            "run": record.id,
            "base_model": record.spec.model.name,
            "task": record.spec.data.task,
            "kept": record.kept,
            "dropped": record.dropped,
            "labels": self.inputs.labels.names,
            "text_columns": record.text_columns,
            "max_seq_length": self.inputs.max_length,
            "form": found.forms[-1].name,
            "metric": found.metric,
            "score": found.forms[-1].score,
            "loss": found.loss,
            "largest_difference": found.largest_difference,
        }


def data_to_check_on(record: RunRecord, places: Mapping[str, str]) -> DataSpec:
    """The validation set of a run. With `hold_out`: the training file that contains it.

    places: `train_file`, `validation_file`, `data_dir` -> the new place of moved data. Raises UserError if the data is
    missing.
    """
    data, folder = record.spec.data, record.folder
    own, files = data.source == "files", dict(data.files)
    held_out = own and data.hold_out and "validation_file" not in places
    flag = "train_file" if held_out else "validation_file" if own else "data_dir"
    if wrong := [name for name in places if name != flag or data.source == "demo"]:
        raise UserError(f"--{wrong[0]} {places[wrong[0]]}: the run in {folder} does not read it. Leave it out.")
    split = flag.removesuffix("_file")
    place = places.get(flag, files.get(split) if own else data.source)
    if place is None:
        raise UserError(
            f"{folder}: its run had no validation set, but an export is checked on one. Give it with --validation_file."
        )
    if place not in ("hub", "demo") and not Path(place).expanduser().exists():
        raise UserError(
            f"--{flag} {place}: the run in {folder} reads it, but it does not exist. Give its new place with --{flag}."
        )
    if not own:
        return replace(data, source=place)
    share, columns = data.hold_out if held_out else None, tuple(record.text_columns)
    return replace(data, files=((split, place),), hold_out=share, text_columns=columns)


def check_output(folder: str) -> None:
    """Raise UserError unless a folder is empty or holds only an earlier export."""
    target = Path(os.path.realpath(folder))
    make_folder("--output", target.parent)
    if target.exists() and not target.is_dir():
        raise UserError(f"--output {folder}: is not a folder. Choose another name.")
    if target == Path.cwd() or target.is_mount():
        raise UserError(f"--output {folder}: is the working folder or a mount point. Name a folder in it.")
    if name := foreign_file(target, _listed(target)):
        raise UserError(
            f"--output {folder}: holds {name}, which no export has written, or which has changed since. "
            "Move it away, or choose another folder."
        )


def _listed(target: Path) -> dict[str, str]:
    """Hashes of an earlier export's files. Empty without a readable list."""
    path = target / EXPORT_FILE
    try:
        return {**json.loads(path.read_text(encoding="utf-8"))["files"], EXPORT_FILE: hash_file(path)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def time_in_turn(runs: Sequence[ExportedRun], exports: Sequence[Export]) -> None:
    """Fill in the latencies of all forms of all runs, which take turns."""
    for size in (SINGLE, BATCH):
        texts = [run.batches(size) for run in runs]
        places = [(i, name) for i, one in enumerate(exports) for name in one.models]
        seconds = latency([(exports[i].models[name], texts[i]) for i, name in places])
        for (i, name), found in zip(places, seconds, strict=True):
            next(form for form in exports[i].forms if form.name == name).latency[size] = found


def _record(folder: str) -> RunRecord:
    try:
        record = read_record(folder)
    except ValueError as error:
        raise UserError(str(error)) from None
    if record is None or record.status != "success" or not holds_model(folder):
        raise UserError(f"{folder}: no run with a trained model is there. Give the folder of one that kept its model.")
    return record
