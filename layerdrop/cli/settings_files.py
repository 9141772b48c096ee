"""Flags in YAML and JSON files."""

import json
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml
from transformers import TrainingArguments

from layerdrop.cli.flags import TrainArguments
from layerdrop.errors import UserError

DICTIONARIES = TrainingArguments._VALID_DICT_FIELDS


class _Loader(yaml.SafeLoader):
    """YAML whose mappings may not say a key twice; a key beside `<<` takes the place of the merged one."""

    def __init__(self, stream):
        super().__init__(stream)
        self.checked = []
        """Nodes as they were written: merging changes them."""

    def flatten_mapping(self, node):
        """Merge; a repeated key is an error."""
        if node not in self.checked:
            self.checked.append(node)
            keys = [key.value for key, _ in node.value]
            if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
                raise yaml.constructor.ConstructorError(
                    problem=f"'{twice[0]}' is there twice", problem_mark=node.start_mark
                )
        super().flatten_mapping(node)


STUDY, SEARCH = "a study of many runs", "a search"
COMMANDS = {STUDY: "sweep", SEARCH: "search"}
"""Kind of file -> the script that takes it. All other files hold the flags of one run."""
OF_A_SEARCH = {"method", "max_k", "seeds", "select_on", "round"}
"""Flags of scripts/search.py alone."""


def read_settings(path: str, kind: str | None = None) -> dict[str, Any]:
    """Read the mapping in a YAML or JSON file.

    kind: STUDY or SEARCH if the caller expects such a file. Raises UserError, also for a file of another kind.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
        settings = json.loads(text) if path.endswith(".json") else yaml.load(text, _Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot read the configuration ({error.strerror}). Check the path.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not valid YAML or JSON ({' '.join(str(error).split())}).") from None
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise UserError(f"{path}: a configuration is a list of `flag: value` lines.")
    found = STUDY if "grid" in settings else SEARCH if OF_A_SEARCH & set(settings) else None
    if found not in (None, kind):
        raise UserError(f"{path}: is {found}. Start it with: python scripts/{COMMANDS[found]}.py {path}")
    return settings


def flags_of(settings: dict[str, Any]) -> list[str]:
    """Settings by the names of flags, as the words of a command line; those that are None are left out."""
    if nested := [name for name, value in settings.items() if isinstance(value, dict) and name not in DICTIONARIES]:
        raise UserError(f"'{nested[0]}' holds settings of its own. Write every flag on a line of its own.")
    words = []
    for name, value in settings.items():
        if value is None:
            continue
        if isinstance(value, list) and name in _list_flags():
            words += [f"--{name}", *map(str, value)]
        elif isinstance(value, list):
            words.append(f"--{name}={','.join(map(str, value))}")
        else:
            words.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return words


@cache
def _list_flags() -> set[str]:
    """The flags that take several words."""
    hints = get_type_hints(TrainArguments)
    return {f.name for f in fields(TrainArguments) if get_origin(hints[f.name]) is list}
