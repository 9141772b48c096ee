"""ONNX files of classifiers: written by PyTorch's exporter, run by onnxruntime."""

import importlib.util
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from layerdrop.data.batches import Collator, batches
from layerdrop.data.tokens import TokenizedDataset
from layerdrop.errors import UserError
from layerdrop.system.files import regular
from layerdrop.system.text import one_line

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FILE = "model.onnx"
NOT_TRACEABLE = ("longformer",)
"""Model types that PyTorch's exporter cannot trace. Longformer's chunks of the text are views."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def check_packages(what: str, packages: Sequence[str] = PACKAGES) -> None:
    """Raise UserError if a package is missing. what: the flag or file that needs the packages, for the message."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        how = f"pip install -e '.[onnx]' in this tool's folder, or pip install {' '.join(packages)}"
        raise UserError(f"{what}: needs {', '.join(missing)}. Install: {how}.")


class _Logits(nn.Module):
    """A classifier with positional inputs that returns only its logits."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        if self.model.config.model_type == "xlnet":  # the exporter computes XLNet's 1.0 - mask only with floats
            attention_mask = attention_mask.float()
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **more).logits


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress the output of the exporter, its optimizer and the quantizer."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
            warnings.simplefilter("ignore")
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(level)


def export_onnx(model: PreTrainedModel, inputs: Sequence[str], path: str | Path) -> None:
    """Write a classifier as an ONNX file in fp32, for batches and texts of any size.

    inputs: the tokenizer's outputs, among INPUTS. Raises UserError for a model type of NOT_TRACEABLE.
    """
    if model.config.model_type in NOT_TRACEABLE:
        raise UserError(
            f"--format onnx: PyTorch's exporter cannot trace {model.config.model_type}. Use --format safetensors."
        )
    names = [name for name in INPUTS if name in inputs]
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])  # the exporter would treat a size of 1 as constant
    with torch.no_grad(), _silent():
        program = torch.onnx.export(
            _Logits(model.cpu().eval()),
            (),
            kwargs={name: mask if name == "attention_mask" else torch.ones_like(mask) for name in names},
            dynamo=True,
            input_names=names,
            output_names=["logits"],
            dynamic_shapes={name: {0: "batch", 1: "length"} for name in names},
            verbose=False,
        )
        program.save(str(path))


def quantize(path: str | Path, to: str | Path) -> None:
    """Write an ONNX file with the weights of its matrix products in int8, one scale for each channel. Activations are
    quantized at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _silent():
        quantize_dynamic(str(path), str(to), weight_type=QuantType.QInt8, per_channel=True)


class OnnxClassifier:
    """An ONNX file of a classifier, on the CPU."""

    def __init__(self, path: str | Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        name = str(regular(path))
        try:
            self.session = onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an error class for each status
            raise UserError(f"{path}: is damaged ({one_line(str(error), 200)}). Export the run again.") from error
        self.inputs = [given.name for given in self.session.get_inputs()]

    def __call__(self, batch: dict[str, torch.Tensor]) -> np.ndarray:
        """Compute the model's logits (batch, ..., outputs). batch: the inputs, (batch, tokens) each."""
        return self.session.run(None, {name: batch[name].numpy() for name in self.inputs})[0]

    def logits(self, data: TokenizedDataset, collate: Collator, batch_size: int = 32) -> np.ndarray:
        """Compute the logits of all units, as layerdrop.finetune.evaluate.logits_of."""
        ordered, computed = data.longest_first(), []
        for number, items in enumerate(batches(data, batch_size)):
            batch = collate(items)
            rows = ordered.rows[number * batch_size : (number + 1) * batch_size]
            computed.append(data.units(torch.from_numpy(self(batch)), batch["attention_mask"], rows).numpy())
        return ordered.in_order(np.concatenate(computed))


def latency(work: Sequence[tuple[Callable, list[dict[str, torch.Tensor]]]], repeats: int = 3) -> list[list[float]]:
    """Milliseconds for a text, one number for each round. The models take turns; the first round is a warm-up.

    work: for each model, a function of a batch and the batches to time it on.
    """
    times: list[list[float]] = [[] for _ in work]
    for repeat in range(-1, repeats):
        for of_model, (model, parts) in zip(times, work, strict=True):
            start = time.perf_counter()
            for part in parts:
                model(part)
            if repeat >= 0:
                of_model.append(1000 * (time.perf_counter() - start) / sum(len(part["input_ids"]) for part in parts))
    return times
