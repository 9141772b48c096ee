"""One run over several processes (`torchrun`): what the first process decides, all do."""

import os
from collections.abc import Callable
from typing import Any

import torch

from layerdrop.errors import UserError


def _joined() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """Number of this process, from 0."""
    return torch.distributed.get_rank() if _joined() else 0


def is_first() -> bool:
    """Whether this process writes files and talks to the user, also before the processes have joined."""
    return os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """Number of processes of this run."""
    return torch.distributed.get_world_size() if _joined() else 1


def gather(value: Any) -> list[Any]:
    """The values of all processes, in the order of their ranks; each must be one that pickle can carry."""
    if not _joined():
        return [value]
    values: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def finish() -> None:
    """Wait for every process, then end what joins them: one that leaves first could take the others along."""
    if _joined():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def from_first_process(function: Callable[[], Any]) -> Any:
    """The value that `function()` has in the first process, in every process; a UserError is raised in every process.

    Without torch.distributed it is a plain call. The value must be one that pickle can carry.
    """
    if not _joined():
        return function()
    message: list[Any] = [None, None]
    if torch.distributed.get_rank() == 0:
        try:
            message[0] = function()
        except UserError as error:
            message[1] = str(error)
    torch.distributed.broadcast_object_list(message, src=0)
    if message[1] is not None:
        raise UserError(message[1])
    return message[0]
