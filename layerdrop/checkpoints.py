"""Open checkpoints from a folder or the hub, without waiting for an unreachable hub."""

import codecs
import functools
import hashlib
import json
import os
import re
import threading
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import huggingface_hub
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)
from transformers.utils.hub import cached_file, extract_commit_hash

from .architectures import CONFIG_KEY, Family, HubOptions, ModelSpec, family_of, has_valid_layers, original_layers
from .errors import UserError, first_bytes
from .strategies import MOST_LAYERS

EMBEDDED = {"demo": Path(__file__).parent / "demo" / "checkpoint"}
"""Names of the checkpoints in the package -> folders."""
POSITIVE_KEY = "positive_label"
"""Our key in a saved configuration: the class whose F1 is the metric `f1`. For models trained on user files."""
NO_LIMIT = 2**31 - 1
"""Length limit for a tokenizer without a limit. Such a tokenizer reports 10^30, but rejects 10^30 as an argument."""
HUB_TIMEOUT = 3.0
"""Timeout of the hub, in seconds."""
WAYS_WITHOUT_HUB = {
    "--model_name_or_path": "Give the folder of a checkpoint (for GLUE, also --data_dir), or the bundled model: demo",
    "--teacher": "Give the folder of a fine-tuned model, or auto",
}
"""Flag of a checkpoint -> the advice for a machine that cannot reach the hub."""
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
CONFIGURATION = ("config.json",)
VOCABULARY = ("tokenizer.json", "vocab*", "merges.txt", "*.model")
TOKENIZER = ("tokenizer*", *VOCABULARY[1:], "special_tokens_map.json", "added_tokens.json")
"""Name patterns of a checkpoint's files."""
ALTERNATIVES = {
    "*.index.json": (SAFE_WEIGHTS_NAME, WEIGHTS_NAME, "*.index.json"),
    "tokenizer.json": ("vocab.txt", "merges.txt", "*.model"),
    "special_tokens_map.json": ("tokenizer.json", "tokenizer_config.json"),
    "added_tokens.json": ("tokenizer.json", "tokenizer_config.json"),
}
"""Name pattern -> patterns of the files that replace a missing file of this name. One of them is enough."""
UNREAD_TOKENIZER = re.compile("instantiate the backend tokenizer|`tiktoken` is required")
"""The library's messages for a tokenizer that it cannot read. They do not name the cause."""
FAST_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""The files that are read if there is a tokenizer.json."""
ADAPTER = "adapter_config.json"
"""PEFT's configuration file. The weights in its folder extend a base model."""
RECORD_FILE = "record.json"
"""The file that each run writes into its folder."""
NO_MODEL = (
    "this run did not keep its model. Repeat it with --save_model and --overwrite_output_dir "
    "(in a study: settings: {save_model: true})"
)
CONFIG = "config.json"
"""Name of the configuration in messages."""
PICKLE = b"\x80"
"""The first byte of a pickle."""
MOST_CLASSES = 1_000_000
"""Maximum number of classes. Building a model with 1,000,000,000 classes would not end."""
OUTPUTS = {"return_dict": True, "output_hidden_states": False, "output_attentions": False}
"""Keys of a configuration for what a model returns -> the values that are used, whatever config.json says."""
PARAMETERS = ("weight", "bias", "gamma", "beta")
"""Ends of the names of parameters. Buffers can be integers (`position_ids`, and the 4-dimensional mask `attn.bias`)."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""Weight types by their safetensors names. All other types are quantized."""


class UnreadWeight(Protocol):
    """A weight of a safetensors file. Indexing it (`[...]`) reads it from disk."""

    def get_shape(self) -> list[int]:
        """The shape."""

    def get_dtype(self) -> str:
        """The type, by its safetensors name."""

    def __getitem__(self, index: Any) -> torch.Tensor: ...


Weight = torch.Tensor | UnreadWeight


HEADS = ("ForSequenceClassification", "ForTokenClassification")
"""Classification heads: the endings of the library's classes."""


@dataclass
class Checkpoint:
    """A checkpoint. The configuration is read at once, tokenizer and weights on first use."""

    model: ModelSpec
    hub: HubOptions
    config: PreTrainedConfig
    """Configuration with all layers; do not modify it."""
    flag: str = "--model_name_or_path"
    """Flag of the checkpoint, for messages."""
    notes: list[str] = field(default_factory=list)
    """Notes for the user, one line each."""

    @classmethod
    def open(
        cls,
        model: ModelSpec | str | os.PathLike[str],
        hub: HubOptions = HubOptions(),
        flag: str = "--model_name_or_path",
    ) -> "Checkpoint":
        """Open the checkpoint of a folder or hub name.

        Raises UserError for a missing checkpoint, an unknown family or a quantized checkpoint.
        """
        model = model if isinstance(model, ModelSpec) else ModelSpec(str(model))
        config = _load_config(model, hub, flag)
        _check_config(config, f"{flag} {model.name}")
        checkpoint = cls(model, hub, config, flag)
        if Path(folder_or_name(model.name), ADAPTER).is_file():
            checkpoint.notes.append(f"{model.name}: its adapter ({ADAPTER}) is ignored. To use it, merge it first")
        return checkpoint

    @property
    def name(self) -> str:
        """The folder or hub name as given."""
        return self.model.name

    @property
    def family(self) -> Family:
        """The row of the table of families."""
        return family_of(self.config)

    @property
    def n_layers(self) -> int:
        """Depth."""
        n_layers: int = self.config.num_hidden_layers
        return n_layers

    @property
    def n_original(self) -> int:
        """Depth of the original model, before any layer was dropped."""
        return original_layers(self.config)[0]

    @property
    def original_ids(self) -> list[int]:
        """The original id of each layer."""
        return original_layers(self.config)[1]

    @property
    def head_class(self) -> str | None:
        """The library's class that loads the checkpoint with its trained classification head. None without a head."""
        names = self.config.architectures or ()
        return next((f"AutoModel{head}" for head in HEADS if any(name.endswith(head) for name in names)), None)

    @property
    def has_classifier(self) -> bool:
        """Whether the checkpoint has a trained classification head."""
        return self.head_class is not None

    @property
    def classes(self) -> list[str]:
        """Class names in id order. LABEL_0, LABEL_1, ... if the checkpoint has none."""
        return [str(name) for _, name in sorted((self.config.id2label or {}).items())]

    @property
    def label_names(self) -> list[str]:
        """Class names from the configuration, in id order. Empty if they are LABEL_0, LABEL_1, ..."""
        return [] if all(map(_is_default, self.classes)) else self.classes

    @property
    def positive_label(self) -> str | None:
        """The class whose F1 was the metric `f1` in training; None if it was not recorded."""
        return getattr(self.config, POSITIVE_KEY, None)

    def check_head(self) -> None:
        """Raise UserError if config.json contradicts itself about the outputs of the trained head."""
        named, config = f"{self.flag} {self.name}", self.config
        if config.problem_type == "regression" and config.num_labels != 1:
            raise UserError(
                f"{named}: config.json says regression (problem_type) with {config.num_labels} outputs. Regression has "
                "one output. Correct config.json, or fine-tune the model: layerdrop run --do_train"
            )
        ids = config.label2id if isinstance(config.label2id, dict) else {}
        for i, name in enumerate(self.classes):
            if str(i) != str(other := ids.get(name, i)):
                raise UserError(
                    f"{named}: config.json contradicts itself: class '{name}' is {i} in id2label, {other} in label2id. "
                    "Correct the wrong one."
                )

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the checkpoint or of the ModelSpec, with the padding that the model needs.

        Raises UserError for a missing tokenizer, or a tokenizer that cannot pad.
        """
        tokenizer = _load_tokenizer(self.model, self.hub, self._tokenizer_flag)
        self._set_padding(tokenizer)
        return tokenizer

    @property
    def embeddings(self) -> dict[str, int]:
        """Input name -> number of embeddings: `input_ids`, and `token_type_ids` if the model has them."""
        sizes = {"input_ids": "vocab_size", "token_type_ids": "type_vocab_size"}
        return {name: size for name, field in sizes.items() if (size := getattr(self.config, field, None))}

    @property
    def pad_token_id(self) -> int:
        """The padding id of the tokenizer. Without a tokenizer: the padding id of the configuration.

        A decoder's classifier finds the last token of a text by this id.
        """
        try:
            padding: int = self.tokenizer.pad_token_id
        except NotFound:
            if self.config.pad_token_id is None:
                raise
            padding = self.config.pad_token_id
        return padding

    @property
    def _tokenizer_flag(self) -> str:
        """The flag that gives the tokenizer, for messages."""
        return self.flag if self.model.tokenizer is None else "--tokenizer_name"

    def _set_padding(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Set the padding token, if the tokenizer has none, and the padding side that the model needs."""
        own, side = self.config.pad_token_id, self.family.padding_side
        named = f"{self._tokenizer_flag} {self.name if self.model.tokenizer is None else self.model.tokenizer}"
        if tokenizer.pad_token is None and own is not None and 0 <= own < len(tokenizer):
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(own)
        if tokenizer.pad_token is None:  # GPT-2 and Llama: pad with the end-of-text token
            if tokenizer.eos_token is None:
                raise UserError(f"{named}: has no padding token. Give a tokenizer that has one.")
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id >= (size := self.embeddings.get("input_ids", tokenizer.pad_token_id + 1)):
            raise UserError(
                f"{named}: the tokenizer pads with id {tokenizer.pad_token_id}, the model has {size} "
                "embeddings. Give the model's own tokenizer, or resize the embeddings (resize_token_embeddings)."
            )
        if self.family.sentence_token == -1 and own not in (None, tokenizer.pad_token_id):
            self.notes.append(
                f"the tokenizer pads with id {tokenizer.pad_token_id}, config.json says {own}: "
                "the tokenizer's id is used"
            )
        if side != "either" and tokenizer.padding_side != side:
            self.notes.append(
                f"the tokenizer pads on the {tokenizer.padding_side}, but this model needs the {side}: texts are "
                f"padded on the {side}"
            )
            tokenizer.padding_side = side

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of `model` (weights and configuration) and `tokenizer`.

        A fingerprint is the hash of a folder's files, or the commit on the hub.
        """
        model = _fingerprint(self.name, WEIGHTS + CONFIGURATION, getattr(self.config, "_commit_hash", None))
        if self.model.tokenizer is None:
            commit = getattr(self.config, "_commit_hash", None)
        elif is_local(self.model.tokenizer):
            commit = None
        else:
            file = cached_file(
                self.model.tokenizer,
                "tokenizer_config.json",
                _raise_exceptions_for_missing_entries=False,
                **_hub_arguments("main", self.hub),
            )
            commit = extract_commit_hash(file, None)
        return {"model": model, "tokenizer": _fingerprint(self.model.tokenizer or self.name, TOKENIZER, commit)}

    def max_length(self) -> int:
        """Maximum number of tokens: the lower limit of the tokenizer and the position embeddings."""
        limit = int(min(self.tokenizer.model_max_length, NO_LIMIT))
        positions = getattr(self.config, "max_position_embeddings", None) or -1
        if positions < 0:  # only relative positions (XLNet)
            return limit
        first = self.config.pad_token_id + 1 if self.config.model_type in self.family.positions_after_padding else 0
        return min(limit, positions - first)

    def weights(self) -> Mapping[str, Weight]:
        """Name in the checkpoint -> weight. Indexing a weight (`[...]`) reads it from disk.

        Formats: safetensors, or PyTorch files (loaded with `weights_only`), whole or in shards. Raises UserError for
        missing, damaged or quantized files, and for weights of another number of layers than the configuration's.
        """
        weights = _open_weights(self.model, self.hub, self.flag)
        layer = re.compile(rf"(?:.*\.)?{re.escape(self.family.layers)}\.(\d+)\..*")
        depth = max((int(match[1]) + 1 for name in weights if (match := layer.fullmatch(name))), default=0)
        if depth not in (0, self.n_layers) and not self.family.shared:
            raise UserError(
                f"{self.flag} {self.name}: its weights have {depth} layers, but its config.json has {self.n_layers} "
                "(num_hidden_layers). Correct config.json, or get the checkpoint again."
            )
        return weights


def work_offline_unless_reachable() -> bool:
    """Switch the libraries to offline mode if the hub does not answer within HUB_TIMEOUT seconds.

    Without offline mode, the libraries retry for half a minute. The local cache is used in both modes. Returns whether
    the hub answered.
    """
    if huggingface_hub.is_offline_mode():
        return False
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(huggingface_hub.constants.ENDPOINT, method="HEAD")
            urllib.request.urlopen(request, timeout=HUB_TIMEOUT).close()
            answered.set()
        except urllib.error.HTTPError:
            answered.set()  # an error status is also an answer
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)  # the DNS lookup has no timeout
    thread.start()
    thread.join(HUB_TIMEOUT)
    if not answered.is_set():
        os.environ["HF_HUB_OFFLINE"] = "1"  # for child processes
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    return answered.is_set()


def _check_config(config: PreTrainedConfig, checkpoint: str) -> None:
    """Raise UserError for a model that cannot be reduced. checkpoint: flag and name, for the message."""
    family, n_layers = family_of(config, checkpoint), config.num_hidden_layers
    if not isinstance(n_layers, int) or not 0 < n_layers <= MOST_LAYERS:
        raise UserError(
            f"{checkpoint}: config.json has {n_layers!r} layers (num_hidden_layers). Allowed: 1 to {MOST_LAYERS}. "
            "Get the checkpoint again."
        )
    if not has_valid_layers(config):
        raise UserError(
            f"{checkpoint}: config.json has {n_layers} layers, but its list of kept layers ('{CONFIG_KEY}') does "
            "not match. Get the checkpoint again, or delete the list."
        )
    classes = config.id2label or {}
    if not isinstance(classes, dict) or sorted(classes) != list(range(len(classes))):
        raise UserError(f"{checkpoint}: config.json numbers its classes wrongly (id2label). Number them from 0.")
    if twice := [name for name, n in Counter(map(str, classes.values())).items() if n > 1]:
        raise UserError(f"{checkpoint}: config.json names two classes '{twice[0]}' (id2label). Rename one of them.")
    if (size := getattr(config, "chunk_size_feed_forward", 0)) not in (0, 1):
        raise UserError(
            f"{checkpoint}: config.json processes texts in chunks of {size!r} tokens (chunk_size_feed_forward), but "
            f"most text lengths are not a multiple of {size!r}. Set it to 0."
        )
    if getattr(config, "quantization_config", None) is not None:
        raise UserError(f"{checkpoint}: is quantized (quantization_config in config.json). Give the unquantized model.")
    if config.model_type in family.positions_after_padding and config.pad_token_id is None:
        raise UserError(
            f"{checkpoint}: its config.json has no pad_token_id, but this model counts positions from it. "
            'Add the padding id of its training (RoBERTa: "pad_token_id": 1).'
        )
    if (
        config.model_type in family.positions_after_padding
        and config.max_position_embeddings <= config.pad_token_id + 1
    ):
        raise UserError(
            f"{checkpoint}: its config.json has pad_token_id {config.pad_token_id}. Positions are counted from it, "
            f"up to {config.max_position_embeddings} (max_position_embeddings). Correct pad_token_id (RoBERTa: 1)."
        )


def unusable(checkpoint: str, part: str, error: BaseException) -> UserError:
    """The error for a part of a checkpoint that the library fails on. checkpoint: flag and name."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return UserError(f"{checkpoint}: {part} cannot be used ({reason}). Repair it, or get the checkpoint again.")


class NotFound(UserError):
    """Error for a missing checkpoint, or a missing part of a checkpoint."""


def _not_found(flag: str, name: str, what: str, error: Exception) -> NotFound:
    folder = Path(folder_or_name(name))
    if "trust_remote_code" in str(error):
        return NotFound(
            f"{flag} {name}: needs custom code. If you trust it, use layerdrop run or cut with --trust_remote_code."
        )
    if name.startswith((".", "/", "~")) and not folder.exists():
        return NotFound(f"{flag} {name}: no such folder. Give the folder of a checkpoint, or a name on the hub.")
    if folder.exists():
        if what == CONFIG and (elsewhere := _checkpoint_elsewhere(folder)):
            return NotFound(f"{flag} {name}: {elsewhere}.")
        reason = str(error).strip().split("\n")[0]
        if what == "tokenizer" and UNREAD_TOKENIZER.search(str(error)):
            _check_files(flag, name, VOCABULARY, {})
            reason = f"none of {', '.join(VOCABULARY)}"
            if files := ", ".join(path.name for path in _files(name, VOCABULARY)):
                return NotFound(
                    f"{flag} {name}: the tokenizer cannot be read from {files}: a file is damaged, the tokenizer_class "
                    "in tokenizer_config.json is unknown, or a package is missing (sentencepiece, tiktoken). "
                    "Get the tokenizer again."
                )
        if what == "weights":
            _check_files(flag, name, (*WEIGHTS, "*.index.json"), {})
        if what == CONFIG and not (folder / "config.json").exists():
            reason = "no such file"
        return NotFound(f"{flag} {name}: no usable {what} in this folder ({reason}). Give the folder of a checkpoint.")
    if huggingface_hub.is_offline_mode():
        ways = WAYS_WITHOUT_HUB.get(flag, "Give the folder of a checkpoint")
        return NotFound(
            f"{flag} {name}: not a folder, not in the local cache (no {what}), and the hub cannot be reached. {ways}."
        )
    how = "Check the name, or log in for a private model: hf auth login"
    if flag == "--model_name_or_path":
        how = "Check the name and --model_revision, or add --token for a private model"
    return NotFound(f"{flag} {name}: the hub has no usable {what} for this name and revision, or it is private. {how}.")


def _checkpoint_elsewhere(folder: Path) -> str | None:
    """The advice for the folder of an adapter, of checkpoints in subfolders, or of a run. None for other folders."""
    if (folder / ADAPTER).is_file():
        return f"is an adapter ({ADAPTER}): merge it into its base model, and give the folder of the merged model"
    for pattern in ("*/config.json", "*/*/config.json"):  # the second one: the hub's cache has snapshots/COMMIT
        if folders := [path.parent for path in folder.glob(pattern) if _contains(path, '"model_type"')]:
            contents = f"one of {len(folders)} checkpoints" if len(folders) > 1 else "the checkpoint"
            return f"{contents} is in {max(folders, key=_natural)}. Give that folder"
    return NO_MODEL if _contains(folder / RECORD_FILE, '"spec"') else None


def _natural(path: Path) -> list[str | int]:
    """Sort key that puts `checkpoint-9` before `checkpoint-500`."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", str(path)))]


def _contains(path: Path, text: str) -> bool:
    """Whether a file contains a text. False for a file that cannot be read."""
    try:
        return path.is_file() and text in path.read_text("utf-8")
    except (OSError, ValueError):
        return False


def is_local(name: str) -> bool:
    """Whether a checkpoint is a folder or the demo model, not a hub name."""
    return name in EMBEDDED or Path(name).is_dir()


def folder_or_name(name: str) -> str:
    """The folder of the demo model; any other folder or hub name unchanged."""
    return str(EMBEDDED.get(name, name))


def _hub_arguments(revision: str, hub: HubOptions) -> dict[str, Any]:
    return {"revision": revision, "cache_dir": hub.cache_dir, "token": hub.token}


def _check_files(
    flag: str, name: str, patterns: tuple[str, ...], alternatives: Mapping[str, tuple[str, ...]] = ALTERNATIVES
) -> None:
    """Raise UserError for files in a folder that the library would wait for, fail on, or read wrongly.

    These are pipes and devices, broken links, Git LFS pointers, and files with a byte-order mark. A broken link is
    allowed if a file that replaces its target is there. alternatives: see ALTERNATIVES.
    """
    if Path(folder_or_name(name)).is_file():
        raise NotFound(f"{flag} {name}: is a file. Give the folder of the checkpoint.")
    for path in sorted(Path(folder_or_name(name)).glob("*")):
        if path.is_dir() or not any(map(path.match, patterns)):
            continue
        others = next((others for pattern, others in alternatives.items() if path.match(pattern)), ())
        if path.is_symlink() and not path.exists() and not _files(name, others):
            raise UserError(f"{flag}: {path} is a link to a file that does not exist. Get the checkpoint again.")
        if path.exists() and not path.is_file():
            raise UserError(f"{flag}: {path} is a pipe or a device, not a file. Get the checkpoint again.")
        if path.is_file() and first_bytes(path, f"{flag}: {path}").startswith(codecs.BOM_UTF8):
            raise UserError(f"{flag}: {path} begins with a byte-order mark (BOM). Save it as UTF-8 without a BOM.")


def _check_values(config: Mapping[str, Any]) -> None:
    """Raise TypeError for values of a config.json that the library does not check."""
    n_classes, architectures = config.get("num_labels"), config.get("architectures") or []
    if not isinstance(n_classes, int | None) or not 0 <= (n_classes or 0) <= MOST_CLASSES:
        raise TypeError(f"num_labels: a number up to {MOST_CLASSES:,} is expected, not {n_classes!r}")
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise TypeError(f"architectures: a list of names is expected, not {architectures!r}")


def _classes_of_label2id(config: Mapping[str, Any]) -> dict[int, str] | None:
    """The classes of a config.json that names them only in `label2id`. None for any other config.json."""
    ids, names = config.get("label2id"), config.get("id2label") or {}
    if not isinstance(ids, dict) or not isinstance(names, dict) or not all(map(_is_default, names.values())):
        return None
    classes = {i: name for name, i in ids.items() if type(i) is int}
    n_classes = len(names) or config.get("num_labels") or len(ids)
    if sorted(classes) != list(range(n_classes)) or len(ids) != n_classes or all(map(_is_default, ids)):
        return None
    return dict(sorted(classes.items()))


def _is_default(name: object) -> bool:
    """Whether a class has no name of its own: LABEL_0, LABEL_1, ..."""
    return re.fullmatch(r"LABEL_\d+", str(name)) is not None


def _load_config(model: ModelSpec, hub: HubOptions, flag: str) -> PreTrainedConfig:
    """Load the configuration. Raises UserError, also for values that the library does not accept."""
    _check_files(flag, model.name, (*CONFIGURATION, "*.index.json"))
    name, where = folder_or_name(model.name), _hub_arguments(model.revision, hub)
    try:
        content = PreTrainedConfig.get_config_dict(name, **where)[0]
        _check_values(content)
        config: PreTrainedConfig = AutoConfig.from_pretrained(name, trust_remote_code=hub.trust_remote_code, **where)
        for key, value in OUTPUTS.items():
            setattr(config, key, value)
        if classes := _classes_of_label2id(content):
            config.id2label, config.label2id = classes, {name: i for i, name in classes.items()}
        return config
    except (OSError, ValueError) as error:
        raise _not_found(flag, model.name, CONFIG, error) from None
    except Exception as error:  # the library's checks, and code of the configuration's class
        raise unusable(f"{flag} {model.name}", "config.json", error) from error


def _load_tokenizer(model: ModelSpec, hub: HubOptions, flag: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer, in the model's revision. A tokenizer from another repository has the revision `main`.

    Raises UserError, also for a tokenizer that cannot tokenize a text.
    """
    name, revision = (model.name, model.revision) if model.tokenizer is None else (model.tokenizer, "main")
    _check_files(flag, name, FAST_TOKENIZER if _files(name, FAST_TOKENIZER[:1]) else TOKENIZER)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder_or_name(name), trust_remote_code=hub.trust_remote_code, **_hub_arguments(revision, hub)
        )
        _check_tokenizer(tokenizer)
    except (OSError, ValueError, ImportError) as error:
        raise _not_found(flag, name, "tokenizer", error) from error
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":  # both from `tokenizers`
            raise unusable(f"{flag} {name}", "the tokenizer", error) from error
        raise
    if len(tokenizer) <= len(
        set(tokenizer.all_special_tokens)
    ):  # the library makes an empty tokenizer if the files are missing
        raise _not_found(flag, name, "tokenizer", OSError("its vocabulary is empty"))
    return tokenizer


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise TypeError for a tokenizer without token ids or one of its inputs, or with a wrong length limit."""
    limit, names = tokenizer.model_max_length, tokenizer.model_input_names
    if not isinstance(limit, (int, float)) or limit < 1 or limit != int(limit):
        raise TypeError(f"model_max_length: a number of tokens is expected, not {limit!r}")
    for texts in (("a text",), ("a text", "a text")):
        encoded = tokenizer(*texts, truncation=True, max_length=16)
        if missing := [name for name in ("input_ids", *names) if name not in encoded]:
            raise TypeError(f"it gives no {missing[0]}")
    if "input_ids" not in names or not isinstance(names, (list, tuple)):
        raise TypeError(f"model_input_names: a list with 'input_ids' is expected, not {names!r}")


def _files(name: str, patterns: tuple[str, ...]) -> list[Path]:
    """Files in a folder that match the patterns. Empty for a hub name."""
    folder = Path(folder_or_name(name))
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _fingerprint(name: str, patterns: tuple[str, ...], commit: str | None) -> str:
    """Hash of the matching files in a folder, or the commit on the hub."""
    if not is_local(name):
        return str(commit)
    digest = hashlib.sha256()
    for path in _files(name, patterns):
        stat = path.stat()
        digest.update(f"{path.name}\0{_hash(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)}\0".encode())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=256)
def _hash(path: Path, *state: int) -> str:
    """SHA-256 of a file, cached by its size, modification time and inode."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _open_weights(model: ModelSpec, hub: HubOptions, flag: str) -> Mapping[str, Weight]:
    name, look_up = model.name, _hub_arguments(model.revision, hub)

    def find(filename: str, required: bool = True) -> Any:
        """The path of a file; None for a missing file that is not required."""
        return cached_file(folder_or_name(name), filename, _raise_exceptions_for_missing_entries=required, **look_up)

    for whole, index in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
        try:
            files = [path] if (path := find(whole, required=False)) else []
            if not files and (path := find(index, required=False)):
                files = [find(filename) for filename in _shards(path, flag)]
        except OSError as error:
            raise _not_found(flag, name, "weights", error) from error
        if files:
            weights = {key: tensor for file in files for key, tensor in _open_file(file, flag).items()}
            _check_types(weights, f"{flag} {name}")
            return weights
    raise _not_found(flag, name, "weights", OSError(f"no {SAFE_WEIGHTS_NAME} or {WEIGHTS_NAME}"))


def _shards(path: str, flag: str) -> list[str]:
    """Names of the files with the weights. path: the index of a checkpoint in several files. Raises UserError."""
    try:
        shards = json.loads(Path(path).read_bytes())["weight_map"].values()
        if all(isinstance(shard, str) for shard in shards):
            return sorted(set(shards))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise UserError(f"{flag}: {path} does not map weights to files ('weight_map'). Get the checkpoint again.")


def _check_types(weights: Mapping[str, Weight], checkpoint: str) -> None:
    """Raise UserError for quantized weights (integers or 8-bit floats): their scales are separate weights."""
    for name, tensor in weights.items():
        if isinstance(tensor, torch.Tensor):
            kind = str(tensor.dtype).removeprefix("torch.")
            floats = tensor.dtype.is_floating_point and tensor.dtype.itemsize > 1
        else:
            kind = tensor.get_dtype()
            floats = kind in FLOATS
        if name.endswith(PARAMETERS) and len(shape_of(tensor)) < 4 and not floats:
            raise UserError(f"{checkpoint}: is quantized ({name} is {kind}). Give the unquantized model.")


def shape_of(weight: Weight) -> tuple[int, ...]:
    """The shape of a weight, read or not."""
    return tuple(weight.shape if isinstance(weight, torch.Tensor) else weight.get_shape())


def _open_file(path: str, flag: str) -> Mapping[str, Weight]:
    beginning = first_bytes(path, f"{flag}: {path}")
    try:
        if path.endswith(".safetensors"):
            file = safe_open(path, framework="pt")
            names: list[str] = file.keys()  # type: ignore[no-untyped-call]
            return {name: file.get_slice(name) for name in names}  # type: ignore[no-untyped-call]
        mmap = zipfile.is_zipfile(path)  # the format before PyTorch 1.6 cannot be memory-mapped
        if not mmap and not beginning.startswith(PICKLE):
            raise EOFError("neither an archive nor a pickle")
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UnpicklingError as error:
        raise UserError(
            f"{flag}: {path} cannot be read safely: it is damaged, or it is a pickle that may run code. "
            "Get the checkpoint as model.safetensors. If you trust the file, convert it: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=False), 'model.safetensors')."
        ) from error
    except Exception as error:  # damaged bytes can raise any error in the two libraries
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{flag}: {path} cannot be read ({reason}). It is damaged. Get the checkpoint again."
        ) from error
    if not isinstance(weights, Mapping) or not all(map(_is_weight, weights.items())):
        raise UserError(f"{flag}: {path} is not a mapping of names to weights. Give a checkpoint of the library.")
    return weights


def _is_weight(item: tuple[Any, Any]) -> bool:
    name, tensor = item
    return isinstance(name, str) and isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
