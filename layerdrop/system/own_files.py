"""Ownership of files in a run's folder. A run replaces or deletes only files that it has written.

`spec.json` maps each file name to the hashes of all contents that the run has written to the file. A file is listed
before it is written, so a killed process leaves no unlisted file. A file with any other hash belongs to the user.
"""

import fnmatch
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerdrop.errors import UserError
from layerdrop.system.files import TEMPORARY, hash_file, read_json, umask, write_atomically

SPEC_FILE = "spec.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Names of the files with the weights of a saved model."""
MODEL_PATTERNS = (
    *WEIGHTS,
    *("model-*.safetensors", "pytorch_model-*.bin"),
    *("config.json", "generation_config.json", "training_args.bin", "trainer_state.json", "chat_template.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "*.model"),
)
"""Patterns of the file names of a saved model and its tokenizer."""
SHOWN = 3
"""Maximum number of files in a message. The message counts the others."""
CHECKPOINTS = "checkpoint-[0-9]*"
"""Pattern of the Trainer's checkpoint folders. `is_checkpoint` also requires that only digits follow the hyphen."""
EVENTS_SUFFIX = ".layerdrop"
"""End of the names of a run's TensorBoard files: other writers do not have it."""
EVENTS = f"events.out.tfevents.*{EVENTS_SUFFIX}"
"""Pattern of a run's TensorBoard files."""


def is_checkpoint(name: str) -> bool:
    """Whether a name has the form `checkpoint-STEP` of the Trainer's checkpoint folders."""
    return re.fullmatch(r"checkpoint-\d+", name) is not None


def _matches(name: str, pattern: str) -> bool:
    return is_checkpoint(name) if pattern == CHECKPOINTS else fnmatch.fnmatchcase(name, pattern)


class OwnFiles:
    """The files of a run's folder. Names are relative to the folder. Every operation reads `spec.json` once."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.path = self.folder / SPEC_FILE

    # ---- the list
    @property
    def spec(self) -> dict[str, Any] | None:
        """The content of `spec.json`. None if the file is missing, or another program has written it."""
        try:
            content = read_json(self.path)
        except (OSError, ValueError):
            return None
        known = isinstance(content, dict) and isinstance(content.get("files"), dict)
        return content if known and isinstance(content.get("reserved"), list) else None

    def _save(self, spec: dict[str, Any] | None, **changes: Any) -> None:
        """Write `spec.json` with some entries replaced. Raises UserError if another program has written the file."""
        if spec is None and self.path.exists():
            raise self._refused([SPEC_FILE])
        content = {"files": {}, "reserved": [], **(spec or {}), **changes}
        write_atomically(self.path, json.dumps(content, indent=1, default=str) + "\n")

    def describe(self, values: Mapping[str, Any]) -> None:
        """Write the run's spec and inputs into `spec.json`. Raises UserError as `_save` does."""
        self._save(self.spec, **values)

    def reserve(self, patterns: Iterable[str]) -> None:
        """Reserve the names of the Trainer's files and folders. They belong to the run, whatever their content.

        Names that the interrupted run has reserved stay reserved.
        """
        spec = self.spec
        self._save(spec, reserved=sorted({*patterns, *(spec or {}).get("reserved", ())}))

    @property
    def reserving(self) -> bool:
        """Whether all names of checkpoints are reserved, because the run has not ended or its process was killed."""
        return CHECKPOINTS in (self.spec or {}).get("reserved", ())

    def owns(self, name: str) -> bool:
        """Whether a file or folder belongs to the run: it has a reserved name, or the run wrote its present content."""
        return self._owns(self.spec, name)

    def _owns(self, spec: dict[str, Any] | None, name: str) -> bool:
        if spec is None:
            return False
        if any(_matches(name, pattern) for pattern in spec["reserved"]):
            return True
        path = self.folder / name
        return name in spec["files"] and path.is_file() and hash_file(path) in spec["files"][name]

    def clashes(self, patterns: Iterable[str]) -> list[str]:
        """Names of files and folders that match a pattern and do not belong to the run."""
        return self._clashes(self.spec, patterns)

    def _clashes(self, spec: dict[str, Any] | None, patterns: Iterable[str]) -> list[str]:
        names = {path.name for pattern in patterns for path in self._matching(pattern)} - {SPEC_FILE}
        foreign = [name for name in names if not self._owns(spec, name)]
        return sorted([*foreign, *([SPEC_FILE] if spec is None and self.path.exists() else [])])

    def refuse_clashes(self, patterns: Iterable[str]) -> None:
        """Raise UserError if the user's files have names that the run would write."""
        if foreign := self.clashes(patterns):
            raise self._refused(foreign)

    def _refused(self, names: list[str]) -> UserError:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        shown = ", ".join(names[:SHOWN]) + more
        several = len(names) > 1
        it, was, them = ("these files", "they were", "them") if several else ("it", "it was", "it")
        return UserError(
            f"--output_dir {self.folder}: holds {shown}. This run did not write {it}, or {was} changed since. "
            f"Move {them} away, or choose another folder."
        )

    # ---- writing
    def write(self, files: Mapping[str, str]) -> None:
        """Write text files. Raises UserError, and writes nothing, if one of the names is a file of the user."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._list({name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()})
        for name, text in files.items():
            write_atomically(self.folder / name, text)

    @contextmanager
    def saving(self) -> Iterator[Path]:
        """Yield an empty folder, whose files are moved into the run's folder at the end.

        Raises UserError, and moves nothing, if one of the names is a file of the user.
        """
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=TEMPORARY) as temporary:
            yield Path(temporary)
            paths = sorted(path for path in Path(temporary).iterdir() if path.is_file())
            self._list({path.name: hash_file(path) for path in paths})
            for path in paths:
                path.chmod(0o666 & ~umask())
                os.replace(path, self.folder / path.name)

    def _list(self, hashes: Mapping[str, str], **changes: Any) -> None:
        """Add files to the list, and replace other entries of `spec.json`. Raises UserError for a file of the user."""
        spec = self.spec
        if foreign := self._clashes(spec, hashes):
            raise self._refused(foreign)
        files = dict((spec or {}).get("files", {}))
        for name, digest in hashes.items():
            files[name] = sorted({*files.get(name, []), digest})
        self._save(spec, files=files, **changes)

    def settle(self) -> None:
        """End a reservation: list the files under reserved names with their hashes. Checkpoints stay reserved."""
        paths = self._reserved_paths(self.spec)
        folders = sorted(path.name for path in paths if path.is_dir())
        self._list({path.name: hash_file(path) for path in paths if path.is_file()}, reserved=folders)

    # ---- deleting
    def remove(self) -> None:
        """Delete the run's files and checkpoints, and `spec.json` last. The user's files are kept."""
        if self.spec is not None:
            self.clear({})
            self.path.unlink()

    def clear(self, values: Mapping[str, Any]) -> None:
        """Delete the run's files and checkpoints. `spec.json` then has only `values`.

        The values are written before the first deletion, so a killed process does not lose them.
        """
        spec = self.spec
        if spec is None:
            return
        self._save(spec, **values)
        self.remove_leftovers()
        for path in self._reserved_paths(spec):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in spec["files"]:
            if self._owns(spec, name):
                (self.folder / name).unlink()
        self._save({}, **values)

    def remove_leftovers(self) -> None:
        """Delete the temporary files and folders of a killed process."""
        for path in self.folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _reserved_paths(self, spec: dict[str, Any] | None) -> list[Path]:
        """Existing files and folders with reserved names."""
        patterns = spec["reserved"] if spec else ()
        return sorted({path for pattern in patterns for path in self._matching(pattern)})

    def _matching(self, pattern: str) -> list[Path]:
        return [path for path in self.folder.glob(pattern) if _matches(path.name, pattern)]
