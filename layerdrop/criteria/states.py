"""Scores from the hidden states before and after each layer. Several criteria share one pass.

Sources: contribution: Sajjad et al. (2023), Section 3. block-influence: Men et al. (2024), "ShortGPT". angular-block:
Gromov et al. (2024), "The Unreasonable Ineffectiveness of the Deeper Layers". relative-magnitude: Samragh et al.
(2023), "Weight subcloning". linearity: Razzhigaev et al. (2024), "Your Transformer is Secretly Linear". cka: Kornblith
et al. (2019), "Similarity of Neural Network Representations Revisited".

A row of scores has one number for each layer, id 0 first. Means are over the real tokens (or sentence tokens) of all
batches, in float64, without padding.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

import torch
from transformers import PreTrainedModel

from layerdrop.states import States, layer_states, sentence_tokens

Tensor = torch.Tensor


class Collector(Protocol):
    """Accumulates a criterion over batches."""

    def add(self, states: States, real: Tensor, token: Tensor) -> None:
        """Add a batch. real: (batch, tokens), True for real tokens. token: (batch,) position of the sentence token."""

    def rows(self) -> list[list[float]]:
        """Return one row of scores; for blocks one row for each K."""


def score_states(
    collectors: Mapping[str, Collector], model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]
) -> dict[str, list[list[float]]]:
    """Compute the rows of scores of each collector: name -> rows.

    model: an encoder in evaluation mode, on its device. batches: the model's inputs, with `input_ids` and
    `attention_mask` (batch, tokens).
    """
    for batch in batches:
        states, mask = layer_states(model, batch), batch["attention_mask"].to(model.device)
        token = sentence_tokens(model, mask)
        for collector in collectors.values():
            collector.add(states, mask.bool(), token)
    return {name: collector.rows() for name, collector in collectors.items()}


def cosine(before: Tensor, after: Tensor) -> Tensor:
    """Cosine similarity of the states: (n, hidden), (n, hidden) -> (n,)."""
    return torch.cosine_similarity(before, after, dim=-1)


def influence(before: Tensor, after: Tensor) -> Tensor:
    """1 - cosine similarity of the states before and after the layer."""
    return 1 - cosine(before, after)


def added(before: Tensor, after: Tensor) -> Tensor:
    """Norm of the layer's update, relative to the norm of its output."""
    relative: Tensor = (after - before).norm(dim=-1) / after.norm(dim=-1)
    return relative


class Mean:
    """Collector: compute a number for each token, and average over all real tokens or only over sentence tokens."""

    def __init__(self, value: Callable[[Tensor, Tensor], Tensor], sentence: bool = False):
        """value: (before, after), (n, hidden) each -> (n,)."""
        self.value, self.sentence = value, sentence
        self.total: list[float] = []
        self.n = 0

    def add(self, states: States, real: Tensor, token: Tensor) -> None:
        """See Collector."""
        at = _sentence(real, token) if self.sentence else real
        pairs = zip(states.inputs, states.outputs, strict=True)
        sums = [float(self.value(before[at].double(), after[at].double()).sum()) for before, after in pairs]
        self.total = [a + b for a, b in zip(self.total or [0.0] * len(sums), sums, strict=True)]
        self.n += int(at.sum())

    def rows(self) -> list[list[float]]:
        """See Collector."""
        return [[total / self.n for total in self.total]]


def _sentence(real: Tensor, token: Tensor) -> Tensor:
    at = torch.zeros_like(real)
    at[torch.arange(len(real), device=real.device), token] = True
    return at


class Blocks:
    """Collector: angular distance between states of the sentence token that are K layers apart, in units of pi.

    Row K - 1 has one number for each layer at which a block of K layers can begin.
    """

    def __init__(self) -> None:
        self.total = torch.zeros(())
        """Sum over texts of the distance between two states: (n_layers + 1, n_layers + 1)."""
        self.n = 0

    def add(self, states: States, real: Tensor, token: Tensor) -> None:
        """See Collector."""
        row = torch.arange(len(real), device=real.device)
        points = torch.stack([state[row, token].double() for state in [*states.inputs, states.outputs[-1]]])
        points = torch.nn.functional.normalize(points, dim=-1)
        cosines = torch.einsum("ard,brd->abr", points, points).clamp(-1, 1)
        self.total = self.total + (cosines.arccos() / torch.pi).sum(-1).cpu()
        self.n += len(row)

    def rows(self) -> list[list[float]]:
        """See Collector."""
        if not self.n:
            return []
        distances = self.total / self.n
        n_layers = len(distances) - 1
        return [[float(distances[i, i + k]) for i in range(n_layers - k + 1)] for k in range(1, n_layers + 1)]


class Moments:
    """Collector: a function of the covariance of the states before and after each layer, over real tokens.

    Memory does not grow with the data.
    """

    def __init__(self, score: Callable[[Tensor, Tensor, Tensor], float]):
        """score: (covariance of before, of before and after, of after), (hidden, hidden) each -> a number."""
        self.score = score
        self.sums: list[Tensor] = []
        """For each layer, the sum of outer products of (before, after, 1): (2 hidden + 1, 2 hidden + 1)."""

    def add(self, states: States, real: Tensor, token: Tensor) -> None:
        """See Collector."""
        for i, (before, after) in enumerate(zip(states.inputs, states.outputs, strict=True)):
            before, after = before[real].double(), after[real].double()
            joint = torch.cat([before, after, torch.ones_like(before[:, :1])], dim=1)
            products = joint.T @ joint
            if i == len(self.sums):
                self.sums.append(products)
            else:
                self.sums[i] += products

    def rows(self) -> list[list[float]]:
        """See Collector."""
        return [[self._score(sums) for sums in self.sums]]

    def _score(self, sums: Tensor) -> float:
        mean = sums[-1, :-1] / sums[-1, -1]
        covariance = sums[:-1, :-1] / sums[-1, -1] - mean[:, None] * mean
        half = len(mean) // 2
        return self.score(covariance[:half, :half], covariance[:half, half:], covariance[half:, half:])


def residual(before: Tensor, joint: Tensor, after: Tensor) -> float:
    """Fraction of the output's variance that no linear map of the input explains."""
    explained = torch.trace(joint.T @ torch.linalg.pinv(before, rtol=1e-10, hermitian=True) @ joint)
    return float(1 - explained / torch.trace(after))


def linear_cka(before: Tensor, joint: Tensor, after: Tensor) -> float:
    """Linear centered kernel alignment of input and output."""
    return float(joint.square().sum() / (before.norm() * after.norm()))


contribution = partial(Mean, cosine, sentence=True)
block_influence = partial(Mean, influence)
relative_magnitude = partial(Mean, added)
linearity = partial(Moments, residual)
cka = partial(Moments, linear_cka)
