"""Export the model of a run: convert, compare with the run's model, evaluate, and then write the folder."""

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
from layerdrop.checkpoints import Checkpoint, work_offline_unless_reachable
from layerdrop.data.read import on_hub
from layerdrop.data.spec import DataSpec
from layerdrop.deploy.folder import check_output
from layerdrop.deploy.onnx import FILE, OnnxClassifier, check_packages, export_onnx, latency, quantize
from layerdrop.errors import UserError
from layerdrop.finetune.evaluate import Evaluation, logits_of
from layerdrop.loading import load_classifier, quiet
from layerdrop.runs import describe
from layerdrop.runs.command import command_of
from layerdrop.runs.inputs import RunInputs
from layerdrop.runs.record import CHOICE_OF_K, RunRecord, is_constant, read_record
from layerdrop.runs.results import CARD_FILE
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.status import changed_inputs, holds_model
from layerdrop.runs.training_arguments import training_arguments
from layerdrop.system.files import hashes_in, replace_folder, temporary_folder_for, write_atomically
from layerdrop.system.text import one_line

EXPORT_FILE = "export.json"
"""File with the results of an export and the hashes of its other files."""
SINGLE, BATCH = 1, 32
"""Batch sizes of the latencies."""
ONNX = """```python
import numpy as np
import onnxruntime
from transformers import {classes}

text = {texts}
tokens = AutoTokenizer.from_pretrained(".")({arguments}, return_tensors="np")
session = onnxruntime.InferenceSession("{file}")
(logits,) = session.run(None, {{given.name: tokens[given.name] for given in session.get_inputs()}})
{output}
```"""
NAMES = 'names = AutoConfig.from_pretrained(".").id2label\n'
Classifier = Callable[[dict[str, torch.Tensor]], Any]


@dataclass
class Variant:
    """Size, score and latency of a model in one format."""

    name: str
    megabytes: float
    score: float
    """Score on the validation set by the task's selection metric, in points."""
    latency: dict[int, list[float]] = field(default_factory=dict)
    """Batch size -> milliseconds for a text, one number for each round."""


@dataclass
class Export:
    """Result of an export."""

    run: str
    metric: str
    variants: list[Variant]
    """The run's model in torch (fp32) first, the exported model last."""
    record: RunRecord
    """The run's record, with the scores of the exported model."""
    validation_set: tuple[str, int, str] = ("", 0, "")
    """Task, number of rows and fingerprint of the validation set."""
    largest_difference: float = 0.0
    """Largest difference of a logit between the exported model and torch."""
    changed: int = 0
    """Number of validation rows whose prediction by the exported model differs; for values, by more than 0.001."""
    warning: str | None = None
    """Reason why the exported model may be useless: constant predictions, or a score at chance."""
    models: dict[str, Classifier] = field(default_factory=dict)
    """Name of a variant -> the classifier to time."""
    written: bool = False

    @property
    def rows(self) -> int:
        """Number of validation rows."""
        return self.validation_set[1]

    @property
    def loss(self) -> float:
        """Score of the run's model minus score of the exported model, in points."""
        return self.variants[0].score - self.variants[-1].score


class ExportedRun:
    """The model of a run, and the validation set to evaluate its export on."""

    def __init__(self, folder: str, new_paths: Mapping[str, str] | None = None):
        """new_paths: as in `validation_data`. Raises UserError without a trained model of a successful run, without
        data, and for other rows than the run's."""
        self.folder, self.record = folder, _record(folder)
        spec = RunSpec(ModelSpec(folder), validation_data(self.record, new_paths or {}))
        if on_hub(spec.data):
            work_offline_unless_reachable()
        checkpoint, options = Checkpoint.open(folder, flag="RUN"), Options(folder=folder, use_cpu=True)
        args = training_arguments(spec, options)
        self.input = RunInputs.read(spec, options, args, checkpoint, ("validation",))
        self.labels, self.task, self.metric = self.input.labels, self.input.data.task, self.record.task.selection_metric
        self.pairs = len(self.task.texts) > 1
        self.split = self.input.data.splits("validation")[0]
        self.data = self.input.dataset(self.split)
        data = self.record.spec.data
        self.other_rows = "validation_file" in (new_paths or {}) and bool(data.hold_out or data.validation_share)
        """Whether the validation set is given instead of the held-out rows of the run."""
        self._check_rows(new_paths or {})
        self.model: PreTrainedModel = load_classifier(checkpoint, replace_head=False)[0]

    def _check_rows(self, new_paths: Mapping[str, str]) -> None:
        """Raise UserError if the validation set has changed since the run."""
        folder = self.folder
        if self.other_rows:
            return
        names, known = self.task.labels, self.record.labels
        if sorted(names) != sorted(known):
            return  # the classes count by their order, so the labels have no common ids
        now, ids = {}, np.array([known.index(name) for name in names])
        for split, rows in self.input.data.examples.items():
            in_record = replace(rows, labels=self.task.kind.renumbered(rows.labels, ids))
            now[split] = [len(rows), in_record.fingerprint()]
        if changed := changed_inputs(self.record.inputs, now, self.record.spec):
            flags = "".join(f"--{name} {path}: " for name, path in new_paths.items())
            raise UserError(
                f"{flags}the texts or labels of {', '.join(changed)} are not those of the run in {folder} (record.json "
                "has their hash). Give the run's data, or execute the run again."
            )

    def export(
        self, form: str, folder: str, *, int8: bool = False, max_loss: float = 1.0, force: bool = False
    ) -> Export:
        """Write the model into a folder as `safetensors` or `onnx`.

        int8: quantize the ONNX file. A model that loses more than max_loss points on the validation set is written only
        with `force`.
        """
        if form == "onnx":
            check_packages("--format onnx")
        check_output("--output", folder, EXPORT_FILE)
        target = Path(os.path.realpath(folder))
        with temporary_folder_for("--output", target) as new:
            result = self._onnx(new, int8) if form == "onnx" else self._safetensors(new)
            result.written = result.loss <= max_loss or force
            if result.written:
                self._write_other_files(new, result)
                check_output("--output", folder, EXPORT_FILE)
                replace_folder(new, target)
        return result

    def batches(self, size: int, texts: int = 64) -> list[dict[str, torch.Tensor]]:
        """Batches of the first texts of the validation set."""
        rows = [self.data[i] for i in range(min(texts, len(self.data)))]
        return [self.input.collate(rows[i : i + size]) for i in range(0, len(rows), size)]

    def _safetensors(self, folder: Path) -> Export:
        with quiet():
            self.model.save_pretrained(folder)
        loaded = load_classifier(str(folder), replace_head=False)[0]
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
        return self._compared([("safetensors", size, self._torch_logits(loaded))])

    def _onnx(self, folder: Path, int8: bool) -> Export:
        files = {"onnx fp32": folder / FILE}
        export_onnx(self.model, self.input.checkpoint.tokenizer.model_input_names, folder / FILE)
        if int8:
            files["onnx int8"] = folder / "int8.onnx"
            quantize(folder / FILE, files["onnx int8"])
        models = {name: OnnxClassifier(path) for name, path in files.items()}
        logits = {name: model.logits(self.data, self.input.collate) for name, model in models.items()}
        result = self._compared([(name, _megabytes(files[name]), logits[name]) for name in files])
        result.models = {result.variants[0].name: self._torch, **models}
        if int8:
            for file in folder.glob(f"{FILE}*"):
                file.unlink()
            files["onnx int8"].rename(folder / FILE)
        self.model.config.save_pretrained(folder)
        return result

    def _torch(self, batch: dict[str, torch.Tensor]) -> None:
        with torch.inference_mode():
            self.model(**{name: value for name, value in batch.items() if name != "labels"})

    def _torch_logits(self, model: PreTrainedModel) -> np.ndarray:
        return logits_of(model, self.data, self.input.collate, BATCH, "fp32")

    def _score(self, logits: np.ndarray) -> float:
        scores = self.task.kind.measure(
            (self.metric,), self.labels.decide(logits, self.data), self.labels.to_task(self.data.labels)
        )
        return 100 * scores[self.metric]

    def _compared(self, forms: Sequence[tuple[str, float, np.ndarray]]) -> Export:
        """Compare the last form with the run's model. forms: (name, megabytes, logits) of each exported form."""
        reference, logits = self._torch_logits(self.model), forms[-1][-1]
        size = 4 * sum(p.numel() for p in self.model.parameters()) / 1e6
        before, after = (self.labels.decide(of, self.data) for of in (reference, logits))
        changed = self.task.kind.differs(before, after)
        forms = [("torch fp32", size, reference), *forms]
        variants = [Variant(name, megabytes, self._score(logits)) for name, megabytes, logits in forms]
        worst = float(np.abs(reference - logits).max())
        warning = self._warning(after, variants[-1].score)
        rows = self.input.data.examples[self.split]
        validation_set = self.record.spec.data.task, len(rows), rows.fingerprint()
        record = self._measured(logits)
        return Export(self.folder, self.metric, variants, record, validation_set, worst, int(changed.sum()), warning)

    def _measured(self, logits: np.ndarray) -> RunRecord:
        """The run's record with the scores of other logits on the validation set. MNLI: of the matched set."""
        scores: dict[str, dict] = {"metrics": {}, "class_f1": {}, "distinct_predictions": {}, "prediction_range": {}}
        rows, read = self.input.data.examples[self.split], self.record.data
        data = {split: read[split] for split in read if not split.startswith("validation")}
        record = replace(self.record, **scores, data=data | {self.split: {"rows": len(rows)}})
        if self.other_rows:
            whole = replace(record.spec.data, hold_out=None, validation_share=None)
            record.spec = replace(record.spec, data=whole)
            record.notes = [note for note in record.notes if note != CHOICE_OF_K]
        else:
            record.data[self.split] |= read.get(self.split, {})
        found = Evaluation(self.labels.score(logits, self.data), self.labels.decide(logits, self.data), logits, 0.0)
        describe.evaluation(record, self.split, found, rows, self.labels)
        return record

    def _warning(self, predictions: np.ndarray, score: float) -> str | None:
        """A warning of predictions that are constant, or score at most as much as constant predictions."""
        kind, labels = self.task.kind, self.labels.to_task(self.data.labels)
        if is_constant(kind.n_distinct(predictions), kind.range_in_deviations(predictions, labels)):
            return "gives (nearly) the same prediction for every row of the validation set"
        constant = kind.constant_scores(self.metric, labels)
        best = max(constant, key=lambda name: constant[name], default=None)
        if best is None or score > 100 * constant[best]:
            return None
        return (
            f"scores {score:.1f}, not more than a constant prediction of '{best}' for every row "
            f"({100 * constant[best]:.1f})"
        )

    def _write_other_files(self, folder: Path, result: Export) -> None:
        """Write the tokenizer and the card, then the results with the list of files."""
        from layerdrop.runs.card import card

        library = "onnx" if (folder / FILE).exists() else "transformers"
        self.input.checkpoint.tokenizer.save_pretrained(folder)
        text = card(result.record, self._use(result), library, self.record.spec)
        write_atomically(folder / CARD_FILE, str(text))
        record, score = self.record, result.variants[-1].score
        facts = {"run": record.id, "base_model": record.spec.model.name, "task": record.spec.data.task}
        facts |= {"kept": record.kept, "dropped": record.dropped, "labels": self.labels.names}
        facts |= {"text_columns": record.text_columns, "max_seq_length": self.input.max_length}
        facts |= {"form": result.variants[-1].name, "metric": result.metric, "score": score, "loss": result.loss}
        facts |= {"largest_difference": result.largest_difference, "files": hashes_in(folder)}
        write_atomically(folder / EXPORT_FILE, json.dumps(facts, indent=1) + "\n")

    def _use(self, result: Export) -> str:
        """The section of the card with the code that runs the model."""
        model, last = result.variants[0], result.variants[-1]
        scores = f"{last.score:.1f} points of {result.metric} on the validation set ({model.name}: {model.score:.1f})"
        code = self._onnx_code() if last.name.startswith("onnx") else self._pipeline_code()
        batch = " With int8, outputs depend slightly on the other texts of a batch." * last.name.endswith("int8")
        return f"The run's model, exported as {last.name}: {scores}.{batch} In this folder:\n\n{code}"

    def _pipeline_code(self) -> str:
        from layerdrop.runs.card import pipeline_use

        kind = self.task.kind
        truncated = (f"truncation=True, max_length={self.input.max_length}",) if kind.pooled else ()
        return pipeline_use(kind.pipeline_arguments(".", *truncated), self.pairs)

    def _onnx_code(self) -> str:
        from layerdrop.runs.card import TEXTS

        kind = self.task.kind
        texts = ", ".join(TEXTS[: 1 + self.pairs])
        given = ("*text" if self.pairs else "text", "truncation=True", f"max_length={self.input.max_length}")
        return ONNX.format(
            texts=texts,
            classes="AutoConfig, AutoTokenizer" if kind.named else "AutoTokenizer",
            arguments=", ".join((*given, *kind.tokenizer_options)),
            file=FILE,
            output=NAMES * kind.named + kind.output_code,
        )


def _megabytes(path: Path) -> float:
    """Size of an ONNX file with its data files."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) / 1e6


def validation_data(record: RunRecord, new_paths: Mapping[str, str]) -> DataSpec:
    """The validation set of a run. With held-out rows: the training set that contains it.

    new_paths: `train_file`, `validation_file`, `dataset_name`, `data_dir` -> new path of moved data. Raises UserError
    for missing data.
    """
    data, folder = record.data_to_read, record.folder
    files = dict(data.files)
    held_out = data.files and (data.hold_out or data.validation_share) and "validation_file" not in new_paths
    split = "train" if held_out else "validation"
    flag = {"files": f"{split}_file", "dataset": "dataset_name"}.get(data.source, "data_dir")
    if wrong := [name for name in new_paths if name != flag or data.source == "demo"]:
        raise UserError(f"--{wrong[0]} {new_paths[wrong[0]]}: the run in {folder} does not read it. Leave it out.")
    known = {"files": files.get(split), "dataset": data.dataset_name}
    path = new_paths.get(flag, known.get(data.source, data.source))
    if path is None:
        raise UserError(
            f"{folder}: the run had no validation set, and an export needs a validation set. Add --validation_file."
        )
    if data.dataset_name:
        splits = data.files if split in files else (*data.files, (split, split))
        return replace(data, dataset_name=path, files=splits, text_columns=tuple(record.text_columns))
    if path not in ("hub", "demo") and not Path(os.path.expanduser(path)).exists():
        if flag in new_paths:
            raise UserError(f"--{flag} {path}: does not exist. Check the path.")
        raise UserError(
            f"--{flag} {path}: the run in {folder} reads this path, but the path does not exist. "
            f"Give the new path with --{flag}."
        )
    if not data.files:
        return replace(data, source=path)
    shares = {name: getattr(data, name) if held_out else None for name in ("hold_out", "validation_share")}
    return replace(data, files=((split, path),), text_columns=tuple(record.text_columns), **shares)


def time_in_turn(runs: Sequence[ExportedRun], exports: Sequence[Export]) -> None:
    """Measure the latencies of all variants of all runs. The models take turns."""
    variants = [
        (run, export.models[variant.name], variant)
        for run, export in zip(runs, exports, strict=True)
        for variant in export.variants
        if variant.name in export.models
    ]
    for size in (SINGLE, BATCH):
        times = latency([(model, run.batches(size)) for run, model, _ in variants])
        for (_, _, variant), milliseconds in zip(variants, times, strict=True):
            variant.latency[size] = milliseconds


def _record(folder: str) -> RunRecord:
    try:
        record = read_record(folder)
    except ValueError as error:
        raise UserError(f"{error}. Restore the file, or execute the run again.") from None
    if record is None or record.status != "success":
        raise UserError(f"{folder}: not the folder of a finished run. Give the folder of a run that kept its model.")
    if not holds_model(folder):
        again = one_line(f"{command_of(record.spec)} --output_dir NEW_FOLDER")
        raise UserError(f"{folder}: this run did not keep its model. To train it again: {again}")
    return record
