"""Remove layers from a model. Only this module changes the depth of a model.

Layers are removed, not skipped: parameters, memory and time decrease. The reduced model is an ordinary model of the
`transformers` library. Layer ids are 0-based. LayerDrop (Fan et al.) is another method: it skips
random layers in training.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from .architectures import CONFIG_KEY, family_of, original_layers
from .errors import UserError
from .strategies import check_dropped


def kept_layers(config: PreTrainedConfig, dropped: Sequence[int]) -> list[int]:
    """Ids of the kept layers, ascending. Raises UserError if the layers cannot be dropped from this model."""
    n_layers, family = config.num_hidden_layers, family_of(config)
    drop = set(check_dropped(dropped, n_layers))
    if family.fixed_first and 0 in drop:
        raise UserError(f"layer 0 of {family.name} cannot be dropped: {family.fixed_first}. Drop other layers.")
    kept = [i for i in range(n_layers) if i not in drop]
    if family.by_position and getattr(config, family.by_position) and kept[-1] >= len(kept):
        raise UserError(
            f"layer {kept[-1]} of this {family.name} cannot move to position {len(kept) - 1}: its attention depends on "
            f"its position ({family.by_position}). Drop only the last layers: --drop_strategy top."
        )
    return kept


def droppable(config: PreTrainedConfig) -> list[int]:
    """Ids of the layers that can be dropped, ascending. The model must keep at least one layer."""
    return list(range(bool(family_of(config).fixed_first), config.num_hidden_layers))


def reduced_config(config: PreTrainedConfig, dropped: Sequence[int]) -> PreTrainedConfig:
    """Copy `config` for the model without the layers `dropped` (ids in `config`'s own numbering).

    The copy has the new depth, shorter per-layer lists, and CONFIG_KEY with the original depth and ids.
    """
    kept = kept_layers(config, dropped)
    reduced = copy.deepcopy(config)
    if len(kept) == config.num_hidden_layers:
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
    """Positions of the layers `ids` in the reduced model. Raises UserError for an id that is not kept."""
    if dropped := [i for i in ids if i not in kept]:
        raise UserError(f"{flag}: layer {', '.join(map(str, dropped))} is not kept. Kept: {', '.join(map(str, kept))}.")
    return [list(kept).index(i) for i in ids]


def layer_list(model: PreTrainedModel) -> torch.nn.ModuleList:
    """The model's layers, id 0 first. ALBERT: the one shared layer. Raises TypeError for a wrong row in the table."""
    path = family_of(model.config).layers
    layers = model.base_model.get_submodule(path)
    if not isinstance(layers, torch.nn.ModuleList):
        raise TypeError(f"{path} of {type(model).__name__} is a {type(layers).__name__}, not a ModuleList")
    return layers


def drop_layers(model: PreTrainedModel, dropped: Sequence[int]) -> PreTrainedModel:
    """Remove the layers `dropped` (ids in the model's own numbering) from a model in memory, in place.

    Update the configuration and all copies of the depth and layer indices, so that the model can be saved and loaded.
    Returns the same model. Raises UserError as `kept_layers`. `loading.load_classifier` needs less memory.
    """
    reduced = _reduced(model, dropped)
    if len(dropped):
        _set(model, reduced)
    return model


@contextmanager
def without(model: PreTrainedModel, dropped: Sequence[int]) -> Iterator[PreTrainedModel]:
    """Remove the layers `dropped` (ids in the model's own numbering) inside the block, and restore them on exit.

    No weight is copied: changes to the kept layers persist.
    """
    before = _Depth.of(model)
    try:
        yield drop_layers(model, dropped)
    finally:
        _set(model, before)


@contextmanager
def with_layers(model: PreTrainedModel, layers: Sequence[tuple[PreTrainedModel, int]]) -> Iterator[PreTrainedModel]:
    """Replace the model's layers inside the block, and restore them on exit.

    layers: (a model of the same family, a layer id in it) for each position.
    """
    before, fields = _Depth.of(model), _depth_fields(model.config)
    for name in family_of(model.config).per_layer:
        if isinstance(fields[name], (list, tuple)):
            fields[name] = [getattr(source.config, name)[i] for source, i in layers]
    fields["num_hidden_layers"] = len(layers)
    try:
        _set(model, _Depth(torch.nn.ModuleList([layer_list(source)[i] for source, i in layers]), fields))
        yield model
    finally:
        _set(model, before)


@dataclass(frozen=True)
class _Depth:
    """The layers of a model and the configuration fields that depend on its depth."""

    layers: torch.nn.ModuleList
    config: dict[str, Any]

    @classmethod
    def of(cls, model: PreTrainedModel) -> "_Depth":
        return cls(layer_list(model), _depth_fields(model.config))


def _depth_fields(config: PreTrainedConfig) -> dict[str, Any]:
    names = ("num_hidden_layers", CONFIG_KEY, *family_of(config).per_layer)
    return {name: copy.copy(getattr(config, name, None)) for name in names}


def _reduced(model: PreTrainedModel, dropped: Sequence[int]) -> _Depth:
    kept, layers = kept_layers(model.config, dropped), layer_list(model)
    fields = _depth_fields(reduced_config(model.config, dropped))
    shared = family_of(model.config).shared
    return _Depth(layers if shared else torch.nn.ModuleList([layers[i] for i in kept]), fields)


def _set(model: PreTrainedModel, depth: _Depth) -> None:
    family = family_of(model.config)
    for name, value in depth.config.items():
        if value is not None:
            setattr(model.config, name, value)
        elif hasattr(model.config, name):
            delattr(model.config, name)
    if family.shared:
        return
    _set_attribute(model.base_model, family.layers, depth.layers)
    for index, layer in enumerate(depth.layers):
        for module in layer.modules():
            for attribute in ("layer_idx", "layer_id"):
                if isinstance(getattr(module, attribute, None), int):
                    setattr(module, attribute, index)
    for attribute in family.depth_attributes:
        _set_attribute(model.base_model, attribute, len(depth.layers))


def _set_attribute(module: torch.nn.Module, path: str, value: Any) -> None:
    owner, _, name = path.rpartition(".")
    setattr(module.get_submodule(owner), name, value)
