"""Checks of arguments that are easily mistaken: a single item for a list, a name for an object.

Without them Python would iterate over the letters of a string, or fail far from the mistake.
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
    """Checks that an argument is an iterable of items; an iterator is not consumed.

    Args:
        value: the argument.
        expected: name of the items for the error message, in the plural.
        kinds: types of the items, checked unless `value` is an iterator.

    Raises:
        ArgumentError: `value` is a single string, path, mapping or other item, or an item has
            another type.
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


def require_object(value: object, methods: Iterable[str], expected: str, opener: str) -> None:
    """Checks that an argument has the methods of a protocol; a URI or a path does not.

    Args:
        value: the argument.
        methods: names of attributes that strings, paths and lists lack.
        expected: name of the protocol for the error message.
        opener: name of the function that returns such an object.

    Raises:
        ArgumentError: an attribute is missing; the message names `opener`.
    """
    if all(hasattr(value, name) for name in methods):
        return
    argument = shown(value) if isinstance(value, str | os.PathLike) else "…"
    raise ArgumentError(f"expected {expected}, found {shown(value)}; pass {opener}({argument})")


def shown(value: Any) -> str:
    """Formats a value for a message: text, paths and numbers literally, other values by type."""
    if isinstance(value, str | os.PathLike):
        text = repr(os.fspath(value))
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    if value is None or isinstance(value, int | float):
        return repr(value)[:_LONGEST]
    return f"an object of type {type(value).__name__}"
