"""Cut a checkpoint: the same model with its own head and some of its layers, without training.

The weights are copied under the names of the reduced model. All heads, the weights' types and all other files of the
checkpoint stay as they are, so the result is an ordinary checkpoint of the same class.
"""

import json
import re
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
from transformers import AutoModelForSequenceClassification

from layerdrop.architectures import HubOptions, original_layers
from layerdrop.checkpoints import TOKENIZER, Checkpoint, folder_or_name, is_local
from layerdrop.criteria.selection import Selection
from layerdrop.deploy.folder import check_output
from layerdrop.deploy.trim import TOKENIZER_FILE, trim
from layerdrop.errors import UserError
from layerdrop.loading import renumbered
from layerdrop.runs.card import hub_name
from layerdrop.runs.results import CARD_FILE, LAYERS_FILE
from layerdrop.surgery import kept_layers, reduced_config
from layerdrop.system.files import hashes_in, replace_folder, temporary_folder_for, write_atomically
from layerdrop.system.text import short_name

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MODULES = "modules.json"
"""sentence-transformers' list of modules: a transformer, then pooling, dense and other modules in folders."""
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
Layers {{ dropped | join(", ") }} of `{{ name }}` are dropped (ids count from 0, next to the embeddings), by {{ why }}.
{%- endif %}
{%- if trimmed %}
The vocabulary has {{ "{:,}".format(vocabulary) }} of {{ "{:,}".format(n_embeddings) }} tokens.
{%- endif %}
Parameters: {{ "{:,}".format(before) }} -> {{ "{:,}".format(after) }}. Class: `{{ model_class }}`.

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
        self.name = str(Path(name, self.transformer)) if self.transformer else name

    def _modules(self) -> list[str]:
        """The folders of a sentence encoder's modules. Empty for other checkpoints."""
        path = self.root / MODULES
        if not path.is_file():
            return []
        try:
            modules = [str(module["path"]) for module in json.loads(path.read_text(encoding="utf-8"))]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a list of sentence-transformers' modules ({error}).") from None
        if outside := [module for module in modules if Path(module).is_absolute() or ".." in Path(module).parts]:
            raise UserError(f"{path}: the module {outside[0]} is outside its folder.")
        return modules

    def copy_to(self, folder: Path) -> None:
        """Copy all files but the weights, the configuration and the card."""
        _copy(self.root / self.transformer, folder / self.transformer, OTHER_FILES)
        if self.modules:
            _copy(self.root, folder, SENTENCE_FILES)
            _copy(self.root / self.transformer, folder / self.transformer, SENTENCE_FILES)
        for module in self.modules:
            if module not in ("", self.transformer) and (self.root / module).is_dir():  # Normalize has no files
                shutil.copytree(self.root / module, folder / module)


def _copy(source: Path, target: Path, patterns: Sequence[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in {path for pattern in patterns for path in source.glob(pattern) if path.is_file()}:
        shutil.copyfile(path, target / path.name)


def _snapshot(name: str, hub: HubOptions, revision: str) -> Path:
    """Download all files of a repository but its weights in the root. Raises UserError if the hub has no such name."""
    weights = ["*.bin", "*.h5", "*.msgpack", "*.ot", "*.onnx", "onnx/*", "openvino/*", "model*.safetensors"]
    try:
        folder = snapshot_download(
            name, revision=revision, cache_dir=hub.cache_dir, token=hub.token, ignore_patterns=weights
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"MODEL {name}: no such folder, and the hub gives no such model ({str(error).splitlines()[0]})."
        ) from None
    return Path(folder)


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
    n_original, original_ids = original_layers(checkpoint.config)
    config = reduced_config(checkpoint.config, selection.dropped)
    kept = [original_ids[i] for i in kept_layers(checkpoint.config, selection.dropped)]
    weights = _weights(checkpoint, selection.dropped)
    trimmed = trim(source.root / source.transformer / TOKENIZER_FILE, trim_to) if trim_to else None
    n_embeddings = config.vocab_size
    weights = {name: _read(tensor, dtype) for name, tensor in weights.items()}
    if trimmed:
        weights = trimmed.rows(weights, n_embeddings, checkpoint.family.layers)
        trimmed.adapt(config)
    before, after = (sum(map(_size, each.values())) for each in (checkpoint.weights(), weights))
    facts = {
        "base_model": checkpoint.name,
        "revision": checkpoint.model.revision,
        "n_layers": n_original,
        "kept": kept,
        "dropped": [i for i in range(n_original) if i not in kept],
        "strategy": strategy,
        "why": selection.why,
        "scores": selection.scores,
        "vocabulary": config.vocab_size,
    }
    model_class = _model_class(checkpoint)
    with temporary_folder_for("--output_dir", target) as new:
        source.copy_to(new)
        folder = new / source.transformer
        if dtype:
            config.dtype = DTYPES[dtype]
        config.save_pretrained(folder)
        save_torch_state_dict(weights, folder, metadata={"format": "pt"})
        if trimmed:
            trimmed.write(folder)
        card = CARD.render(
            **facts,
            library="sentence-transformers" if source.modules else "transformers",
            base=hub_name(checkpoint.name),
            name=hub_name(checkpoint.name) or short_name(checkpoint.name),
            before=before,
            after=after,
            model_class=model_class,
            trimmed=trimmed,
            n_embeddings=n_embeddings,
        )
        write_atomically(new / CARD_FILE, card)
        facts["files"] = hashes_in(new)
        write_atomically(new / LAYERS_FILE, json.dumps(facts, indent=1) + "\n")
        check_output("--output_dir", output, LAYERS_FILE)
        replace_folder(new, target)
    return Cut(output, model_class, kept, n_original, (before, after), (n_embeddings, config.vocab_size))


def _weights(checkpoint: Checkpoint, dropped: Sequence[int]) -> Mapping[str, Any]:
    """The kept weights under the names of the reduced model, not read yet.

    Raises UserError if a layer has no weights under its name: the library renames the weights of some checkpoints.
    """
    config, prefix = checkpoint.config, _base_prefix(checkpoint)
    if not checkpoint.family.shared:
        pattern = re.compile(rf"(?:{re.escape(prefix)}\.)?{re.escape(checkpoint.family.layers)}\.(\d+)\.")
        named = {int(match[1]) for key in checkpoint.weights() if (match := pattern.match(key))}
        if named != set(range(config.num_hidden_layers)):
            raise UserError(
                f"MODEL {checkpoint.name}: its files do not name the weights of its {config.num_hidden_layers} layers "
                f"as {checkpoint.family.layers}.0 and so on, so layers cannot be dropped safely."
            )
    return renumbered(checkpoint, dropped, prefix, {})


def _base_prefix(checkpoint: Checkpoint) -> str:
    """Prefix of the encoder's weights in a checkpoint with a head: `bert`."""
    own = getattr(transformers, _model_class(checkpoint), None)
    if own is None:  # custom code
        with torch.device("meta"):
            own = AutoModelForSequenceClassification.from_config(
                checkpoint.config, trust_remote_code=checkpoint.hub.trust_remote_code
            )
    return own.base_model_prefix


def _model_class(checkpoint: Checkpoint) -> str:
    """Name of the checkpoint's class."""
    return (checkpoint.config.architectures or ["AutoModelForSequenceClassification"])[0]


def _size(tensor: Any) -> int:
    """Number of elements of a weight, read or not."""
    return torch.Size(tensor.get_shape() if hasattr(tensor, "get_shape") else tensor.shape).numel()


def _read(tensor: Any, dtype: str | None) -> torch.Tensor:
    """Read a weight. dtype: convert floats to this type; None: keep their type."""
    tensor = tensor[...]
    return tensor.to(DTYPES[dtype]) if dtype and tensor.is_floating_point() else tensor


def push(folder: str, repository: str, token: str | None) -> str:
    """Upload a folder to a model repository on the hub, and make the repository if necessary. Returns its name."""
    api = huggingface_hub.HfApi(token=token)
    name = api.create_repo(repository, exist_ok=True).repo_id
    api.upload_folder(folder_path=folder, repo_id=name)
    return name
