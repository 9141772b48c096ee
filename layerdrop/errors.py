"""User errors, with one-line messages."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

LFS_POINTER = b"version https://git-lfs"
"""First bytes of a Git LFS pointer: Git has not fetched the file."""


class UserError(ValueError):
    """Unusable input. The message is one line: the received value, the allowed values, the next step.

    Commands print it without a traceback and exit with code 2.
    """


def unknown(flag: str, received: str, allowed: Iterable[str], noun: str = "value") -> UserError:
    """Return the error for an unknown name, with the nearest match and all allowed names."""
    allowed = [str(name) for name in allowed]
    near = get_close_matches(str(received), allowed, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"{flag}: unknown {noun} '{received}'.{hint} Allowed: {', '.join(allowed)}.")


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
