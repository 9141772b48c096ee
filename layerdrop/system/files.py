"""Write result files and folders atomically, without replacing files of the user."""

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from layerdrop.errors import UserError, first_bytes


class LocalPath(str):
    """Type of a flag for a path or a hub name: a str with `~` expanded."""

    def __new__(cls, text: str) -> str:
        """Expand `~`. A shell does not expand it in `--flag=~/x`, and YAML never does.

        Raises ValueError for a text that cannot be the name of a file: with NUL, or not in UTF-8. Raises
        ArgumentTypeError for the home of an unknown user, and for a variable, unless a file has this name.
        """
        if "\0" in text or text != text.encode("utf-8", "replace").decode():
            raise ValueError("not a path")
        path = os.path.expanduser(text)
        if not os.path.lexists(path) and (path[:1] in ("~", "$") or path != os.path.expandvars(path)):
            reason = "no such user" if path[0] == "~" else "variables are not replaced in this place"
            raise ArgumentTypeError(f"{text}: {reason}. Write the whole path")
        return path


TEMPORARY = ".layerdrop-tmp-"
"""Prefix of temporary files and folders next to results. The next write of the result replaces or deletes those of a
killed process."""


# ---- files -----------------------------------------------------------------------------------------------------------
def regular(path: str | Path) -> Path:
    """Return the path of a file to open. Raises OSError for a pipe or a device, because opening it could wait.

    Raises UserError for a Git LFS pointer.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    if path.is_file():
        first_bytes(path)
    return path


def read_json(path: str | Path, **options: Any) -> Any:
    """Read a JSON file. options: of `json.loads`.

    Raises OSError for a file that cannot be read, and ValueError for content that is not JSON.
    """
    try:
        return json.loads(regular(path).read_bytes(), **options)
    except RecursionError as error:
        raise ValueError("its lists and objects are nested too deep") from error


def make_folder(flag: str, folder: str | Path) -> None:
    """Make a folder for results before they are computed. Raises UserError if it cannot be written."""
    check_folder(flag, folder)
    Path(folder).mkdir(parents=True, exist_ok=True)


def check_folder(flag: str, folder: str | Path) -> None:
    """Raise UserError if a folder cannot be written, or cannot be made. Makes no folder."""
    existing = next(path for path in (Path(folder), *Path(folder).absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot write there ({error.strerror}). Choose another folder.") from None


def make_folder_of(flag: str, path: str | Path, mark: bytes) -> None:
    """Make the folder of a result file before the results are computed.

    mark: as in `refuse_foreign`. Raises UserError if the file cannot be written, or if another program has written it.
    """
    refuse_foreign(flag, path, mark)
    make_folder(flag, Path(path).parent)


def refuse_foreign(flag: str, path: str | Path, mark: bytes) -> None:
    """Raise UserError if a result file would replace a file that this tool did not write.

    mark: a regular expression that matches every file of the kind. An empty file may be replaced.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{flag} {path}: is a folder. Give a file.")
    try:
        if path.exists() and not path.is_file():  # a device, a pipe
            raise UserError(f"{flag} {path}: is not a regular file. Give another name.")
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot write there ({error.strerror}). Choose another folder.") from None
    if content and not re.search(mark, content):
        raise UserError(f"{flag} {path}: exists and is not an earlier result. Move it away, or give another name.")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file in one step: a reader sees the old content or the new content.

    For a symbolic link, write its target.
    """
    path = Path(os.path.realpath(path))
    try:
        descriptor, temporary = _open_temporary(path)
        with os.fdopen(descriptor, "wb") as file:
            try:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(temporary, 0o666 & ~umask())
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
    except OSError as error:
        if error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error  # names the file, not the temporary one
        raise


def _open_temporary(path: Path) -> tuple[int, str]:
    """Open an empty temporary file for the new content of a file. Returns its descriptor and its path.

    The name is always the same, so that the next write reuses the file of a killed process. A lock admits one process
    at a time. Without the lock: another name.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name[:100]}")
    descriptor = None
    with suppress(OSError):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(temporary)):  # another process may have renamed it before
            os.truncate(descriptor, 0)
            return descriptor, str(temporary)
    if descriptor is not None:
        os.close(descriptor)
    return tempfile.mkstemp(dir=path.parent, prefix=f"{temporary.name}.")


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def umask() -> int:
    """The umask of this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- folders ---------------------------------------------------------------------------------------------------------
@contextmanager
def temporary_folder_for(flag: str, target: Path) -> Iterator[Path]:
    """Yield an empty folder next to `target` for `replace_folder`. Delete it on exit if it was not moved to `target`.

    First delete leftovers of a killed process. A lock admits one process at a time. The operating system frees the lock
    of a killed process. Raises UserError if another process has the lock, or the folder cannot be written.
    """
    work = target.parent / f".{target.name}.new"
    lock = FileLock(work / ".lock", timeout=0)
    try:
        work.mkdir(exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(f"{flag} {target}: another process writes it. Wait, or choose another folder.") from None
    except OSError as error:
        raise UserError(f"{flag} {target}: cannot write there ({error.strerror}). Choose another folder.") from None
    try:
        _clean(work, target)
        (work / "new").mkdir()
        yield work / "new"
    finally:
        _clean(work, target)
        (work / ".lock").unlink(missing_ok=True)
        with suppress(OSError):
            work.rmdir()
        lock.release()


def replace_folder(folder: Path, target: Path) -> None:
    """Rename a temporary folder to its target. `temporary_folder_for` deletes the target's old contents.

    This is one step if the system can exchange folders (Linux). Otherwise, a process killed between two steps leaves no
    target. The next `temporary_folder_for` restores the old target. The files get the permissions of new files.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask())
    if _is_empty(target):
        os.rename(folder, target)
    elif not _exchange(folder, target):
        os.rename(target, folder.with_name("old"))
        os.rename(folder, target)


def hashes_in(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below a folder."""
    return {name: hash_file(folder / name) for name in _names_in(folder)}


def foreign_file(folder: Path, hashes: Mapping[str, str]) -> str | None:
    """The first file below a folder that is not in `hashes` or has another hash, or the first folder without a file of
    `hashes`. None if there is neither."""
    for name in _names_in(folder):
        path = folder / name
        if name not in hashes or path.is_symlink() or not path.is_file() or hash_file(path) != hashes[name]:
            return name
    known = {parent for name in hashes for parent in (folder / name).parents}
    unknown = sorted(path for path in folder.rglob("*") if path.is_dir() and path not in known)
    return unknown[0].relative_to(folder).as_posix() if unknown else None


def _names_in(folder: Path) -> list[str]:
    """Relative paths of all files and symbolic links below a folder."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _is_empty(folder: Path) -> bool:
    """Whether a folder is empty or missing."""
    return not folder.exists() or not any(folder.iterdir())


def _clean(work: Path, target: Path) -> None:
    """Delete the folders of `temporary_folder_for` and `replace_folder`. Restore a target that was not replaced."""
    old = work / "old"
    if old.exists() and _is_empty(target):
        os.rename(old, target)
    for folder in (old, work / "new"):
        shutil.rmtree(folder, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two folders in one step. Returns False if the system does not support it."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform.startswith("linux") else None
    return rename is not None and rename(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0
