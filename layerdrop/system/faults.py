"""Faults of the environment, such as a full disk or a missing permission: one line instead of a traceback."""

import errno
import os
import re

from layerdrop.system.text import one_line

ADVICE = {
    errno.ENOSPC: "Free some space, then repeat the command",
    errno.EDQUOT: "Free some space, then repeat the command",
    errno.EACCES: "Correct the permissions, then repeat the command",
    errno.EPERM: "Correct the permissions, then repeat the command",
    errno.EROFS: "Choose another folder, or mount it writable",
}
"""Number of a system error -> the next step."""
UNUSABLE_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
"""Numbers of errors that only another path can avoid."""
ADVICE |= dict.fromkeys(UNUSABLE_PATH, "Choose another path")
OTHER_ADVICE = "Correct this, then repeat the command"
IN_RUST = re.compile(r"\(os error (\d+)\)")
"""System errors in messages of `safetensors` and `tokenizers`."""
IN_TORCH = re.compile(r"PytorchStreamWriter|inline_container\.cc|iostream error")
"""Messages of `torch.save` for a file that cannot be written. They do not contain the reason."""
NO_PACKAGE = re.compile(r"'([\w.-]+)[^']*' distribution was not found")
"""The library's message for a package that a setting needs."""


def fault(error: BaseException) -> str | None:
    """Describe an error of the operating system in one line, with the next step. None for other errors."""
    if isinstance(error, OSError) and error.errno is not None:
        number, path = error.errno, error.filename2 or error.filename
        where = f"{os.fsdecode(path)}: " if isinstance(path, (str, bytes)) else ""
        return one_line(f"{where}{error.strerror}. {ADVICE.get(number, OTHER_ADVICE)}.")
    if match := IN_RUST.search(str(error)):
        number = int(match[1])
        return f"{os.strerror(number)}. {ADVICE.get(number, OTHER_ADVICE)}."
    if match := NO_PACKAGE.search(str(error)):
        return f"{match[1]}: needs a package that is not installed. Run: pip install {match[1]}"
    if isinstance(error, RuntimeError) and IN_TORCH.search(str(error)):
        return "a checkpoint cannot be written. Check the space and the permissions of --output_dir, then repeat."
    return None
