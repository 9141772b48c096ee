"""Analyses of a model's layers: profiles, drift, similarity. Memory does not grow with the data.

A point is a position between layers: 0 is after the embeddings, i + 1 is after layer i. Means are over real tokens or
over sentence tokens, without padding. Models are encoders in evaluation mode, on their device."""

from collections.abc import Iterable, Mapping

import torch
from transformers import PreTrainedModel

from layerdrop.architectures import original_layers
from layerdrop.criteria.states import Blocks, Mean, cosine, score_states
from layerdrop.criteria.weights import aggregation, variance
from layerdrop.states import States, layer_states, sentence_tokens

Batches = Iterable[Mapping[str, torch.Tensor]]
Tensor = torch.Tensor


def profile(model: PreTrainedModel, batches: Batches) -> dict[str, list[float]]:
    """One number for each layer.

    `sentence`, `tokens`: mean cosine similarity of its input and output at the sentence token (Sajjad et al.'s
    contribution) and over all tokens. `variance`, `aggregation`: variance and mean magnitude of its second feed-forward
    matrix.
    """
    rows = score_states({"sentence": Mean(cosine, sentence=True), "tokens": Mean(cosine)}, model, batches)
    weights = {"variance": variance(model), "aggregation": aggregation(model)}
    return {name: row[0] for name, row in rows.items()} | weights


def points_of(states: States) -> list[Tensor]:
    """The states at every point: n_layers + 1 tensors (batch, tokens, hidden)."""
    return [*states.inputs, states.outputs[-1]]


def drift(fine_tuned: PreTrainedModel, pretrained: PreTrainedModel, batches: Batches) -> dict[str, list[float]]:
    """Cosine similarity of the two models' states at the same points.

    `ids`: ids in the original model of the layers before the points (-1: the embeddings). `mean`, `spread`: mean and
    standard deviation over real tokens. `sentence`: mean over sentence tokens. Dropped layers of the fine-tuned model
    are left out.
    """
    ids = original_layers(fine_tuned.config)[1]
    of_pretrained = original_layers(pretrained.config)[1]
    at = [0, *(of_pretrained.index(i) + 1 for i in ids)]
    sums = torch.zeros(len(at), 3, dtype=torch.float64)
    tokens = rows = 0
    for batch in batches:
        ours, theirs = (points_of(layer_states(model, batch)) for model in (fine_tuned, pretrained))
        mask = batch["attention_mask"].to(fine_tuned.device)
        token, row = sentence_tokens(fine_tuned, mask), torch.arange(len(mask), device=mask.device)
        for i, j in enumerate(at):
            similarity = torch.cosine_similarity(ours[i].double(), theirs[j].double(), dim=-1)
            real = similarity[mask.bool()]
            sums[i] += torch.stack([real.sum(), real.square().sum(), similarity[row, token].sum()]).cpu()
        tokens, rows = tokens + int(mask.sum()), rows + len(mask)
    mean = sums[:, 0] / tokens
    spread = (sums[:, 1] / tokens - mean.square()).clamp(min=0).sqrt()
    sentence = sums[:, 2] / rows
    return {"ids": [-1, *ids], "mean": mean.tolist(), "spread": spread.tolist(), "sentence": sentence.tolist()}


class Cosines:
    """Mean cosine similarity of every two points, over real tokens."""

    def __init__(self):
        self.total: Tensor | float = 0.0
        self.n = 0

    def add(self, states: States, real: Tensor, token: Tensor) -> None:
        """See layerdrop.criteria.states.Collector."""
        points = torch.stack([state[real].double() for state in points_of(states)])
        points = torch.nn.functional.normalize(points, dim=-1)
        self.total = self.total + torch.einsum("atd,btd->ab", points, points).cpu()
        self.n += int(real.sum())

    def rows(self) -> list[list[float]]:
        """(n_layers + 1, n_layers + 1)."""
        return (self.total / self.n).tolist()


class MinibatchCKA:
    """Linear CKA of every two points over real tokens: ratios of unbiased HSIC estimates, each summed over batches
    (Nguyen et al. 2021, "Do Wide and Deep Networks Learn the Same Things?")."""

    def __init__(self, most: int = 512):
        """most: maximum number of tokens to use from a batch. Batches with fewer than 4 tokens are skipped."""
        self.most, self.hsic = most, 0.0

    def add(self, states: States, real: Tensor, token: Tensor) -> None:
        """See layerdrop.criteria.states.Collector."""
        points = [state[real][: self.most].double() for state in points_of(states)]
        n = len(points[0])
        if n < 4:
            return
        grams = torch.stack([_without_diagonal(x @ x.T) for x in points])
        sums = grams.sum(-1)  # (points, n)
        total = sums.sum(-1)  # (points,)
        traces = torch.einsum("aij,bij->ab", grams, grams)
        hsic = traces + total[:, None] * total / ((n - 1) * (n - 2)) - 2 / (n - 2) * sums @ sums.T
        self.hsic = self.hsic + (hsic / (n * (n - 3))).cpu()

    def rows(self) -> list[list[float]]:
        """(n_layers + 1, n_layers + 1)."""
        own = self.hsic.diagonal().clamp(min=0).sqrt()
        return (self.hsic / (own[:, None] * own)).tolist()


def _without_diagonal(gram: Tensor) -> Tensor:
    return gram - torch.diag(gram.diagonal())


def similarity(model: PreTrainedModel, batches: Batches) -> dict[str, list[list[float]]]:
    """Similarity of the states at all points.

    `cosine`, `cka`: (n_layers + 1, n_layers + 1) values of every two points. `blocks`: row K - 1 has a value for each
    block of K layers, by its first layer: the angle between its input and output at the sentence token, in halves of a
    turn (Gromov et al. 2024). The most redundant block of a row has the smallest angle."""
    return score_states({"cosine": Cosines(), "cka": MinibatchCKA(), "blocks": Blocks()}, model, batches)
