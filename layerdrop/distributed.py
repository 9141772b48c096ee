"""One run over several processes (`torchrun`): what the first process decides, all do."""

from collections.abc import Callable
from typing import Any

import torch

from layerdrop.errors import UserError


def finish() -> None:
    """Wait for every process, then end what joins them: one that leaves first could take the others along."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def from_first_process(function: Callable[[], Any]) -> Any:
    """The value that `function()` has in the first process, in every process; a UserError is raised in every process.

    Without torch.distributed it is a plain call. The value must be one that pickle can carry.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
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
