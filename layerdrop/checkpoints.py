"""Finding and reading checkpoints, from a folder or from the hub, without waiting for a hub that is not there."""

import hashlib
import json
import os
import threading
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
)

from layerdrop import demo
from layerdrop.errors import UserError

HUB_TIMEOUT = 3.0
"""Seconds that a hub is given to answer."""
WAYS_WITHOUT_HUB = (
    "Without a hub: --model_name_or_path FOLDER of a local checkpoint and --data_dir FOLDER of GLUE's .tsv files "
    "(or --train_file and --validation_file), or the embedded miniature: run_glue.py configs/demo.yaml"
)


@dataclass(frozen=True)
class HubOptions:
    """How checkpoints are looked up. Field names are those of `from_pretrained`."""

    revision: str = "main"
    cache_dir: str | None = None
    token: str | None = None
    trust_remote_code: bool = False

    def elsewhere(self) -> "HubOptions":
        """The same for another repository than the one that `revision` is of."""
        return replace(self, revision="main")


def work_offline_unless_reachable() -> bool:
    """Ask the hub once; if it does not answer within HUB_TIMEOUT seconds, put the libraries into offline mode.

    They would retry for half a minute otherwise. What is in the local cache is found either way. Returns whether the
    hub answered.
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
            answered.set()  # an answer, if not a friendly one
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)  # looking up the name has no timeout of its own
    thread.start()
    thread.join(HUB_TIMEOUT)
    if not answered.is_set():
        os.environ["HF_HUB_OFFLINE"] = "1"  # for child processes
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    return answered.is_set()


def _not_found(flag: str, name: str, what: str, error: Exception) -> UserError:
    if Path(name).is_file():
        return UserError(f"{flag} {name}: is a file. Give the folder of the checkpoint.")
    if name.startswith((".", "/", "~")) and not Path(name).exists():
        return UserError(f"{flag} {name}: no such folder. Give the folder of a checkpoint, or a name on the hub.")
    if Path(name).exists():
        reason = str(error).strip().split("\n")[0]
        return UserError(f"{flag} {name}: no {what} in this folder ({reason}). Give the folder of a checkpoint.")
    if huggingface_hub.is_offline_mode():
        return UserError(
            f"{flag} {name}: {what} is not in the local cache and the hub cannot be reached. {WAYS_WITHOUT_HUB}."
        )
    return UserError(f"{flag} {name}: the hub has no {what} under this name and revision, or it is private (--token).")


def is_local(name: str) -> bool:
    """Whether a checkpoint's name is a folder's, or that of the embedded miniature."""
    return name == demo.NAME or Path(name).is_dir()


def _place(name: str) -> str:
    """The folder or hub name that a checkpoint's name stands for."""
    return str(demo.CHECKPOINT) if name == demo.NAME else name


def load_config(name: str, options: HubOptions = HubOptions(), flag: str = "--model_name_or_path"):
    """The `PreTrainedConfig` of a folder or hub name. Raises UserError if there is none."""
    try:
        return AutoConfig.from_pretrained(_place(name), **asdict(options))
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{flag} {name}: runs code of its own. If you trust it, add --trust_remote_code."
            ) from error
        raise _not_found(flag, name, "config.json of a known model type", error) from error


def load_tokenizer(name: str, options: HubOptions = HubOptions()):
    """The tokenizer of a folder or hub name. Raises UserError if there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(_place(name), **asdict(options))
    except (OSError, ValueError, ImportError) as error:
        raise _not_found("--tokenizer_name", name, "tokenizer", error) from error
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):  # the library makes one up where there are no files
        raise _not_found("--tokenizer_name", name, "tokenizer", OSError("its vocabulary is empty"))
    return tokenizer


def fingerprint(name: str, config) -> str:
    """What tells a checkpoint's weights from others: the commit on the hub; of a folder, a hash of its weight files."""
    if not is_local(name):
        return str(getattr(config, "_commit_hash", None))
    digest = hashlib.sha256()
    for path in sorted(path for pattern in ("*.safetensors", "*.bin") for path in Path(_place(name)).glob(pattern)):
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()[:16]


def open_weights(name: str, options: HubOptions = HubOptions()) -> Mapping[str, Any]:
    """The weights of a folder or hub name by their names in the checkpoint, each read from disk only when `[...]` is
    taken of it: safetensors or (loaded with `weights_only`) PyTorch files, whole or in shards."""
    look_up = {k: v for k, v in asdict(options).items() if k != "trust_remote_code"}

    def find(filename: str) -> str | None:
        return cached_file(_place(name), filename, _raise_exceptions_for_missing_entries=False, **look_up)

    for whole, index in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
        try:
            files = [path] if (path := find(whole)) else []
            if not files and (path := find(index)):
                shards = json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"].values()
                files = [cached_file(_place(name), shard, **look_up) for shard in sorted(set(shards))]
        except OSError as error:
            raise _not_found("--model_name_or_path", name, "weights", error) from error
        if files:
            return {key: tensor for file in files for key, tensor in _open_file(file).items()}
    raise _not_found("--model_name_or_path", name, "weights", OSError(f"no {SAFE_WEIGHTS_NAME} or {WEIGHTS_NAME}"))


def _open_file(path: str) -> Mapping[str, Any]:
    try:
        if path.endswith(".safetensors"):
            file = safe_open(path, framework="pt")
            return {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  not a dictionary
        mmap = zipfile.is_zipfile(path)  # files from before PyTorch 1.6 cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(
            f"--model_name_or_path: {path} cannot be read safely ({str(error).splitlines()[0]}). "
            "It is damaged, or holds more than weights; get the checkpoint again, as safetensors."
        ) from error
