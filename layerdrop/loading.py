"""Load a checkpoint without its dropped layers. Only the kept weights are read."""

import copy
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import ERROR
from typing import Any, Literal, get_args

import torch
import transformers
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModel,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from .checkpoints import HEADS, Checkpoint, Weight, shape_of, unusable
from .errors import UserError, unknown
from .strategies import is_list
from .surgery import kept_layers, reduced_config

ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]
"""The library's names for the tasks of a sequence classifier."""
AUTO_CLASSES = tuple(f"AutoModel{head}" for head in HEADS)
"""The library's classes that load a classifier."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the library's reports and progress bars during loading and saving."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(ERROR)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def load_classifier(
    checkpoint: Checkpoint | str | os.PathLike[str],
    dropped: Sequence[int] = (),
    *,
    labels: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    auto_class: str | None = None,
    replace_head: bool = True,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> tuple[PreTrainedModel, list[str]]:
    """Load a checkpoint as a classifier without the layers `dropped`, in fp32, on the CPU.

    Peak memory is proportional to the size of the kept weights. checkpoint: a Checkpoint, a folder or a hub name.
    labels: class names in id order, empty for regression; None: the checkpoint's. problem_type: the library's name for
    the task of a sequence classifier; None: single-label classification, or regression without labels. auto_class: the
    library's class, one of AUTO_CLASSES; None: the class of the checkpoint's head, or a sequence classifier.
    replace_head: whether a new head replaces a trained head of another size or task. weights: weights of the full
    encoder that are already in memory, by their names in the base model.

    Set the seed before the call: missing weights (the head) are drawn from torch's generator. The draws are identical
    for every set of dropped layers.

    Returns the model in evaluation mode, and the names of its new parameters. Raises UserError if an argument is
    unusable, the checkpoint lacks encoder weights, its head does not fit, or its layers cannot be identified by name.
    """
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint.open(checkpoint)
    if not replace_head and checkpoint.has_classifier:
        checkpoint.check_head()
    config = _config(checkpoint, labels, problem_type)
    empty = _empty(checkpoint, config, dropped, auto_class)
    kept = renumbered(checkpoint, dropped, empty.base_model_prefix, weights or {})
    task = _head_task(empty.config, type(empty).__name__)
    trained = _head_task(checkpoint.config, checkpoint.head_class) if checkpoint.head_class else task
    unfit = _unfit_head(kept, empty, trained != task)
    if not replace_head and (unfit or trained != task):
        raise _head_error(checkpoint, kept, empty, trained, task)
    kept = {key: tensor for key, tensor in kept.items() if key not in unfit}
    with _initial_weights_of_depth(type(empty), checkpoint.n_original):
        model, new = _build(type(empty), reduced_config(config, dropped), kept, checkpoint)
    if dropped:
        _check_layers(checkpoint, dropped, kept, model)
    return model, new


def random_classifier(
    checkpoint: Checkpoint,
    dropped: Sequence[int] = (),
    *,
    labels: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    auto_class: str | None = None,
) -> PreTrainedModel:
    """Make the same classifier as `load_classifier`, with random weights: the baseline without pre-training.

    Set the seed before the call.
    """
    config = reduced_config(_config(checkpoint, labels, problem_type), dropped)
    model = _classifier(checkpoint, config, auto_class)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def load_encoder(checkpoint: Checkpoint) -> PreTrainedModel:
    """Load the full encoder without a head, in fp32, on the CPU, in evaluation mode."""
    with torch.device("meta"):
        empty = _model(checkpoint, AutoModel.from_config, checkpoint.config)
    prefix = empty.base_model_prefix + "."
    weights = {key.removeprefix(prefix): value for key, value in checkpoint.weights().items()}
    return _build(type(empty), copy.deepcopy(checkpoint.config), weights, checkpoint)[0]


def load_masked_lm(checkpoint: Checkpoint) -> PreTrainedModel | None:
    """Load the full model with its masked-LM head, in fp32, on the CPU, in evaluation mode.

    None if the library has no such head for this model type, or the checkpoint lacks its weights.
    """
    if type(checkpoint.config) not in MODEL_FOR_MASKED_LM_MAPPING:
        return None
    with torch.device("meta"):
        empty = _model(checkpoint, AutoModelForMaskedLM.from_config, checkpoint.config)
    model, new = _build(type(empty), copy.deepcopy(checkpoint.config), dict(checkpoint.weights()), checkpoint)
    return None if new else model


def number_of_parameters(
    checkpoint: Checkpoint,
    dropped: Sequence[int] = (),
    *,
    labels: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    auto_class: str | None = None,
) -> int:
    """Count the parameters of the classifier that `load_classifier` would load, without reading weights."""
    empty = _empty(checkpoint, _config(checkpoint, labels, problem_type), dropped, auto_class)
    return sum(parameter.numel() for parameter in empty.parameters())


def _config(checkpoint: Checkpoint, labels: Sequence[str] | None, problem_type: ProblemType | None) -> PreTrainedConfig:
    """A copy of the checkpoint's configuration for a classifier with these labels."""
    config = copy.deepcopy(checkpoint.config)
    if checkpoint.family.sentence_token == -1 or config.pad_token_id is None:  # decoders find the last token by this id
        config.pad_token_id = checkpoint.pad_token_id
    if labels is not None:
        _check_labels(labels, problem_type)
        config.num_labels = max(1, len(labels))
        config.problem_type = problem_type or ("single_label_classification" if labels else "regression")
        if labels:
            config.id2label = dict(enumerate(labels))
            config.label2id = {name: i for i, name in enumerate(labels)}
    return config


def _check_labels(labels: Sequence[str], problem_type: ProblemType | None) -> None:
    """Raise UserError for labels that are not different names, and for an unknown problem_type."""
    if not is_list(labels) or not all(isinstance(name, str) for name in labels) or len(set(labels)) < len(labels):
        raise UserError(f"labels {labels!r}: must be a list of names of classes, each once. For a regression: [].")
    if problem_type not in (None, *get_args(ProblemType)):
        raise unknown("problem_type", str(problem_type), get_args(ProblemType))


def _classifier(checkpoint: Checkpoint, config: PreTrainedConfig, auto_class: str | None) -> PreTrainedModel:
    """The classifier of a configuration. Raises UserError if the library has no such class for the model type."""
    if auto_class not in (None, *AUTO_CLASSES):
        raise unknown("auto_class", str(auto_class), AUTO_CLASSES)
    name = auto_class or checkpoint.head_class or "AutoModelForSequenceClassification"
    library_class = getattr(transformers, name)
    custom = name in (getattr(config, "auto_map", None) or {})
    if type(config) not in library_class._model_mapping and not custom:
        raise UserError(
            f"{checkpoint.flag} {checkpoint.name}: the library has no {name.removeprefix('AutoModelFor')} head for "
            f"{config.model_type} models. Choose another model."
        )
    return _model(checkpoint, library_class.from_config, config)


def _empty(
    checkpoint: Checkpoint, config: PreTrainedConfig, dropped: Sequence[int], auto_class: str | None
) -> PreTrainedModel:
    """The reduced classifier without weights, on PyTorch's meta device."""
    with torch.device("meta"):
        return _classifier(checkpoint, reduced_config(config, dropped), auto_class)


def _model(
    checkpoint: Checkpoint, from_config: Callable[..., PreTrainedModel], config: PreTrainedConfig
) -> PreTrainedModel:
    """A model with random weights in fp32. Raises UserError for a configuration that the library cannot build."""
    try:
        return from_config(config, dtype=torch.float32, trust_remote_code=checkpoint.hub.trust_remote_code)
    except Exception as error:  # whatever the model's class raises for values out of range
        raise unusable(f"{checkpoint.flag} {checkpoint.name}", "config.json", error) from error


def renumbered(
    checkpoint: Checkpoint, dropped: Sequence[int], base_prefix: str, in_memory: Mapping[str, torch.Tensor]
) -> dict[str, Weight]:
    """The kept weights under their names in the reduced model."""
    prefix = base_prefix + "."
    weights: dict[str, Weight] = {
        key: in_memory.get(key.removeprefix(prefix), tensor) for key, tensor in checkpoint.weights().items()
    }
    if not dropped or checkpoint.family.shared:
        return weights
    new_id = {old: new for new, old in enumerate(kept_layers(checkpoint.config, dropped))}
    pattern = re.compile(rf"((?:{re.escape(prefix)})?{re.escape(checkpoint.family.layers)}\.)(\d+)(\..*)")
    renumbered: dict[str, Weight] = {}
    for key, tensor in weights.items():
        match = pattern.fullmatch(key)
        if match is None:
            renumbered[key] = tensor
        elif (old := int(match[2])) in new_id:
            renumbered[f"{match[1]}{new_id[old]}{match[3]}"] = tensor
    return renumbered


def _check_layers(
    checkpoint: Checkpoint, dropped: Sequence[int], weights: Mapping[str, Weight], model: PreTrainedModel
) -> None:
    """Raise UserError if a weight of a kept layer was loaded under another name, possibly from another layer.

    The library renames the weights of some model types. weights: the result of `renumbered`.
    """
    if checkpoint.family.shared:
        return
    kept = kept_layers(checkpoint.config, dropped)
    for name in missing_layer_weights(checkpoint, weights, model):
        layer = kept[int(name.removeprefix(f"{checkpoint.family.layers}.").partition(".")[0])]
        raise UserError(
            f"{checkpoint.flag} {checkpoint.name}: its weights of layer {layer} ({name}) have other names in the "
            "checkpoint's files, so layers cannot be dropped safely. Drop no layers, or choose another checkpoint."
        )


def missing_layer_weights(checkpoint: Checkpoint, weights: Mapping[str, Weight], model: PreTrainedModel) -> list[str]:
    """Names of the layers' weights that a model needs and `weights` lacks. weights: the result of `renumbered`."""
    prefix, layers = f"{model.base_model_prefix}.", f"{checkpoint.family.layers}."
    present = {re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", key)).removeprefix(prefix) for key in weights}
    return [name for name in model.base_model.state_dict() if name.startswith(layers) and name not in present]


def check_prefix(checkpoint: Checkpoint, weights: Iterable[str], missing: Iterable[str], base_prefix: str) -> None:
    """Raise UserError if a missing weight of a layer has its name with a prefix in the files: a wrapper was saved.

    weights: names in the files. missing: names in the model or in its base model.
    """
    layers = f"{checkpoint.family.layers}."
    name = next((name for name in missing if name.removeprefix(f"{base_prefix}.").startswith(layers)), None)
    if name is None:
        return
    name = name.removeprefix(f"{base_prefix}.")
    for needed in (f".{base_prefix}.{name}", f".{name}"):
        if named := next((key for key in weights if key.endswith(needed)), None):
            raise UserError(
                f"{checkpoint.flag} {checkpoint.name}: its weights have the prefix '{named.removesuffix(needed[1:])}' "
                f"of a wrapper ({named}). Save the model inside the wrapper, or remove the prefix from the names."
            )


def _unfit_head(weights: Mapping[str, Weight], empty: PreTrainedModel, other_task: bool) -> list[str]:
    """Names of the head weights that do not fit the model, because of their size or their task."""
    shapes = {key: tuple(value.shape) for key, value in empty.state_dict().items()}
    outside = [key for key in weights if key in shapes and not key.startswith(empty.base_model_prefix + ".")]
    return [key for key in outside if other_task or shape_of(weights[key]) != shapes[key]]


def _head_task(config: PreTrainedConfig, architecture: str) -> str:
    """The task of a head in words: `token classification`, `regression`, `multi label classification` ..."""
    if not architecture.endswith(HEADS[0]):
        return "token classification"
    default = "regression" if config.num_labels == 1 else "single label classification"
    return (config.problem_type or default).replace("_", " ")


def _head_error(
    checkpoint: Checkpoint, weights: Mapping[str, Weight], empty: PreTrainedModel, has: str, needed: str
) -> UserError:
    """weights: the result of `renumbered`. has, needed: tasks in words. Other numbers of outputs are shown instead."""
    if wrong := _unfit_head(weights, _empty(checkpoint, checkpoint.config, (), None), False):
        return UserError(
            f"{checkpoint.flag} {checkpoint.name}: its head has {shape_of(weights[wrong[0]])[0]} outputs ({wrong[0]}), "
            f"config.json has {checkpoint.config.num_labels} (id2label, num_labels). Correct config.json."
        )
    sizes = checkpoint.config.num_labels, empty.config.num_labels
    if sizes[0] != sizes[1]:
        has, needed = ("one value" if n == 1 else f"{n} classes" for n in sizes)
    return UserError(
        f"{checkpoint.flag} {checkpoint.name}: its trained head gives {has}, the task has {needed}. "
        "Evaluate it on the task that it was trained on, or fine-tune it on this task with --do_train."
    )


@contextmanager
def _initial_weights_of_depth(model_class: type[PreTrainedModel], n_layers: int) -> Iterator[None]:
    """Initialize new weights as in a model of n_layers layers. ModernBERT scales its new head by the depth."""
    inherited = "_init_weights" not in vars(model_class)
    own: Callable[[PreTrainedModel, torch.nn.Module], None] = model_class._init_weights

    def init_weights(model: PreTrainedModel, module: torch.nn.Module) -> None:
        depth = model.config.num_hidden_layers
        model.config.num_hidden_layers = n_layers
        try:
            own(model, module)
        finally:
            model.config.num_hidden_layers = depth

    model_class._init_weights = init_weights  # type: ignore[method-assign]
    try:
        yield
    finally:
        if inherited:
            del model_class._init_weights
        else:
            model_class._init_weights = own  # type: ignore[method-assign]


def _build(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, weights: dict[str, Weight], checkpoint: Checkpoint
) -> tuple[PreTrainedModel, list[str]]:
    """Return (model in fp32 with these weights, names of its new parameters).

    Raises UserError if the encoder lacks weights, or the sizes do not fit.
    """
    named = f"{checkpoint.flag} {checkpoint.name}"
    model: PreTrainedModel
    try:
        with quiet():  # the caller reports new and unused weights
            loaded: Any = model_class.from_pretrained(
                None, config=config, state_dict=weights, dtype=torch.float32, output_loading_info=True
            )
        model, info = loaded  # annotated as the model alone
    except RuntimeError as error:
        if "mismatched_sizes" not in str(error):
            raise
        raise UserError(f"{named}: the weights do not fit config.json. Give a complete checkpoint.") from error
    model.config.name_or_path = checkpoint.name
    new = sorted(info["missing_keys"])
    encoder = {key for key, _ in model.base_model.named_parameters() if "pooler" not in key}
    missing = [key for key in new if key.removeprefix(model.base_model_prefix + ".") in encoder]
    if missing:
        check_prefix(checkpoint, weights, missing, model.base_model_prefix)
        raise UserError(
            f"{named}: the checkpoint has no {missing[0]} ({len(missing)} weights of the encoder are missing). "
            "Give a complete checkpoint."
        )
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise UserError(f"{named}: some weights are not finite (NaN or infinity). Get the checkpoint again.")
    return model, new
