"""Check values read from a file against the type hints of dataclasses."""

import dataclasses
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

LARGEST = 2**63
"""Limit of integers in pandas and other programs."""
ANY_OF = {str: str, list: list[Any], tuple: tuple[Any, ...], dict: dict[str, Any]}
"""Class of a value -> the type hint that replaces Any."""


def check_type(value: Any, hint: Any, where: str = "") -> None:
    """Raise TypeError if a value or a part of it does not have the hinted type. The message names the part.

    hint: Any, None, a class, a dataclass, a TypedDict, a union, or a list, tuple[X, ...], dict or Mapping of these. An
    integer counts as a float. A Boolean is not a number. NaN is allowed as a float, infinity is not.
    """
    if hint is Any:
        hint = ANY_OF.get(type(value), object)
    kind, inner = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, hint):
        _check_parts(vars(value), hint, where)
    elif is_typeddict(hint) and isinstance(value, dict):
        _check_parts(value, hint, where)
    elif kind in (Union, types.UnionType):
        _check_union(value, inner, where)
    elif kind in (list, tuple) and isinstance(value, kind):
        item_hints = [inner[0]] * len(value) if kind is list or inner[-1] is ... else inner
        if len(item_hints) != len(value):
            raise TypeError(f"{where}: {len(item_hints)} values are expected, not {_shown(value)}")
        for i, (item, of) in enumerate(zip(value, item_hints, strict=True)):
            check_type(item, of, f"{where}[{i}]")
    elif kind in (dict, Mapping) and isinstance(value, Mapping):
        for key, item in value.items():
            check_type(key, inner[0], f"a key of {where}")
            check_type(item, inner[1], f"{where}.{key}")
    elif not _is_plain(value, hint):
        raise TypeError(f"{where}: {getattr(hint, '__name__', hint)} is expected, not {_shown(value)}")


def _check_parts(values: Mapping[str, Any], hint: Any, where: str) -> None:
    for name, of in _hints(hint).items():
        if name in values:
            check_type(values[name], of, f"{where}.{name}".lstrip("."))


def _check_union(value: Any, kinds: tuple, where: str) -> None:
    """Check against each type of a union. If none fits, raise the error of the last type other than None."""
    errors = []
    for kind in kinds:
        try:
            return check_type(value, kind, where)
        except TypeError as error:
            errors += [error] if kind is not type(None) else []
    raise errors[-1]


def _is_plain(value: Any, kind: Any) -> bool:
    """Whether a scalar value has the type `kind`."""
    if kind in (int, float):
        is_integer = isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST
        return is_integer or (kind is float and isinstance(value, float) and not math.isinf(value))
    if kind is str and isinstance(value, str):
        return not any("\ud800" <= c <= "\udfff" for c in value)  # a lone surrogate cannot be encoded
    return isinstance(kind, type) and isinstance(value, kind)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= 40 else text[:39] + "\u2026"
