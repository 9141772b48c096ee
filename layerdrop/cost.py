"""What a model costs: parameters, operations, seconds. No data set is needed: texts are random ids of given
lengths."""

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from layerdrop.data.batches import Collator
from layerdrop.finetune.faster.dropout import cheap_dropout
from layerdrop.finetune.teacher import attending_eagerly
from layerdrop.precision import autocast
from layerdrop.surgery import droppable, layer_list, without

SEED = 41


@dataclass
class Cost:
    """Of one model. Seconds: one number for each repeat."""

    parameters: int
    encoder: int
    """Parameters of the layers."""
    embeddings: int
    megabytes: float
    """Of the checkpoint in fp32, 10^6 bytes."""
    flops: float
    """Of a forward pass over one text (a multiplication and an addition count as two)."""
    layer_flops: float
    """What of these the layers take."""
    inference: dict[str, list[float]] = field(default_factory=dict)
    """Name of a setting -> seconds."""
    training: list[float] = field(default_factory=list)
    """Seconds for 1,000 examples."""


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
    """Tokens of n pairs of questions: log-normal, with QQP's mean of 30 and standard deviation of 13
    (ours), between 8 and 128, or `longest`."""
    mean, spread = 30.0, 13.0
    sigma = np.sqrt(np.log(1 + (spread / mean) ** 2))
    drawn = np.random.default_rng(SEED).lognormal(np.log(mean) - sigma**2 / 2, sigma, n)
    return tuple(int(length) for length in drawn.round().clip(8, min(longest, 128)))


def batches(setting: Setting, vocabulary: int, pad: int) -> list[dict[str, torch.Tensor]]:
    """Random texts, those of like length together, padded to the longest of a batch."""
    generator = np.random.default_rng(SEED)
    collate = Collator({"input_ids": pad}, left=False)
    texts = [{"input_ids": generator.integers(5, vocabulary, n)} for n in sorted(setting.lengths, reverse=True)]
    starts = range(0, len(texts), setting.batch_size)
    return [collate(texts[start : start + setting.batch_size]) for start in starts]


def describe(model: PreTrainedModel, length: int) -> Cost:
    """What needs no clock. length: tokens of the example whose operations are counted."""
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


def time_inference(
    models: Mapping[str, PreTrainedModel], costs: Mapping[str, Cost], name: str, setting: Setting, repeats: int
) -> None:
    """Seconds of a pass over all texts of a setting, for each model in turn, so that a noisy machine harms all alike.
    A first round does not count."""
    texts = {key: _batches_for(model, setting) for key, model in models.items()}
    for repeat in range(-1, repeats):
        for key, model in models.items():
            model.eval()
            with torch.inference_mode(), autocast(model.device, setting.precision):
                seconds = _timed(lambda model=model, key=key: [model(**batch) for batch in texts[key]], model.device)
            if repeat >= 0:
                costs[key].inference.setdefault(name, []).append(seconds)


def time_training(
    models: Mapping[str, PreTrainedModel], costs: Mapping[str, Cost], setting: Setting, repeats: int
) -> None:
    """Seconds for 1,000 examples of forward pass, backward pass and AdamW step, for each model in turn; the models'
    weights change. A first round does not count."""
    optimizers = {key: torch.optim.AdamW(model.parameters(), lr=1e-9) for key, model in models.items()}
    texts = {key: _batches_for(model, setting) for key, model in models.items()}
    for repeat in range(-1, repeats):
        for key, model in models.items():
            model.train()

            def steps(model=model, key=key, optimizer=optimizers[key]):
                for batch in texts[key]:
                    with autocast(model.device, setting.precision):
                        loss = model(**batch).logits.float().square().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()

            with cheap_dropout(model) if model.device.type == "cpu" else nullcontext():
                seconds = _timed(steps, model.device)
            if repeat >= 0:
                costs[key].training.append(1000 * seconds / len(setting.lengths))


def _batches_for(model: PreTrainedModel, setting: Setting) -> list[dict[str, torch.Tensor]]:
    """Of a model's vocabulary, on its device."""
    parts = batches(setting, model.config.vocab_size, model.config.pad_token_id or 0)
    return [{name: tensor.to(model.device) for name, tensor in part.items()} for part in parts]


def _timed(work, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """(median, lowest, highest) of the ratios of two models' seconds, round by round."""
    found = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(found), min(found), max(found)
