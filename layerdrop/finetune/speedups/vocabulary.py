"""Train only the rows of the embedding that occur in the training data.

Half of a small model's parameters are embeddings of tokens that a task does not use. Their gradient is zero at every
step, and AdamW without weight decay does not change them. Training without these rows changes results only by rounding.
Clearing, clipping and applying gradients become cheaper.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, TrainingArguments

MODEL_TYPES = (
    *("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "mpnet", "mobilebert", "deberta"),
    *("deberta-v2", "data2vec-text", "megatron-bert", "roberta-prelayernorm", "rembert", "roformer", "xlm-roberta-xl"),
    *("distilbert", "albert"),
)
"""Model types that use token ids only for the embedding and the padding mask."""
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")
"""Optimizers that do not change a row whose gradient has always been zero."""

NOT_USED = {"max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False, "sparse": False}
"""Settings of nn.Embedding with their required values."""


class UsedRows(nn.Embedding):
    """An embedding with a Parameter `weight` of the used rows only, (used, size), in the order of their ids.

    It takes ids of the full vocabulary. In training mode, ids that are not in `used` raise IndexError on a CPU.
    `state_dict()` has the full table with the trained rows, (vocabulary, size), under `weight`. `load_state_dict` takes
    a full table.
    """

    def __init__(self, embedding: nn.Embedding, used: np.ndarray):
        """embedding: its table is not copied. used: (used,) ids, ascending."""
        n, size = embedding.weight.shape
        table, rows = embedding.weight.detach(), torch.from_numpy(used.astype(np.int64)).to(embedding.weight.device)
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim, self.padding_idx = n, size, embedding.padding_idx
        for name in NOT_USED:  # DistributedDataParallel reads them
            setattr(self, name, getattr(embedding, name))
        self.weight = nn.Parameter(table[rows], embedding.weight.requires_grad)
        self.padding_row = None if self.padding_idx is None else int(np.searchsorted(used, self.padding_idx))
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("used", rows, persistent=False)
        row_of = torch.full((n,), -1, dtype=torch.long, device=table.device)
        row_of[rows] = torch.arange(len(used), device=table.device)
        self.register_buffer("row_of", row_of, persistent=False)
        self.register_state_dict_post_hook(_save_full_table)
        self.register_load_state_dict_pre_hook(_load_full_table)
        self.train(embedding.training)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (...) -> (..., size)."""
        rows = self.row_of[ids]
        if self.training:
            return functional.embedding(rows, self.weight, self.padding_row)
        trained = functional.embedding(rows.clamp(min=0), self.weight, self.padding_row)
        return torch.where((rows >= 0).unsqueeze(-1), trained, functional.embedding(ids, self.table))

    @torch.no_grad()
    def full_table(self) -> torch.Tensor:
        """The table with the trained rows, (vocabulary, size). Every call returns the same storage."""
        self.table[self.used] = self.weight.detach().to(self.table.dtype)
        return self.table

    def extra_repr(self) -> str:
        """The description in `repr`, as of nn.Embedding."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {len(self.weight)} rows trained"


def _save_full_table(module: UsedRows, state: dict, prefix: str, metadata: dict) -> None:
    state[f"{prefix}weight"] = module.full_table()


def _load_full_table(module: UsedRows, state: dict, prefix: str, *_) -> None:
    full = state.get(f"{prefix}weight")
    if full is not None:
        with torch.no_grad():
            module.table.copy_(full)
        state[f"{prefix}weight"] = full[module.used.to(full.device)]


def can_train_used_rows(model: PreTrainedModel, args: TrainingArguments) -> bool:
    """Whether training only the used rows gives the same model. Depends on model, optimizer and number of processes."""
    embedding = model.get_input_embeddings()
    return (
        model.config.model_type in MODEL_TYPES
        and model.get_output_embeddings() is None
        and type(embedding) is nn.Embedding
        and all(getattr(embedding, name) == value for name, value in NOT_USED.items())
        and embedding.weight.requires_grad
        and args.optim in OPTIMIZERS
        and args.weight_decay == 0
        and args.world_size == 1
        and not args.deepspeed
        and not args.fsdp
    )


@contextmanager
def used_rows(model: PreTrainedModel, used_ids: np.ndarray) -> Iterator[None]:
    """Train only the rows of the input embedding with ids in `used_ids` (any shape), and the rows of padding.

    On exit the model has its own embedding again, with the trained rows, on the model's current device.
    """
    original: nn.Embedding = model.get_input_embeddings()
    padding = [i for i in (0, original.padding_idx, model.config.pad_token_id) if i is not None]
    rows = UsedRows(original, np.union1d(padding, used_ids))
    model.set_input_embeddings(rows)
    try:
        yield
    finally:
        original.weight = nn.Parameter(rows.full_table(), rows.weight.requires_grad)
        model.set_input_embeddings(original.train(rows.training))
