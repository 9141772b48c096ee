"""Configuration files, YAML or JSON: mappings of flags to values."""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from layerdrop.errors import UserError
from layerdrop.system.files import regular

CONFIGURATIONS = (".yaml", ".yml", ".json")
"""Endings of configuration files."""
STUDY, SEARCH = "a study of many runs", "a search"
COMMANDS = {STUDY: "sweep", SEARCH: "search"}
"""Kind of file -> the command that reads it. All other files contain the flags of one run."""
SEARCH_ONLY = {"method", "max_k", "seeds", "select_on", "round"}
"""Flags of `layerdrop search` that are not flags of a run: a file with one of them is the file of a search."""


class _Loader(yaml.SafeLoader):
    """YAML loader that rejects repeated keys. A key next to `<<` overrides the merged key."""

    def __init__(self, stream):
        super().__init__(stream)
        self.checked = []
        """Nodes whose keys were checked. Later, a node also has merged keys, which may be repeated."""

    def flatten_mapping(self, node):
        """Merge the `<<` keys of a node. Raises ConstructorError for a repeated key."""
        if node not in self.checked:
            self.checked.append(node)
            keys = [key.value for key, _ in node.value]
            if repeated := [key for i, key in enumerate(keys) if key in keys[:i]]:
                problem = f"'{repeated[0]}' occurs twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        super().flatten_mapping(node)


def kind_of(value: object) -> str:
    """Kind of a value in a configuration file, for messages."""
    kinds = {dict: "a mapping", list: "a list", str: "a text", bool: "a boolean", type(None): "empty"}
    return kinds.get(type(value), "a number" if isinstance(value, (int, float)) else f"'{value}'")


def read_settings(path: str, kind: str | None = None) -> dict[str, Any]:
    """Read the mapping in a YAML or JSON file.

    kind: STUDY, SEARCH, or None for the flags of one run. Raises UserError for an unreadable file or another kind.
    """
    try:
        text = regular(Path(os.path.expanduser(path))).read_text(encoding="utf-8-sig")
        settings = json.loads(text) if path.endswith(".json") else yaml.load(text, _Loader)
    except UserError:  # a Git LFS pointer
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot read the configuration ({error.strerror}). Check the path.") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML or JSON ({reason}). Correct the file.") from None
    except RecursionError:
        raise UserError(
            f"{path}: its lists and mappings are nested too deep. Write one `flag: value` on each line."
        ) from None
    how = "Write `flag: value` lines, such as `learning_rate: 3e-5`"
    if not isinstance(settings, dict):
        raise UserError(f"{path}: must consist of `flag: value` lines, but is {kind_of(settings)}. {how}.")
    if wrong := [name for name in settings if not isinstance(name, str)]:
        raise UserError(f"{path}: {wrong[0]!r} is not the name of a flag. {how}.")
    actual = STUDY if "grid" in settings else SEARCH if SEARCH_ONLY & set(settings) else None
    if actual not in (None, kind):
        raise UserError(f"{path}: is {actual}. Execute it with: layerdrop {COMMANDS[actual]} {path}")
    return settings
