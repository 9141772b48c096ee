"""Files that are there whole or not at all, and folders that can be written to."""

import hashlib
import os
import tempfile
from pathlib import Path

from layerdrop.errors import UserError


def make_folder(flag: str, folder: str | Path) -> None:
    """Make a folder for results, before they are computed. Raises UserError where nothing can be written there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot write there ({error.strerror}). Choose another folder.") from None


def make_folder_of(flag: str, path: str | Path) -> None:
    """Make the folder of a file of results, before they are computed. Raises UserError where the file cannot be
    written."""
    if Path(path).is_dir():
        raise UserError(f"{flag} {path}: is a folder. Give a file.")
    make_folder(flag, Path(path).parent)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def umask() -> int:
    """The permissions that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
