"""Training with the rows of the embedding that occur in the training data, and no others.

Half of a small model's parameters are the embeddings of words that a task never shows. Their gradient is zero at every
step, and with an optimizer that leaves such rows as they are (AdamW without weight decay) so is their change: leaving
them out changes nothing but rounding, and saves clearing, clipping and updating them at every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from layerdrop.data import Tokenised

MODEL_TYPES = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "albert")
"""Those that do nothing with a token's id but look up its embedding, and compare it to the padding's."""
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")
"""Those that leave a row as it is whose gradient has always been zero."""


class UsedVocabulary:
    """The ids that occur in the training data, as 0, 1, 2 ... in their order; those up to the padding's stay.

    While it is in use the model's embedding has these rows only. `whole` puts all rows back for a while, to evaluate
    the model, to save it or to load weights into it; `restore` does for good.
    """

    def __init__(self, model: PreTrainedModel, train: Tokenised):
        self.embedding: nn.Embedding = model.get_input_embeddings()
        up_to_padding = np.arange((self.embedding.padding_idx or 0) + 1)
        self.used = np.union1d(up_to_padding, train.columns["input_ids"])
        self.all = self.embedding.weight.detach()
        self.position = torch.from_numpy(self.used)
        self.embedding.weight = nn.Parameter(self.all[self.position], self.embedding.weight.requires_grad)

    def translate(self, dataset: Tokenised) -> Tokenised:
        """The training data with the ids that the model has now."""
        ids = np.searchsorted(self.used, dataset.columns["input_ids"]).astype(np.int32)
        return Tokenised(dataset.columns | {"input_ids": ids}, dataset.offsets, dataset.labels, dataset.rows)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Have all rows in the model."""
        some = self.embedding.weight
        self.restore()
        try:
            yield
        finally:
            with torch.no_grad():
                some.copy_(self.embedding.weight[self.position])
            self.embedding.weight = some

    def restore(self) -> None:
        """Put the rows that were trained among all the others, on the device where the model is by now."""
        some = self.embedding.weight
        self.all = self.all.to(some.device)
        self.all[self.position] = some.detach().to(self.all.dtype)
        self.embedding.weight = nn.Parameter(self.all, some.requires_grad)


def may_leave_rows_out(model: PreTrainedModel, args) -> bool:
    """Whether that changes nothing. args: TrainingArguments."""
    embedding = model.get_input_embeddings()
    return (
        model.config.model_type in MODEL_TYPES
        and type(embedding) is nn.Embedding
        and embedding.weight.requires_grad
        and str(getattr(args.optim, "value", args.optim)) in OPTIMIZERS
        and args.weight_decay == 0
        and args.world_size == 1
        and not args.deepspeed
        and not args.fsdp
    )
