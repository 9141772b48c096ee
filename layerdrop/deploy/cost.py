"""Cost of a model: parameters, FLOPs, seconds, memory. Texts are random ids of given lengths."""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, PreTrainedModel, set_seed
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from layerdrop.architectures import FAMILIES, family_of
from layerdrop.checkpoints import Checkpoint, is_local, work_offline_unless_reachable
from layerdrop.data.batches import Collator
from layerdrop.deploy.onnx import FILE
from layerdrop.errors import UserError, unknown
from layerdrop.finetune.precision import autocast
from layerdrop.finetune.speedups.dropout import cheap_dropout
from layerdrop.finetune.teacher import eager_attention
from layerdrop.loading import load_classifier
from layerdrop.runs.environment import peak_memory, reset_peak_memory
from layerdrop.strategies import select
from layerdrop.surgery import drop_layers, layer_list
from layerdrop.system.own_files import WEIGHTS

SEED = 41
RANDOM = "random:"
"""Prefix of a model type: a model of the library's default size with random weights."""
SMALL_STEP = 1e-9
"""Learning rate at which the weights hardly change."""


@dataclass(frozen=True)
class MeasuredModel:
    """A model without the layers that a strategy drops. The strategy needs no scores."""

    given: str
    """Folder of a run or checkpoint, hub name, or random:TYPE."""
    strategy: str = "top"
    k: int = 0

    def load(self, use_cpu: bool = False) -> PreTrainedModel:
        """Load the classifier, on the GPU if there is one. Raises UserError."""
        device = torch.device("cuda" if torch.cuda.is_available() and not use_cpu else "cpu")
        if not self.given.startswith(RANDOM):
            if not is_local(self.given):
                work_offline_unless_reachable()
            self._refuse_onnx()
            checkpoint = Checkpoint.open(self.given, flag="MODEL")
            model, _ = load_classifier(checkpoint, self._dropped(checkpoint.n_layers))
            return model.to(device)
        kind = self.given.removeprefix(RANDOM)
        if kind not in CONFIG_MAPPING:
            raise unknown(f"MODEL {self.given}", kind, [name for family in FAMILIES for name in family.model_types])
        config = CONFIG_MAPPING[kind]()
        family_of(config, checkpoint=f"MODEL {self.given}")
        config.pad_token_id = config.pad_token_id or 0  # random texts have no padding
        set_seed(SEED)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
        return drop_layers(model, self._dropped(model.config.num_hidden_layers)).to(device)

    def _refuse_onnx(self) -> None:
        """Raise UserError for the folder of an ONNX model without torch weights."""
        folder = Path(self.given)
        if (folder / FILE).is_file() and not any((folder / name).is_file() for name in WEIGHTS):
            raise UserError(
                f"MODEL {self.given}: is an ONNX model, and layerdrop cost measures torch models. Give the folder of "
                "the run. layerdrop export RUN --format onnx prints the times of ONNX models."
            )

    def _dropped(self, n_layers: int) -> list[int]:
        return select(self.strategy, n_layers, k=self.k, flag="--k")


@dataclass
class Cost:
    """Cost of one model. Seconds: one number for each round."""

    parameters: int
    encoder: int
    """Parameters of the layers."""
    embeddings: int
    megabytes: float
    """Size of the checkpoint in fp32, in 10^6 bytes."""
    flops: float
    """Operations of a forward pass over one text (a multiplication and an addition count as two)."""
    inference: dict[str, list[float]] = field(default_factory=dict)
    """Setting (`single`, `batch`) -> seconds."""
    training: list[float] = field(default_factory=list)
    """Seconds for 1,000 texts."""
    peak_inference: int = 0
    """Peak bytes of a separate process: its resident memory with libraries; on a GPU its allocations."""
    peak_training: int = 0


@dataclass(frozen=True)
class Setting:
    """Lengths of the texts, batch size and precision."""

    lengths: tuple[int, ...]
    """Number of tokens of each text."""
    batch_size: int
    precision: str = "fp32"

    @property
    def mean_length(self) -> float:
        """Mean number of tokens of a text."""
        return sum(self.lengths) / len(self.lengths)


def lengths_like_qqp(n: int, longest: int) -> tuple[int, ...]:
    """Numbers of tokens of n pairs of questions, with QQP's mean of 30. The standard deviation of 13 is our choice."""
    return lengths_like(n, 30.0, 13.0, longest)


def lengths_like(n: int, mean: float, spread: float, longest: int) -> tuple[int, ...]:
    """Numbers of tokens of n texts: log-normal with this mean and standard deviation, from 8 to 128 or `longest`."""
    sigma = np.sqrt(np.log(1 + (spread / mean) ** 2))
    drawn = np.random.default_rng(SEED).lognormal(np.log(mean) - sigma**2 / 2, sigma, n)
    return tuple(int(length) for length in drawn.round().clip(8, min(longest, 128)))


def batches(setting: Setting, vocabulary: int, pad: int) -> list[dict[str, torch.Tensor]]:
    """Batches of random texts, grouped by length, padded to the longest text of a batch."""
    generator = np.random.default_rng(SEED)
    collate = Collator({"input_ids": pad}, left=False)
    texts = [{"input_ids": generator.integers(5, vocabulary, n)} for n in sorted(setting.lengths, reverse=True)]
    starts = range(0, len(texts), setting.batch_size)
    return [collate(texts[start : start + setting.batch_size]) for start in starts]


def describe(model: PreTrainedModel, length: int) -> Cost:
    """Measure a model's parameters, size and operations. length: tokens of the text whose operations are counted."""
    layers = sum(p.numel() for p in layer_list(model).parameters())
    total = sum(p.numel() for p in model.parameters())
    embeddings = model.get_input_embeddings().weight.numel()
    return Cost(total, layers, embeddings, 4 * total / 1e6, count_flops(model, length))


def count_flops(model: PreTrainedModel, length: int) -> float:
    """Count the operations of a forward pass over one text with torch's counter and eager attention."""
    (batch,) = _batches_for(model, Setting((length,), 1))
    with eager_attention(model), FlopCounterMode(display=False) as counter:
        model(**batch)
    return float(counter.get_total_flops())


def peaks(model: MeasuredModel, setting: Setting, use_cpu: bool = False) -> tuple[int, int]:
    """Peak bytes of inference and of a training step on the setting's longest texts, in a separate process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peaks_here, model, setting, use_cpu).result()


def _peaks_here(reduced: MeasuredModel, setting: Setting, use_cpu: bool) -> tuple[int, int]:
    model, peak = reduced.load(use_cpu), []
    longest = Setting(tuple(sorted(setting.lengths)[-setting.batch_size :]), setting.batch_size, setting.precision)
    texts = _batches_for(model, longest)
    optimizer = torch.optim.AdamW(model.parameters(), lr=SMALL_STEP)
    for work in (lambda: _infer(model, texts, setting), lambda: _train(model, texts, setting, optimizer)):
        reset_peak_memory()
        work()
        peak.append(peak_memory()["host" if model.device.type == "cpu" else "cuda"])
    return peak[0], peak[1]


def time_inference(
    models: Mapping[str, PreTrainedModel], costs: Mapping[str, Cost], name: str, setting: Setting, repeats: int
) -> None:
    """Add the seconds of a pass over all texts of a setting to `costs`. The models take turns."""
    work = {key: partial(_infer, model, _batches_for(model, setting), setting) for key, model in models.items()}
    for key, seconds in _in_turn(work, models, repeats).items():
        costs[key].inference[name] = seconds


def time_training(
    models: Mapping[str, PreTrainedModel], costs: Mapping[str, Cost], setting: Setting, repeats: int
) -> None:
    """Add the seconds of training on 1,000 texts to `costs`: forward pass, backward pass and AdamW step.

    The models take turns, and their weights change.
    """
    optimizers = {key: torch.optim.AdamW(model.parameters(), lr=SMALL_STEP) for key, model in models.items()}
    work = {
        key: partial(_train, model, _batches_for(model, setting), setting, optimizers[key])
        for key, model in models.items()
    }
    for key, seconds in _in_turn(work, models, repeats).items():
        costs[key].training = [1000 * s / len(setting.lengths) for s in seconds]


def _in_turn(
    work: Mapping[str, Callable[[], None]], models: Mapping[str, PreTrainedModel], repeats: int
) -> dict[str, list[float]]:
    """Seconds of each function in each round. The models take turns, so that load on the machine affects all alike. The
    first round is a warm-up."""
    rounds = [{key: _timed(do, models[key].device) for key, do in work.items()} for _ in range(repeats + 1)]
    return {key: [seconds[key] for seconds in rounds[1:]] for key in work}


def _infer(model: PreTrainedModel, texts: list[dict[str, torch.Tensor]], setting: Setting) -> None:
    model.eval()
    with torch.inference_mode(), autocast(model.device, setting.precision):
        for batch in texts:
            model(**batch)


def _train(
    model: PreTrainedModel, texts: list[dict[str, torch.Tensor]], setting: Setting, optimizer: torch.optim.Optimizer
) -> None:
    model.train()
    with cheap_dropout(model) if model.device.type == "cpu" else nullcontext():
        for batch in texts:
            with autocast(model.device, setting.precision):
                loss = model(**batch).logits.float().square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def longest_input(model: PreTrainedModel) -> int:
    """Largest number of tokens of an input; 512 for relative positions."""
    positions = getattr(model.config, "max_position_embeddings", None) or -1
    if positions < 0:
        return 512
    after = model.config.model_type in family_of(model.config).positions_after_padding
    return positions - (model.config.pad_token_id + 1 if after else 0)


def _batches_for(model: PreTrainedModel, setting: Setting) -> list[dict[str, torch.Tensor]]:
    """Batches with ids of a model's vocabulary, on its device."""
    parts = batches(setting, model.config.vocab_size, model.config.pad_token_id or 0)
    return [{name: tensor.to(model.device) for name, tensor in part.items()} for part in parts]


def _timed(work: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
