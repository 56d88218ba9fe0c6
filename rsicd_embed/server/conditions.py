"""Conditions on attributes from anyone, as a `where`: nothing of what is given becomes SQL.

A column must be one of the store's, an operator one of those that its type has; a value is parsed
as that type and written anew as a literal.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

import pyarrow as pa

from rsicd_embed.errors import RequestError
from rsicd_embed.records import VECTOR

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
            return time_comparison(column, one.operator, str(one.value), type_)
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


_DAY = dt.timedelta(days=1)
_EXPECTED = (
    "a time such as 2024-05-17, 2024-05-17T12:30:00 or 2024-05-17T12:30:00+02:00, "
    "to the microsecond"
)
# What 64 bits of nanoseconds can represent. A literal beyond cannot be compared with such columns.
_NANOSECOND_RANGE = (
    dt.datetime(1677, 9, 21, 0, 12, 44, tzinfo=dt.UTC),
    dt.datetime(2262, 4, 11, 23, 47, 16, tzinfo=dt.UTC),
)


def time_comparison(column: str, operator: str, value: str, type_: pa.DataType) -> str:
    """A condition on a column of times.

    Args:
        column: as it is written in SQL.
        operator: one of =, !=, <, <=, >, >=.
        value: a date or a time in ISO 8601, with or without an offset.
        type_: the column's: a date or a timestamp.

    Raises:
        ValueError: what was expected of the value.

    Example:
        >>> time_comparison("day", ">=", "2024-05-17", pa.timestamp("s"))
        "day >= arrow_cast('2024-05-17T00:00:00.000000', 'Timestamp(Microsecond, None)')"
    """
    first, after = _interval(value, zone_of(type_))
    begin, end = _time_literal(first, type_), _time_literal(after, type_)
    if pa.types.is_date(type_):
        # Compared as dates, times of day would be cut off; as nanoseconds, far dates overflow.
        column = f"arrow_cast({column}, 'Timestamp(Microsecond, None)')"
    if first == after:
        return f"{column} {operator} {begin}"
    if operator == "=":
        return f"{column} >= {begin} AND {column} < {end}"
    if operator == "!=":
        return f"{column} < {begin} OR {column} >= {end}"
    if operator in ("<", ">="):
        return f"{column} {operator} {begin}"
    return f"{column} {'<' if operator == '<=' else '>='} {end}"


def zone_of(type_: pa.DataType) -> dt.tzinfo:
    """The zone in which a column's values are shown.

    Raises:
        ValueError: this machine does not know the zone.
    """
    name = getattr(type_, "tz", None)
    if name is None:
        return dt.UTC
    try:
        return dt.datetime.fromisoformat(f"2000-01-01T00:00{name}").tzinfo or dt.UTC
    except ValueError:
        pass
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"a column in a known time zone, not {name!r}") from None


def _interval(value: str, zone: dt.tzinfo) -> tuple[dt.datetime, dt.datetime]:
    """The first instant that a value means, and the first after it; the same for an instant."""
    try:
        try:
            day = dt.date.fromisoformat(value)
        except ValueError:
            moment = dt.datetime.fromisoformat(value)
            if re.search(r"[.,]\d{6}0*[1-9]", value):  # which Python drops
                raise
            instant = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(dt.UTC)
            return instant, instant
        midnight = dt.datetime(day.year, day.month, day.day, tzinfo=zone)
        return midnight.astimezone(dt.UTC), (midnight + _DAY).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise ValueError(_EXPECTED) from None


def _time_literal(instant: dt.datetime, type_: pa.DataType) -> str:
    if getattr(type_, "unit", None) == "ns":
        least, most = _NANOSECOND_RANGE
        instant = min(max(instant, least), most)
    text = instant.replace(tzinfo=None).isoformat(timespec="microseconds")
    # Typed in full: SQL's TIMESTAMP drops the offset, then is read in the column's zone.
    if getattr(type_, "tz", None) is None:
        return f"arrow_cast('{text}', 'Timestamp(Microsecond, None)')"
    return f"arrow_cast('{text}Z', 'Timestamp(Microsecond, Some(\"UTC\"))')"
