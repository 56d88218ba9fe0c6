"""Checks of arguments that are easy to get wrong: a single item for a list, a name for an object.

Python would iterate over the letters of a string, or fail somewhere deep inside.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from rsicd_embed.errors import ArgumentError

_LONGEST = 60


def require_items(
    value: object, expected: str, kinds: type | tuple[type, ...] | None = None
) -> None:
    """Refuses anything but several items; an iterator is not consumed.

    Args:
        value: the argument.
        expected: what its items are, in the plural.
        kinds: the items' types, checked unless `value` is an iterator.

    Raises:
        ArgumentError: a single string, path, mapping or other item, or an item of another type.
    """
    single = isinstance(value, str | bytes | os.PathLike | Mapping)
    if single or not isinstance(value, Iterable):
        remedy = "" if value is None or isinstance(value, Mapping) else "; put it in a list"
        raise ArgumentError(f"expected a list of {expected}, found {shown(value)}{remedy}")
    if kinds is None or iter(value) is value:
        return
    for position, item in enumerate(value):
        if not isinstance(item, kinds):
            raise ArgumentError(
                f"expected a list of {expected}, found {shown(item)} at position {position}"
            )


def require_object(value: object, methods: Iterable[str], expected: str, how: str) -> None:
    """Refuses anything that lacks the methods of a protocol, such as the name of what it opens.

    Args:
        value: the argument.
        methods: what the protocol has, and no name, path or list.
        expected: what it should be.
        how: the function that gives it.

    Raises:
        ArgumentError: naming that function.
    """
    if all(hasattr(value, name) for name in methods):
        return
    argument = shown(value) if isinstance(value, str | os.PathLike) else "…"
    raise ArgumentError(f"expected {expected}, found {shown(value)}; pass {how}({argument})")


def shown(value: Any) -> str:
    """A value in a message: a short text or path as it is, anything else by its type."""
    if isinstance(value, str | os.PathLike):
        text = repr(os.fspath(value))
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    if value is None or isinstance(value, int | float):
        return repr(value)[:_LONGEST]
    return f"an object of type {type(value).__name__}"
