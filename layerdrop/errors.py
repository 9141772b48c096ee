"""User errors, with one-line messages."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

LFS_POINTER = b"version https://git-lfs"
"""First bytes of a Git LFS pointer: Git has not fetched the file."""
MESSAGE = re.compile(r"(--\w+)(?: ((?:(?!: |\. )[^\n])*))?: ((?:.|\n)*)")
"""A message that begins with the flag at fault: flag, received value, text. The value contains no sentence."""


class UserError(ValueError):
    """Unusable input. The message is one line: the flag, the received value, the allowed values, the next step.

    Commands print it without a traceback and exit with code 2.
    """

    def __init__(self, text: str, flag: str = "", value: object = None):
        """flag: the flag at fault, and value: the received value, which `str` writes before the text. None: no value.

        A text such as `--k 0: must be 1.` begins with both, so they can be left out."""
        if not flag and (parts := MESSAGE.fullmatch(text)):
            flag, value, text = parts.groups()
        super().__init__(f"{flag}{'' if value is None else f' {value}'}: {text}" if flag else text)
        self.text, self.flag, self.value = text, flag, value
        self.problems: tuple[UserError, ...] = ()
        """The errors that this error joins, one on each line. Empty for a single error."""

    @classmethod
    def joined(cls, problems: Iterable["UserError"]) -> "UserError":
        """One error for several problems, which may themselves join problems. Without repetitions."""
        single = (one for problem in problems for one in problem.problems or (problem,))
        different = tuple({str(problem): problem for problem in single}.values())
        if len(different) == 1:
            return different[0]
        error = cls("\n".join(map(str, different)))
        error.text, error.flag, error.value, error.problems = str(error), "", None, different
        return error


def unknown(flag: str, received: str, allowed: Iterable[str], noun: str = "value") -> UserError:
    """Return the error for an unknown name, with the nearest match and all allowed names."""
    allowed = [str(name) for name in allowed]
    near = get_close_matches(str(received), allowed, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"unknown {noun} '{received}'.{hint} Allowed: {', '.join(allowed)}.", flag)


def first_bytes(path: str | Path, name: str | None = None) -> bytes:
    """The first bytes of a file. Raises UserError for a Git LFS pointer. name: for the message; None: the path."""
    with open(path, "rb") as file:
        content = file.read(len(LFS_POINTER))
    refuse_pointer(name or str(path), content)
    return content


def refuse_pointer(name: str, content: bytes) -> None:
    """Raise UserError for a Git LFS pointer. name: of the file, for the message. content: at least its first bytes."""
    if content.startswith(LFS_POINTER):
        raise UserError(f"{name} is a pointer of Git LFS, not the file. Fetch it: git lfs pull")
