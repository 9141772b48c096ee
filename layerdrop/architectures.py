"""Checkpoint names, and the table of model families. A row names a family's layers and depth-dependent fields.

Contract of a family, tested for every row by tests/small/test_surgery.py:
- its layers are one `ModuleList` at the path `layers` in the base model (with `shared`: one layer used n times);
- `config.num_hidden_layers` (mapped by the library to `n_layers`, `n_layer`, ...) is the depth;
- `per_layer` names every configuration field that holds one entry for each layer;
- building the model from the reduced configuration and loading the kept layers' weights gives the reduced model.
"""

import os
from dataclasses import dataclass, fields
from typing import Any, Literal

from .errors import UserError

CONFIG_KEY = "layer_dropping"
"""Our key in a saved configuration: {"n_layers": original depth, "kept": original ids}. (`layerdrop` is Wav2Vec2's.)"""


def paths_to_text(settings: Any) -> None:
    """Replace the paths (`os.PathLike`) in the fields of a frozen dataclass by their text."""
    for each in fields(settings):
        if isinstance(value := getattr(settings, each.name), os.PathLike):
            object.__setattr__(settings, each.name, os.fspath(value))


@dataclass(frozen=True)
class ModelSpec:
    """A checkpoint and its tokenizer."""

    name: str
    """Folder or hub name; `demo`: the bundled demo model."""
    revision: str = "main"
    tokenizer: str | None = None
    """Folder or hub name of the tokenizer; None: the checkpoint's own."""
    from_scratch: bool = False
    """Random weights instead of the pre-trained ones."""

    def __post_init__(self) -> None:
        paths_to_text(self)


@dataclass(frozen=True)
class HubOptions:
    """Access to the hub. Fields are named as in `from_pretrained`."""

    cache_dir: str | None = None
    token: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Family:
    """One row of the table. Paths are relative: `layers` to the base model, `ffn_matrix` to one layer."""

    name: str
    model_types: tuple[str, ...]
    """`model_type` values of this family."""
    layers: str
    ffn_matrix: str
    """The second feed-forward matrix of a layer, which the strategies `variance` and `aggregation` read by default."""
    per_layer: tuple[str, ...] = ()
    depth_attributes: tuple[str, ...] = ()
    """Attributes of the base model that keep a copy of the depth."""
    shared: bool = False
    """All layers share one set of weights (ALBERT): dropping saves time, but no parameters."""
    fixed_first: str = ""
    """Reason why layer 0 cannot be dropped; empty if it can."""
    by_position: str = ""
    """Configuration field that makes a layer depend on its position. Then only the last layers can be dropped."""
    sentence_token: int = 0
    """Position of the token that the classifier reads: 0, or -1 for the last non-padding token."""
    sequence_first: bool = False
    """Whether a layer's hidden states are (tokens, batch, hidden) instead of (batch, tokens, hidden)."""
    padding_side: Literal["right", "left", "either"] = "right"
    """Side on which a text can be padded. Right: positions are absolute, or the sentence token is the first token.
    Left: the classifier reads the last column."""
    positions_after_padding: tuple[str, ...] = ()
    """Model types whose positions start at padding id + 1. The position embeddings before it are unused."""


FAMILIES = (
    Family(
        "BERT",
        (
            *("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "mpnet", "mobilebert", "deberta"),
            *("deberta-v2", "data2vec-text", "megatron-bert", "roberta-prelayernorm", "rembert", "roformer"),
            "xlm-roberta-xl",
        ),
        layers="encoder.layer",
        ffn_matrix="output.dense.weight",
        positions_after_padding=(
            *("roberta", "xlm-roberta", "camembert", "mpnet"),
            *("data2vec-text", "roberta-prelayernorm", "xlm-roberta-xl"),
        ),
    ),
    Family(
        "DistilBERT",
        ("distilbert",),
        layers="transformer.layer",
        ffn_matrix="ffn.lin2.weight",
        depth_attributes=("transformer.n_layers",),
    ),
    Family(
        "XLNet",
        ("xlnet",),
        layers="layer",
        ffn_matrix="ff.layer_2.weight",
        depth_attributes=("n_layer",),
        sentence_token=-1,
        padding_side="left",
        sequence_first=True,
    ),
    Family(
        "ALBERT",
        ("albert",),
        layers="encoder.albert_layer_groups.0.albert_layers",
        ffn_matrix="ffn_output.weight",
        shared=True,
    ),
    Family(
        "Longformer",
        ("longformer",),
        layers="encoder.layer",
        ffn_matrix="output.dense.weight",
        per_layer=("attention_window",),
        positions_after_padding=("longformer",),
    ),
    Family(
        "ModernBERT",
        ("modernbert",),
        layers="layers",
        ffn_matrix="mlp.Wo.weight",
        per_layer=("layer_types",),
        fixed_first="it has no attention norm, and transformers builds the first layer of every model without one",
    ),
    Family(
        "EuroBERT",
        ("eurobert",),
        layers="layers",
        ffn_matrix="mlp.down_proj.weight",
    ),
    Family(
        "Llama",
        ("llama", "mistral"),
        layers="layers",
        ffn_matrix="mlp.down_proj.weight",
        sentence_token=-1,
        padding_side="either",
    ),
    Family(
        "Qwen",
        ("qwen2", "qwen3"),
        layers="layers",
        ffn_matrix="mlp.down_proj.weight",
        per_layer=("layer_types",),
        sentence_token=-1,
        padding_side="either",
    ),
    Family(
        "GPT-2",
        ("gpt2",),
        layers="h",
        ffn_matrix="mlp.c_proj.weight",
        by_position="scale_attn_by_inverse_layer_idx",
        sentence_token=-1,
    ),
)


REFUSED = {
    "squeezebert": "its layers return dictionaries of transposed hidden states",
    **dict.fromkeys(("xlm", "flaubert"), "its layers are several parallel lists"),
    "funnel": "its layers form blocks that shorten the sequence",
    **dict.fromkeys(("t5", "mt5", "umt5", "bart", "mbart"), "it has two lists of layers, an encoder's and a decoder's"),
    "canine": "it has three encoders of different lengths",
    "reformer": "its layers are reversible pairs",
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "jamba", "zamba"), "its layers have different types"),
}
"""Model types without a single list of layers -> reason."""


def family_of(config: Any, checkpoint: str = "") -> Family:
    """Return the family of a `PreTrainedConfig`. Raises UserError for a model type that is not in the table.

    checkpoint: flag and name of the checkpoint, for the message.
    """
    start = checkpoint and f"{checkpoint}: "
    for family in FAMILIES:
        if config.model_type in family.model_types:
            if family.shared and getattr(config, "num_hidden_groups", 1) > 1:
                raise UserError(
                    f"{start}this {family.name} has {config.num_hidden_groups} groups of shared layers; "
                    "only models with one group can be reduced. Choose another checkpoint."
                )
            return family
    if why := REFUSED.get(config.model_type):
        raise UserError(f"{start}model type '{config.model_type}' cannot be reduced: {why}. Choose another model.")
    allowed = ", ".join(name for family in FAMILIES for name in family.model_types)
    raise UserError(
        f"{start}model type '{config.model_type}' is not supported. "
        f"Allowed: {allowed}. To add a family, see docs/extending.md."
    )


def original_layers(config: Any) -> tuple[int, list[int]]:
    """Return (depth of the original model, original ids of the remaining layers)."""
    record = getattr(config, CONFIG_KEY, None) or {}
    n_layers = config.num_hidden_layers
    return record.get("n_layers", n_layers), list(record.get("kept", range(n_layers)))


def has_valid_layers(config: Any) -> bool:
    """Whether CONFIG_KEY is missing, or names as many layers as the model has, ascending, within the original depth."""
    record = getattr(config, CONFIG_KEY, None)
    if record is None:
        return True
    if not isinstance(record, dict) or not isinstance(record.get("kept", []), list):
        return False
    n_original, kept = original_layers(config)
    if not all(type(i) is int for i in (n_original, *kept)):
        return False
    return len(kept) == config.num_hidden_layers and kept == sorted(set(kept) & set(range(n_original)))
