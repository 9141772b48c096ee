"""Check values read from a file against the type hints of dataclasses."""

import dataclasses
import math
import types
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

LARGEST = 2**63
"""Limit of integers in pandas and other programs."""
ANY_OF = {str: str, list: list[Any], tuple: tuple[Any, ...], dict: dict[str, Any]}
"""Class of a value -> the type hint that replaces Any."""
Check = Callable[[Any], None]
"""Raises _WrongType if a value does not have the type of a hint."""


class _WrongType(Exception):
    """A value without the hinted type. Each enclosing part adds its name to the place."""

    def __init__(self, problem: str, prefix: str = ""):
        self.problem, self.prefix, self.place = problem, prefix, ""

    def inside(self, part: str) -> "_WrongType":
        self.place = part + self.place
        return self


def check_type(value: Any, hint: Any, where: str = "") -> None:
    """Raise TypeError if a value or a part of it does not have the hinted type. The message names the part.

    hint: Any, None, a class, a dataclass, a TypedDict, a Literal, a union, or a list, tuple[X, ...], dict or Mapping of
    these. An integer counts as a float. A Boolean is not a number. NaN is allowed as a float, infinity is not.
    """
    try:
        _check_of(hint)(value)
    except _WrongType as error:
        raise TypeError(f"{error.prefix}{(where + error.place).lstrip('.')}: {error.problem}") from None


@cache
def _check_of(hint: Any) -> Check:
    """The check of a type hint. Made once, because a store has millions of values of a few types."""
    kind, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: _check_of(ANY_OF.get(type(value), object))(value)
    if dataclasses.is_dataclass(hint):
        return _check_parts(hint, hint, vars)
    if is_typeddict(hint):
        return _check_parts(hint, dict, lambda value: value)
    if kind in (Union, types.UnionType):
        return _check_union(inner)
    if kind is Literal:
        return _check_name(inner)
    if kind is list or (kind is tuple and inner[-1] is ...):
        return _check_items(hint, kind, _check_of(inner[0]))
    if kind is tuple:
        return _check_tuple(hint, [_check_of(of) for of in inner])
    if kind in (dict, Mapping):
        return _check_mapping(hint, _check_of(inner[0]), _check_of(inner[1]))
    return _check_scalar(hint)


def _check_parts(hint: Any, kind: type, parts_of: Callable[[Any], Mapping[str, Any]]) -> Check:
    """The check of a dataclass or TypedDict. A TypedDict may lack parts."""

    def check(value: Any) -> None:
        if not isinstance(value, kind):
            raise _wrong(hint, value)
        parts = parts_of(value)
        for name, of in _part_checks(hint).items():
            if name in parts:
                try:
                    of(parts[name])
                except _WrongType as error:
                    raise error.inside(f".{name}") from None

    return check


@cache
def _part_checks(kind: Any) -> dict[str, Check]:
    """Name of a part -> its check. Made on first use, because a dataclass may contain itself."""
    return {name: _check_of(of) for name, of in get_type_hints(kind).items()}


def _check_items(hint: Any, kind: type, of: Check) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, kind):
            raise _wrong(hint, value)
        _check_each((of, item) for item in value)

    return check


def _check_tuple(hint: Any, checks: list[Check]) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, tuple):
            raise _wrong(hint, value)
        if len(checks) != len(value):
            raise _WrongType(f"{len(checks)} values are expected, not {_shown(value)}")
        _check_each(zip(checks, value, strict=True))

    return check


def _check_each(items: Iterable[tuple[Check, Any]]) -> None:
    for i, (of, item) in enumerate(items):
        try:
            of(item)
        except _WrongType as error:
            raise error.inside(f"[{i}]") from None


def _check_mapping(hint: Any, of_key: Check, of_item: Check) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, Mapping):
            raise _wrong(hint, value)
        for key, item in value.items():
            try:
                of_key(key)
            except _WrongType as error:
                raise _WrongType(error.problem, "a key of ") from None
            try:
                of_item(item)
            except _WrongType as error:
                raise error.inside(f".{key}") from None

    return check


def _check_union(kinds: tuple) -> Check:
    """If no type of the union fits, the error is that of the last type other than None."""
    checks = [_check_of(kind) for kind in kinds if kind is not type(None)]
    optional = len(checks) < len(kinds)

    def check(value: Any) -> None:
        if value is None and optional:
            return
        for of in checks[:-1]:
            try:
                return of(value)
            except _WrongType:
                pass
        checks[-1](value)

    return check


def _check_name(names: tuple) -> Check:
    def check(value: Any) -> None:
        if value not in names:
            raise _WrongType(f"unknown value {_shown(value)}. Allowed: {', '.join(map(str, names))}")

    return check


def _check_scalar(kind: Any) -> Check:
    fits = FITS.get(kind) or (lambda value: isinstance(kind, type) and isinstance(value, kind))

    def check(value: Any) -> None:
        if not fits(value):
            raise _wrong(kind, value)

    return check


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST


def _is_number(value: Any) -> bool:
    return not math.isinf(value) if isinstance(value, float) else _is_integer(value)


def _is_text(value: Any) -> bool:
    """Whether a value is a text that has an encoding. A lone surrogate has none."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))


FITS = {int: _is_integer, float: _is_number, str: _is_text}
"""Class of a scalar -> whether a value fits."""


def _wrong(hint: Any, value: Any) -> _WrongType:
    return _WrongType(f"{getattr(hint, '__name__', hint)} is expected, not {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= 40 else text[:39] + "\u2026"
