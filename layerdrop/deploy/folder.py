"""The folder of an exported or cut model. A folder with other files is never replaced."""

import os
from pathlib import Path

from layerdrop.errors import UserError
from layerdrop.system.files import foreign_file, hash_file, make_folder, read_json


def check_output(flag: str, folder: str, list_file: str) -> Path:
    """Return the output folder with links resolved, and make its parent folder.

    list_file: the file with the hashes of an earlier model's files (`files`). Raises UserError unless the folder is
    empty, or holds only the files of this list.
    """
    target = Path(os.path.realpath(folder))
    make_folder(flag, target.parent)
    if target.exists() and not target.is_dir():
        raise UserError(f"{flag} {folder}: is not a folder. Choose another name.")
    if target == Path.cwd() or target.is_mount():
        raise UserError(f"{flag} {folder}: is the working folder or a mount point. Name a folder in it.")
    if name := foreign_file(target, _listed(target / list_file)):
        raise UserError(
            f"{flag} {folder}: holds {name}. This command did not write it, or it was changed since. Move it away, "
            "or choose another folder."
        )
    return target


def _listed(path: Path) -> dict[str, str]:
    """Relative path -> hash of the files of an earlier model, and of the list itself. Empty without a list."""
    try:
        return {**read_json(path)["files"], path.name: hash_file(path)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
