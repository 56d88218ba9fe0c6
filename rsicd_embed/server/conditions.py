"""Conditions on attributes from anyone, as a `where`: nothing of what is given becomes SQL.

A column must be one of the store's, an operator one of those that its type has; a value is parsed
as that type and written anew as a literal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from rsicd_embed.errors import RequestError
from rsicd_embed.records import VECTOR
from rsicd_embed.server import times

Kind = Literal["text", "number", "truth", "time"]
Value = str | int | float | bool

_COMPARE = ("=", "!=", "<", "<=", ">", ">=")
_NULLS = ("is empty", "is not empty")
OPERATORS: dict[Kind, tuple[str, ...]] = {
    "text": ("=", "!=", "contains", "starts with", *_NULLS),
    "number": (*_COMPARE, *_NULLS),
    "truth": ("=", *_NULLS),
    "time": (*_COMPARE, *_NULLS),
}
# Beyond, a literal would be read as a decimal or a float, and 2**64 is in no column.
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Condition:
    """`column operator value`; without a value for those of emptiness."""

    column: str
    operator: str
    value: Value | None = None


def kind_of(type_: pa.DataType) -> Kind | None:
    """How values of a type are compared; None for types without conditions here."""
    type_ = _value_type(type_)
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "text"
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return "number"
    if pa.types.is_boolean(type_):
        return "truth"
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return "time"
    return None


def _value_type(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def filterable(schema: pa.Schema) -> dict[str, Kind]:
    """The columns that conditions may name, and how their values are compared."""
    kinds = {field.name: kind_of(field.type) for field in schema if field.name != VECTOR}
    return {name: kind for name, kind in kinds.items() if kind}


def where(conditions: Sequence[Condition], schema: pa.Schema) -> str | None:
    """All conditions, as a store's `where`; None for none.

    Raises:
        RequestError: a column that is not there, an operator that its type does not have, or a
            value that is not of it.

    Example:
        >>> fields = pa.schema([("label", pa.string()), ("lat", pa.float64())])
        >>> where([Condition("label", "=", "it's"), Condition("lat", ">=", "-3")], fields)
        '("label" = \\'it\\'\\'s\\') AND ("lat" >= -3)'
    """
    return " AND ".join(f"({_sql(one, schema)})" for one in conditions) or None


def _sql(one: Condition, schema: pa.Schema) -> str:
    kinds = filterable(schema)
    kind = kinds.get(one.column)
    if kind is None:
        known = ", ".join(kinds) or "none"
        raise RequestError(422, f"no column {one.column!r} to filter by; columns: {known}")
    if one.operator not in OPERATORS[kind]:
        raise RequestError(
            422,
            f"column {one.column!r}: expected an operator of {', '.join(OPERATORS[kind])}; "
            f"found {one.operator!r}",
        )
    column = '"' + one.column.replace('"', '""') + '"'
    if one.operator in _NULLS:
        return f"{column} IS {'NOT ' if 'not' in one.operator else ''}NULL"
    if kind == "time":
        type_ = _value_type(schema.field(one.column).type)
        try:
            return times.comparison(column, one.operator, str(one.value), type_)
        except ValueError as error:
            raise _wrong(one, str(error)) from None
    value = _literal(one, kind)
    if one.operator == "contains":
        return f"strpos(lower({column}), lower({value})) > 0"
    if one.operator == "starts with":
        return f"starts_with({column}, {value})"
    return f"{column} {one.operator} {value}"


def _literal(one: Condition, kind: Kind) -> str:
    value = one.value
    if kind == "text":
        if isinstance(value, str) and _is_utf8(value):
            # Doubling quotes is all the escaping that a SQL string needs.
            return "'" + value.replace("'", "''") + "'"
        raise _wrong(one, "a text")
    if kind == "truth":
        text = str(value).lower()
        if text in ("true", "false"):
            return text
        raise _wrong(one, "true or false")
    return _number(one)


def _number(one: Condition) -> str:
    value = one.value
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise _wrong(one, "a number") from None
    if isinstance(value, bool) or value is None:
        raise _wrong(one, "a number")
    if isinstance(value, int):
        if abs(value) <= _LARGEST:
            return str(value)
        value = float(value) if abs(value) < 2**1000 else math.inf
    if not math.isfinite(value):
        raise _wrong(one, "a finite number")
    return repr(value)


def _wrong(one: Condition, expected: str) -> RequestError:
    found = repr(one.value)
    found = found if len(found) <= 80 else f"{found[:79]}…"
    return RequestError(422, f"column {one.column!r}: expected {expected}, found {found}")


def _is_utf8(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() == text
