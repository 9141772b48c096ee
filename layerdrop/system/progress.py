"""Progress bars."""

from collections.abc import Iterable
from typing import TypeVar

from transformers.utils import logging

DELAY = 2
"""Seconds without a bar."""
Part = TypeVar("Part")


def progress(parts: Iterable[Part], what: str, unit: str = "it") -> Iterable[Part]:
    """Iterate with a bar on a terminal, after DELAY seconds. There is none if transformers' bars are disabled."""
    bar: Iterable[Part] = logging.tqdm(parts, desc=what, unit=unit, delay=DELAY, leave=False, disable=None)  # type: ignore[no-untyped-call]
    return bar
