"""The only code that changes a model's depth.

Layers are removed, not skipped: parameters, memory and time go down. (Not to be confused with Fan et al.'s LayerDrop,
which drops layers at random while training.) The reduced model is an ordinary one of the `transformers` library.
Layer ids are 0-based.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from layerdrop.architectures import Family, family_of
from layerdrop.checkpoints import HubOptions, load_config, open_weights
from layerdrop.errors import UserError
from layerdrop.strategies import check_ids, check_k

CONFIG_KEY = "layer_dropping"
"""Our key in a saved configuration: {"n_layers": original depth, "kept": original ids}. (`layerdrop` is Wav2Vec2's.)"""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library from reporting on loading and saving: both are over in a moment."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def original_layers(config: PreTrainedConfig) -> tuple[int, list[int]]:
    """(depth of the original model, the original ids of the layers that this configuration still has)."""
    record = getattr(config, CONFIG_KEY, None) or {}
    n_layers = config.num_hidden_layers
    return record.get("n_layers", n_layers), list(record.get("kept", range(n_layers)))


def kept_layers(config: PreTrainedConfig, dropped: Sequence[int]) -> list[int]:
    """The ids that stay, ascending. Raises UserError where `dropped` cannot be dropped from such a model."""
    n_layers, family = config.num_hidden_layers, family_of(config)
    gone = set(check_ids("--drop_layers", dropped, n_layers))
    check_k(len(gone), n_layers, "--drop_layers: number of layers")
    if family.fixed_first and 0 in gone:
        raise UserError(f"layer 0 of {family.name} cannot be dropped: {family.fixed_first}. Drop other layers.")
    return [i for i in range(n_layers) if i not in gone]


def reduced_config(config: PreTrainedConfig, dropped: Sequence[int]) -> PreTrainedConfig:
    """A copy of `config` for the model without the layers `dropped` (ids in `config`'s own numbering).

    The depth, every per-layer list, and our record of the original depth and ids follow.
    """
    kept = kept_layers(config, dropped)
    reduced = copy.deepcopy(config)
    if not dropped:
        return reduced
    n_original, original_ids = original_layers(config)
    for name in family_of(config).per_layer:
        values = getattr(config, name)
        if isinstance(values, (list, tuple)):
            setattr(reduced, name, [values[i] for i in kept])
    reduced.num_hidden_layers = len(kept)
    setattr(reduced, CONFIG_KEY, {"n_layers": n_original, "kept": [original_ids[i] for i in kept]})
    return reduced


def positions(flag: str, kept: Sequence[int], ids: Sequence[int]) -> list[int]:
    """Where the layers `ids` are in the reduced model. Raises UserError for an id that is not kept."""
    if gone := [i for i in ids if i not in kept]:
        raise UserError(f"{flag}: layer {', '.join(map(str, gone))} is not kept. Kept: {', '.join(map(str, kept))}.")
    return [list(kept).index(i) for i in ids]


def label_names(config: PreTrainedConfig) -> list[str]:
    """The classes that a checkpoint names itself, in id order; none where they are the library's LABEL_0, LABEL_1."""
    names = [str(config.id2label[i]) for i in sorted(config.id2label or {})]
    return [] if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names


def set_labels(config: PreTrainedConfig, labels: Sequence[str]) -> None:
    """Give the classifier that will be built from `config` these classes, in id order; none for regression."""
    config.num_labels = max(1, len(labels))
    config.problem_type = "single_label_classification" if labels else "regression"
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: i for i, name in enumerate(labels)}


def max_length(config: PreTrainedConfig, tokenizer) -> int:
    """How many tokens the model takes at most, by its tokenizer or else by its position embeddings."""
    if tokenizer.model_max_length < 10**6:
        return tokenizer.model_max_length
    return getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length


def empty_model(config: PreTrainedConfig, trust_remote_code: bool = False) -> PreTrainedModel:
    """The sequence classifier of this configuration, without weights (on PyTorch's meta device)."""
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config, trust_remote_code=trust_remote_code)


def count_parameters(model: PreTrainedModel) -> int:
    """The number of parameters, each counted once; the model may be an empty one."""
    return sum(parameter.numel() for parameter in model.parameters())


def load_classifier(
    name: str,
    dropped: Sequence[int] = (),
    config: PreTrainedConfig | None = None,
    options: HubOptions = HubOptions(),
) -> tuple[PreTrainedModel, list[str]]:
    """The sequence classifier of a checkpoint (folder or hub name) without the layers `dropped`, in fp32 on the CPU.

    Only the kept layers are read, so that peak memory follows the kept size. `config` is that of the full checkpoint
    with the task's labels set (None: the checkpoint's as it is). Seed before the call: weights that the checkpoint
    lacks (the head) are drawn from torch's generator, the same ones whatever is dropped.

    Returns the model in evaluation mode and the names of the parameters that are new. Raises UserError where the
    checkpoint lacks weights below the head.
    """
    config = load_config(name, options) if config is None else config
    config_kept = reduced_config(config, dropped)
    empty = empty_model(config_kept, options.trust_remote_code)
    weights = _renumber(open_weights(name, options), config, dropped, empty.base_model_prefix)
    model, new = _build(type(empty), config_kept, _without_other_heads(weights, empty), name)
    return model, new


def random_classifier(
    config: PreTrainedConfig, dropped: Sequence[int] = (), trust_remote_code: bool = False
) -> PreTrainedModel:
    """The sequence classifier that load_classifier gives, with random weights: the baseline without pre-training.

    Seed before the call. `config` is that of the full model with the task's labels set.
    """
    reduced = reduced_config(config, dropped)
    return AutoModelForSequenceClassification.from_config(
        reduced, dtype=torch.float32, trust_remote_code=trust_remote_code
    ).eval()


def load_encoder(name: str, options: HubOptions = HubOptions(), flag: str = "--score_on") -> PreTrainedModel:
    """The full encoder of a checkpoint, without a head, in fp32 and evaluation mode: what scorers look at."""
    config = load_config(name, options, flag)
    family_of(config)
    with torch.device("meta"):
        empty = AutoModel.from_config(config, trust_remote_code=options.trust_remote_code)
    prefix = empty.base_model_prefix + "."
    weights = {key.removeprefix(prefix): value for key, value in open_weights(name, options).items()}
    return _build(type(empty), config, weights, name)[0]


def _build(model_class, config, weights: dict, name: str) -> tuple[PreTrainedModel, list[str]]:
    """(model in fp32 with these weights, names of the parameters that are new). Raises UserError if a layer is new."""
    try:
        with quiet():  # its report of new and left-out weights; the caller says it in the project's words
            model, info = model_class.from_pretrained(
                None, config=config, state_dict=weights, dtype=torch.float32, output_loading_info=True
            )
    except RuntimeError as error:
        if "mismatched_sizes" not in str(error):
            raise
        raise UserError(
            f"--model_name_or_path {name}: the weights do not fit config.json. Give a complete checkpoint."
        ) from error
    model.config.name_or_path = name
    new = sorted(info["missing_keys"])
    encoder = {key for key, _ in model.base_model.named_parameters() if "pooler" not in key}
    inside = [key for key in new if key.removeprefix(model.base_model_prefix + ".") in encoder]
    if inside:
        raise UserError(
            f"--model_name_or_path {name}: the checkpoint has no {inside[0]} ({len(inside)} weights of the encoder are "
            "missing). Give a complete checkpoint."
        )
    return model, new


def _renumber(weights, config, dropped: Sequence[int], base_prefix: str) -> dict:
    """The weights without those of the dropped layers, under the names that they have in the reduced model."""
    family = family_of(config)
    if not dropped or family.shared:
        return dict(weights)
    new_id = {old: new for new, old in enumerate(kept_layers(config, dropped))}
    pattern = re.compile(rf"((?:{re.escape(base_prefix)}\.)?{re.escape(family.layers)}\.)(\d+)(\..*)")
    renumbered = {}
    for key, tensor in weights.items():
        match = pattern.fullmatch(key)
        if match is None:
            renumbered[key] = tensor
        elif (old := int(match[2])) in new_id:
            renumbered[f"{match[1]}{new_id[old]}{match[3]}"] = tensor
    return renumbered


def _without_other_heads(weights: dict, empty: PreTrainedModel) -> dict:
    """The weights without a classification head of another size: that task's head says nothing about this one."""
    shapes = {key: tuple(value.shape) for key, value in empty.state_dict().items()}

    def fits(key: str, tensor) -> bool:
        shape = tensor.get_shape() if hasattr(tensor, "get_shape") else tensor.shape
        inside = key.startswith(empty.base_model_prefix + ".")
        return inside or key not in shapes or tuple(shape) == shapes[key]

    return {key: tensor for key, tensor in weights.items() if fits(key, tensor)}


def layer_list(model: PreTrainedModel) -> torch.nn.ModuleList:
    """The model's layers, next to the embeddings first (ALBERT: the one layer that all share)."""
    return model.base_model.get_submodule(family_of(model.config).layers)


def drop_layers(model: PreTrainedModel, dropped: Sequence[int]) -> PreTrainedModel:
    """Remove the layers `dropped` (ids in the model's own numbering) from a model in memory, in place.

    The configuration and every copy of the depth or of a layer's index follow, so that the model can be saved and
    loaded as if it had been built that way. Returns the same model. To save memory use load_classifier.
    """
    if not dropped:
        return model
    family: Family = family_of(model.config)
    kept = kept_layers(model.config, dropped)
    reduced = reduced_config(model.config, dropped)
    for name in ("num_hidden_layers", CONFIG_KEY, *family.per_layer):
        setattr(model.config, name, getattr(reduced, name))
    if family.shared:
        return model
    path, _, name = family.layers.rpartition(".")
    layers = torch.nn.ModuleList([layer_list(model)[i] for i in kept])
    setattr(model.base_model.get_submodule(path), name, layers)
    for index, layer in enumerate(layers):
        for module in layer.modules():
            for attribute in ("layer_idx", "layer_id"):
                if isinstance(getattr(module, attribute, None), int):
                    setattr(module, attribute, index)
    for attribute in family.depth_attributes:
        path, _, name = attribute.rpartition(".")
        setattr(model.base_model.get_submodule(path), name, len(kept))
    return model
