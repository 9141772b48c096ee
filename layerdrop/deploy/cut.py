"""Cut a checkpoint: the same model with its own head and some of its layers, without training.

The weights are copied under the names of the reduced model, with all heads and the weights' types. The tokenizer, the
modules of a sentence encoder and custom code are copied unchanged. The result is an ordinary checkpoint of its class.
"""

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub import save_torch_state_dict, snapshot_download
from jinja2 import Template
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel

from layerdrop.architectures import HubOptions, original_layers
from layerdrop.checkpoints import (
    OUTPUTS,
    PARAMETERS,
    TOKENIZER,
    Checkpoint,
    folder_or_name,
    is_local,
    shape_of,
    unusable,
)
from layerdrop.criteria.selection import Selection
from layerdrop.deploy.folder import check_output
from layerdrop.deploy.trim import TOKENIZER_FILE, trim
from layerdrop.errors import UserError
from layerdrop.loading import check_prefix, missing_layer_weights, renumbered
from layerdrop.runs.card import hub_name
from layerdrop.runs.record import plain
from layerdrop.runs.results import CARD_FILE, LAYERS_FILE, layer_facts
from layerdrop.surgery import kept_layers, reduced_config
from layerdrop.system.files import hashes_in, read_json, replace_folder, temporary_folder_for, write_atomically
from layerdrop.system.text import markdown, short_name

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MODULES = "modules.json"
"""sentence-transformers' list of modules: a transformer, then pooling, dense and other modules in folders."""
CONFIG, DIMENSION = "config.json", "word_embedding_dimension"
"""The settings of a module, and the size of its vectors. SPLADE's vectors have one entry for each token."""
OTHER_FILES = (*TOKENIZER, "*.jinja", "*.py", "generation_config.json", "preprocessor_config.json")
SENTENCE_FILES = (MODULES, "config_sentence_transformers.json", "sentence_*_config.json")
CARD = Template("""\
---
library_name: {{ library }}
tags: [layerdrop, layer-dropping]
{%- if base %}
base_model: {{ base }}
{%- endif %}
---
# {{ name }} with {{ kept | length }} of {{ n_layers }} layers
{% if dropped %}
Kept layers of the original model: {{ kept | join(", ") }} (ids count from 0, next to the embeddings). Selected by
{{ why }}.
{%- endif %}
{%- if cut.vocabulary[0] != cut.vocabulary[1] %}
The vocabulary has {{ "{:,}".format(cut.vocabulary[1]) }} of {{ "{:,}".format(cut.vocabulary[0]) }} tokens.
{%- endif %}
Parameters: {{ "{:,}".format(cut.parameters[0]) }} -> {{ "{:,}".format(cut.parameters[1]) }}.
Class: `{{ cut.model_class }}`.

The model is not trained after the cut: fine-tune it before use. The license and the limits of `{{ name }}` also apply
to this model.
""")


@dataclass(frozen=True)
class Cut:
    """A cut checkpoint in a folder."""

    folder: str
    model_class: str
    kept: list[int]
    """Ids of the kept layers in the original model."""
    n_layers: int
    """Depth of the original model."""
    parameters: tuple[int, int]
    """Numbers of parameters in the weights' files before and after."""
    vocabulary: tuple[int, int]
    """Numbers of tokens before and after."""


class Source:
    """The files of a checkpoint: a folder, or a snapshot of a repository on the hub."""

    def __init__(self, name: str, hub: HubOptions = HubOptions(), revision: str = "main"):
        """Raises UserError for an unreadable list of modules."""
        self.root = Path(folder_or_name(name)) if is_local(name) else _snapshot(name, hub, revision)
        self.modules = self._modules()
        self.transformer = self.modules[0] if self.modules else ""
        """Folder of the transformer in `root`: empty, or `0_Transformer` in some sentence encoders."""
        self.name = str(self.root / self.transformer) if self.transformer else name

    def _modules(self) -> list[str]:
        """The folders of a sentence encoder's modules. Empty for other checkpoints."""
        path = self.root / MODULES
        if not path.is_file():
            return []
        try:
            paths = [Path(module["path"]) for module in read_json(path)]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: not a list of sentence-transformers' modules ({error}). Get the checkpoint again."
            ) from None
        if outside := [
            module for module in paths if not (self.root / module).resolve().is_relative_to(self.root.resolve())
        ]:
            raise UserError(
                f"{path}: the module {outside[0]} is outside the folder of the checkpoint. Get the checkpoint again."
            )
        return list(dict.fromkeys("" if module == Path() else module.as_posix() for module in paths))

    def copy_to(self, folder: Path) -> None:
        """Copy all files but the weights, the configuration and the card."""
        _copy(self.root / self.transformer, folder / self.transformer, OTHER_FILES)
        if self.modules:
            _copy(self.root, folder, SENTENCE_FILES)
            _copy(self.root / self.transformer, folder / self.transformer, SENTENCE_FILES)
        for module in self.modules[1:]:
            if module and _has_files(self.root / module):  # Normalize has none
                shutil.copytree(self.root / module, folder / module, ignore=_empty_folders)

    def resize_modules(self, folder: Path, old: int, new: int) -> None:
        """Set the number of tokens in the copied modules of a sparse encoder (SPLADE), from `old` to `new`.

        Raises UserError for a module with its own tokenizer.
        """
        for module in filter(None, self.modules[1:]):
            if tokenizer := next((folder / module).rglob(TOKENIZER_FILE), None):
                name = tokenizer.relative_to(folder)
                raise UserError(
                    f"--trim_vocabulary: {self.root} has a module with its own tokenizer, {name}. Leave "
                    "--trim_vocabulary out."
                )
            path = folder / module / CONFIG
            settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            if "pooling_strategy" in settings and settings.get(DIMENSION) == old:
                write_atomically(path, json.dumps(settings | {DIMENSION: new}, indent=4) + "\n")


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _empty_folders(folder: str, names: list[str]) -> list[str]:
    """The names of subfolders without a file. `check_output` takes such a folder for the user's."""
    return [name for name in names if Path(folder, name).is_dir() and not _has_files(Path(folder, name))]


def _copy(source: Path, target: Path, patterns: Sequence[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in {path for pattern in patterns for path in source.glob(pattern) if path.is_file()}:
        shutil.copyfile(path, target / path.name)


def _snapshot(name: str, hub: HubOptions, revision: str) -> Path:
    """Download the files of a repository, without the weights in its root. Raises UserError for an unknown name."""
    where = {"revision": revision, "token": hub.token}
    try:
        files = None  # without a connection: the files in the cache
        if not huggingface_hub.is_offline_mode():
            files = [file for file in huggingface_hub.HfApi().list_repo_files(name, **where) if _is_needed(file)]
        folder = snapshot_download(name, cache_dir=hub.cache_dir, allow_patterns=files, **where)
    except (OSError, ValueError) as error:
        raise UserError(
            f"MODEL {name}: no such folder, and the hub gives no such model ({str(error).splitlines()[0]}). Check the "
            "name and --model_revision, or add --token for a private model."
        ) from None
    return Path(folder)


def _is_needed(file: str) -> bool:
    """Whether a file of a repository is needed besides the weights in its root, which are read one by one."""
    weights = (".bin", ".h5", ".msgpack", ".ot", ".onnx", ".safetensors")
    return not file.startswith(("onnx/", "openvino/")) and ("/" in file or not file.endswith(weights))


def write_cut(
    source: Source,
    checkpoint: Checkpoint,
    selection: Selection,
    strategy: str,
    output: str,
    dtype: str | None = None,
    trim_to: Sequence[tuple[str, ...]] = (),
) -> Cut:
    """Write a checkpoint without the selected layers into a folder, with tokenizer, `layers.json` and card.

    source: the files of `checkpoint`. dtype: a key of DTYPES; None: the types of the checkpoint's weights.
    trim_to: texts whose tokens remain in the vocabulary; empty: all tokens remain.

    Raises UserError for a folder with other files, and if the layers cannot be identified by name.
    """
    target = check_output("--output_dir", output, LAYERS_FILE)
    if target.is_relative_to(source.root.resolve()):
        raise UserError(f"--output_dir {output}: is the folder of MODEL, or in it. Choose another folder.")
    config, weights = reduced_config(checkpoint.config, selection.dropped), _weights(checkpoint, selection.dropped)
    trimmed = trim(source.root / source.transformer / TOKENIZER_FILE, trim_to) if trim_to else None
    n_embeddings = config.vocab_size
    weights = {name: _read(name, tensor, dtype) for name, tensor in weights.items()}
    if trimmed:
        weights = trimmed.rows(weights, _vocabulary_dimensions(checkpoint, weights), n_embeddings)
        trimmed.adapt(config)
    facts = _facts(checkpoint, selection, strategy, config.vocab_size)
    before, after = (sum(map(_size, each.values())) for each in (checkpoint.weights(), weights))
    vocabulary = n_embeddings, config.vocab_size
    cut = Cut(output, _model_class(checkpoint), facts["kept"], facts["n_layers"], (before, after), vocabulary)
    with temporary_folder_for("--output_dir", target) as new:
        source.copy_to(new)
        folder = new / source.transformer
        if dtype:
            config.dtype = DTYPES[dtype]
        own = read_json(source.root / source.transformer / CONFIG)
        for key in OUTPUTS.keys() & own.keys():
            setattr(config, key, own[key])
        config.save_pretrained(folder)
        save_torch_state_dict(weights, folder, metadata={"format": "pt"})
        if trimmed:
            trimmed.write(folder)
            source.resize_modules(new, *vocabulary)
        write_atomically(new / CARD_FILE, _card(source, checkpoint, facts, cut))
        facts["files"] = hashes_in(new)
        write_atomically(new / LAYERS_FILE, json.dumps(plain(facts), indent=1) + "\n")
        check_output("--output_dir", output, LAYERS_FILE)
        replace_folder(new, target)
    return cut


def _facts(checkpoint: Checkpoint, selection: Selection, strategy: str, vocabulary: int) -> dict[str, Any]:
    """The content of `layers.json` without the list of files. Ids count in the original model."""
    n_original, original_ids = original_layers(checkpoint.config)
    kept = [original_ids[i] for i in kept_layers(checkpoint.config, selection.dropped)]
    facts = layer_facts(checkpoint.model, n_original, kept, strategy, selection.why)
    return facts | {"scores": selection.scores, "vocabulary": vocabulary}


def _card(source: Source, checkpoint: Checkpoint, facts: Mapping[str, Any], cut: Cut) -> str:
    """The model card."""
    return CARD.render(
        **facts,
        cut=cut,
        library="sentence-transformers" if source.modules else "transformers",
        base=hub_name(checkpoint.name),
        name=markdown(hub_name(checkpoint.name) or short_name(checkpoint.name)),
    )


def _vocabulary_dimensions(checkpoint: Checkpoint, weights: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Name of a weight -> its dimension with one entry for each token.

    These dimensions grow with the vocabulary of the class. Raises UserError if a weight that the class does not know
    has the size of the vocabulary, or the checkpoint lacks the embedding.
    """
    n, larger = checkpoint.config.vocab_size, copy.deepcopy(checkpoint.config)
    larger.vocab_size += 1
    before, after = (_empty(checkpoint, config).state_dict() for config in (checkpoint.config, larger))
    shapes = {name: (before[name].shape, after[name].shape) for name in before}
    dimensions = {
        name: next(d for d, (a, b) in enumerate(zip(*shape, strict=True)) if a != b)
        for name, shape in shapes.items()
        if shape[0] != shape[1]
    }
    for name, weight in weights.items():
        if name not in before and n in weight.shape:
            kind = _model_class(checkpoint)
            raise UserError(
                f"--trim_vocabulary: {name} has the size of the vocabulary, but is not a weight of {kind}. Load the "
                f"model as {kind}, save it, and cut the saved folder."
            )
    if not dimensions.keys() & weights.keys():
        raise UserError(
            f"--trim_vocabulary: {checkpoint.name} has no embedding under its usual name. Leave --trim_vocabulary out."
        )
    return dimensions


def _weights(checkpoint: Checkpoint, dropped: Sequence[int]) -> Mapping[str, Any]:
    """The kept weights under the names of the reduced model, not read yet.

    Raises UserError if a layer has no weights under its name: the library renames the weights of some checkpoints.
    """
    empty = _empty(checkpoint, reduced_config(checkpoint.config, dropped))
    weights = renumbered(checkpoint, dropped, empty.base_model_prefix, {})
    if missing := missing_layer_weights(checkpoint, weights, empty):
        check_prefix(checkpoint, weights, missing, empty.base_model_prefix)
        raise UserError(
            f"MODEL {checkpoint.name}: its files have no weight {missing[0]} of a kept layer ({len(missing)} are "
            "missing), so layers cannot be dropped safely. Load and save the model with transformers first."
        )
    shapes = {name: tuple(weight.shape) for name, weight in empty.state_dict().items()}
    if wrong := [name for name, weight in weights.items() if shape_of(weight) != shapes.get(name, shape_of(weight))]:
        raise UserError(f"MODEL {checkpoint.name}: {wrong[0]} does not fit config.json. Give a complete checkpoint.")
    return weights


def _empty(checkpoint: Checkpoint, config: PreTrainedConfig) -> PreTrainedModel:
    """The checkpoint's class without weights, on PyTorch's meta device."""
    own = getattr(transformers, _model_class(checkpoint), None)
    try:
        with torch.device("meta"):
            if own is None:  # custom code
                return AutoModel.from_config(config, trust_remote_code=checkpoint.hub.trust_remote_code)
            return own._from_config(copy.deepcopy(config))
    except Exception as error:  # whatever the model's class raises for values out of range
        raise unusable(f"MODEL {checkpoint.name}", "config.json", error) from error


def _model_class(checkpoint: Checkpoint) -> str:
    """Name of the checkpoint's class; of the base model if the configuration names none."""
    if checkpoint.config.architectures:
        return checkpoint.config.architectures[0]
    return MODEL_MAPPING[type(checkpoint.config)].__name__


def _size(tensor: Any) -> int:
    """Number of elements of a weight, read or not."""
    return torch.Size(shape_of(tensor)).numel()


def _read(name: str, tensor: Any, dtype: str | None) -> torch.Tensor:
    """Read a weight. dtype: convert floats to this type; None: keep their type.

    Raises UserError for a parameter that is not finite, and for an overflow.
    """
    tensor = tensor[...].clone()  # tied weights of PyTorch's files share memory: each keeps its name
    if name.endswith(PARAMETERS) and not tensor.isfinite().all():
        raise UserError(f"MODEL: the weights of {name} are not finite. Get the checkpoint again.")
    if not dtype or not tensor.is_floating_point():
        return tensor
    converted = tensor.to(DTYPES[dtype])
    if tensor.isfinite().all() and not converted.isfinite().all():
        raise UserError(f"--dtype {dtype}: {name} has values that are too large for it. Choose bf16 or fp32.")
    return converted


def push(folder: str, repository: str, token: str | None) -> str:
    """Upload a folder to a model repository on the hub, and make the repository if necessary. Returns its name."""
    api = huggingface_hub.HfApi(token=token)
    name = api.create_repo(repository, exist_ok=True).repo_id
    api.upload_folder(folder_path=folder, repo_id=name)
    return name
