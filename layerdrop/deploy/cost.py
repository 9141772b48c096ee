"""What a model costs: parameters, operations, seconds, memory. No data set is needed: texts are random ids of given
lengths."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, PreTrainedModel, set_seed
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from layerdrop.architectures import family_of
from layerdrop.checkpoints import Checkpoint, is_local, work_offline_unless_reachable
from layerdrop.data.batches import Collator
from layerdrop.errors import unknown
from layerdrop.finetune.precision import autocast
from layerdrop.finetune.speedups.dropout import cheap_dropout
from layerdrop.finetune.teacher import attending_eagerly
from layerdrop.loading import load_classifier
from layerdrop.runs.environment import peak_memory, reset_peak_memory
from layerdrop.strategies import check_k, select
from layerdrop.surgery import drop_layers, droppable, layer_list, without
from layerdrop.system.text import short_name

SEED = 41
RANDOM = "random:"
"""Before a model type: the library's default size of it, with random weights."""
SMALL_STEP = 1e-9
"""Learning rate, so small that the weights practically stay as they are."""


@dataclass(frozen=True)
class MeasuredModel:
    """A model without the layers that a strategy drops; the strategy needs no scores."""

    given: str
    """Folder of a run or checkpoint, hub name, or random:TYPE."""
    strategy: str = "top"
    k: int = 0

    @property
    def name(self) -> str:
        """For a table."""
        name = short_name(self.given)
        return f"{name}, {self.strategy} K = {self.k}" if self.k else name

    def load(self, use_cpu: bool = False) -> PreTrainedModel:
        """The classifier, on the GPU where there is one. Raises UserError."""
        device = torch.device("cuda" if torch.cuda.is_available() and not use_cpu else "cpu")
        if not self.given.startswith(RANDOM):
            if not is_local(self.given):
                work_offline_unless_reachable()
            checkpoint = Checkpoint.open(self.given)
            model, _ = load_classifier(checkpoint, self._dropped(checkpoint.n_layers))
            return model.to(device)
        kind = self.given.removeprefix(RANDOM)
        if kind not in CONFIG_MAPPING:
            raise unknown(RANDOM, kind, CONFIG_MAPPING)
        set_seed(SEED)
        model = AutoModelForSequenceClassification.from_config(CONFIG_MAPPING[kind](), dtype=torch.float32).eval()
        return drop_layers(model, self._dropped(model.config.num_hidden_layers)).to(device)

    def _dropped(self, n_layers: int) -> list[int]:
        return select(self.strategy, n_layers, k=check_k(self.k, n_layers, "--k"))


@dataclass
class Cost:
    """Cost of one model. Seconds: one number for each repeat."""

    parameters: int
    encoder: int
    """Parameters of the layers."""
    embeddings: int
    megabytes: float
    """Size of the checkpoint in fp32, 10^6 bytes."""
    flops: float
    """Operations of a forward pass over one text (a multiplication and an addition count as two)."""
    layer_flops: float
    """Operations of the layers among `flops`."""
    inference: dict[str, list[float]] = field(default_factory=dict)
    """Name of a setting -> seconds."""
    training: list[float] = field(default_factory=list)
    """Seconds for 1,000 examples."""
    peak_inference: int = 0
    """Peak bytes of a separate process: on a CPU its resident memory, libraries included; on a GPU its allocations
    there."""
    peak_training: int = 0


@dataclass(frozen=True)
class Setting:
    """Texts, and how they are processed."""

    lengths: tuple[int, ...]
    """Tokens of each text."""
    batch_size: int
    precision: str = "fp32"

    @property
    def mean_length(self) -> float:
        """Tokens."""
        return sum(self.lengths) / len(self.lengths)


def lengths_like_qqp(n: int, longest: int) -> tuple[int, ...]:
    """Tokens of n pairs of questions, with QQP's mean of 30 and standard deviation of 13 (ours)."""
    return lengths_like(n, 30.0, 13.0, longest)


def lengths_like(n: int, mean: float, spread: float, longest: int) -> tuple[int, ...]:
    """Tokens of n texts: log-normal with this mean and standard deviation, between 8 and 128, or `longest`."""
    sigma = np.sqrt(np.log(1 + (spread / mean) ** 2))
    drawn = np.random.default_rng(SEED).lognormal(np.log(mean) - sigma**2 / 2, sigma, n)
    return tuple(int(length) for length in drawn.round().clip(8, min(longest, 128)))


def batches(setting: Setting, vocabulary: int, pad: int) -> list[dict[str, torch.Tensor]]:
    """Random texts, grouped by length, padded to the longest of a batch."""
    generator = np.random.default_rng(SEED)
    collate = Collator({"input_ids": pad}, left=False)
    texts = [{"input_ids": generator.integers(5, vocabulary, n)} for n in sorted(setting.lengths, reverse=True)]
    starts = range(0, len(texts), setting.batch_size)
    return [collate(texts[start : start + setting.batch_size]) for start in starts]


def describe(model: PreTrainedModel, length: int) -> Cost:
    """Everything but timings. length: tokens of the example whose operations are counted."""
    layers = sum(p.numel() for p in layer_list(model).parameters())
    total = sum(p.numel() for p in model.parameters())
    embeddings = model.get_input_embeddings()
    n, may_go = model.config.num_hidden_layers, droppable(model.config)
    whole = count_flops(model, length)
    each = []
    for i in may_go if n > 1 else []:
        with without(model, [i]):
            each.append(whole - count_flops(model, length))
    of_layers = statistics.fmean(each) * n if each else whole
    return Cost(total, layers, embeddings.weight.numel(), 4 * total / 1e6, whole, of_layers)


def count_flops(model: PreTrainedModel, length: int) -> float:
    """Of a forward pass over one example, by torch's counter, with attention written out."""
    (batch,) = _batches_for(model, Setting((length,), 1))
    with attending_eagerly(model), FlopCounterMode(display=False) as counter:
        model(**batch)
    return float(counter.get_total_flops())


def peaks(model: MeasuredModel, setting: Setting, use_cpu: bool = False) -> tuple[int, int]:
    """Peak memory of inference and of a training step, bytes, with the setting's longest texts; in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peaks_here, model, setting, use_cpu).result()


def _peaks_here(reduced: MeasuredModel, setting: Setting, use_cpu: bool) -> tuple[int, int]:
    model, found = reduced.load(use_cpu), []
    longest = Setting(tuple(sorted(setting.lengths)[-setting.batch_size :]), setting.batch_size, setting.precision)
    texts = _batches_for(model, longest)
    optimizer = torch.optim.AdamW(model.parameters(), lr=SMALL_STEP)
    for work in (lambda: _infer(model, texts, setting), lambda: _train(model, texts, setting, optimizer)):
        reset_peak_memory()
        work()
        found.append(peak_memory()["host" if model.device.type == "cpu" else "cuda"])
    return found[0], found[1]


def time_inference(
    models: Mapping[str, PreTrainedModel], costs: Mapping[str, Cost], name: str, setting: Setting, repeats: int
) -> None:
    """Seconds of a pass over all texts of a setting, for each model in turn, so that noise affects all models alike.
    The first round is a warm-up."""
    texts = {key: _batches_for(model, setting) for key, model in models.items()}
    for repeat in range(-1, repeats):
        for key, model in models.items():
            seconds = _timed(partial(_infer, model, texts[key], setting), model.device)
            if repeat >= 0:
                costs[key].inference.setdefault(name, []).append(seconds)


def time_training(
    models: Mapping[str, PreTrainedModel], costs: Mapping[str, Cost], setting: Setting, repeats: int
) -> None:
    """Seconds for 1,000 examples of forward pass, backward pass and AdamW step, for each model in turn; the models'
    weights change. The first round is a warm-up."""
    optimizers = {key: torch.optim.AdamW(model.parameters(), lr=SMALL_STEP) for key, model in models.items()}
    texts = {key: _batches_for(model, setting) for key, model in models.items()}
    for repeat in range(-1, repeats):
        for key, model in models.items():
            seconds = _timed(partial(_train, model, texts[key], setting, optimizers[key]), model.device)
            if repeat >= 0:
                costs[key].training.append(1000 * seconds / len(setting.lengths))


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
    """Tokens that a model takes at most, 512 where its positions are relative."""
    positions = getattr(model.config, "max_position_embeddings", None) or -1
    if positions < 0:
        return 512
    after = model.config.model_type in family_of(model.config).positions_after_padding
    return positions - (model.config.pad_token_id + 1 if after else 0)


def _batches_for(model: PreTrainedModel, setting: Setting) -> list[dict[str, torch.Tensor]]:
    """Of a model's vocabulary, on its device."""
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
