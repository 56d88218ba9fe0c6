"""Build a store's `where` from untrusted conditions, without copying any of their text into SQL.

A column must exist, and its type must have the operator. A value is parsed as the column's type and
written as a literal. Dates and times are compared as follows:

- A value with an offset is an instant, whatever the column's time zone.
- A value without an offset is in the column's time zone, which hits use too. Columns without a time
  zone and columns of dates are in UTC.
- A date is the whole day: `= 2024-05-17` matches every moment of it, and `<=` includes it.
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
from rsicd_embed.records import VECTOR, sql_literal, sql_name

Kind = Literal["text", "number", "truth", "time"]
Operator = Literal[
    "=", "!=", "<", "<=", ">", ">=", "contains", "starts with", "is empty", "is not empty"
]
Value = str | int | float | bool

_COMPARE: tuple[Operator, ...] = ("=", "!=", "<", "<=", ">", ">=")
_NULLS: tuple[Operator, ...] = ("is empty", "is not empty")
OPERATORS: dict[Kind, tuple[Operator, ...]] = {
    "text": ("=", "!=", "contains", "starts with", *_NULLS),
    "number": (*_COMPARE, *_NULLS),
    "truth": ("=", *_NULLS),
    "time": (*_COMPARE, *_NULLS),
}
# SQL reads larger literals as decimals or floats; no column contains 2**64.
_LARGEST = 2**63 - 1
_SHOWN_CHARS = 80

_DAY = dt.timedelta(days=1)
_EXPECTED_TIME = (
    "a time such as 2024-05-17, 2024-05-17T12:30:00 or 2024-05-17T12:30:00+02:00, "
    "to the microsecond"
)
# The range of 64-bit nanoseconds; columns of that unit cannot be compared with literals outside.
_NANOSECOND_RANGE = (
    dt.datetime(1677, 9, 21, 0, 12, 44, tzinfo=dt.UTC),
    dt.datetime(2262, 4, 11, 23, 47, 16, tzinfo=dt.UTC),
)


@dataclass(frozen=True)
class Condition:
    """`column operator value`; `is empty` and `is not empty` need no value."""

    column: str
    operator: str
    value: Value | None = None


def filterable(schema: pa.Schema) -> dict[str, Kind]:
    """The columns that conditions may use, and how their values are compared."""
    kinds = {field.name: _kind_of(field.type) for field in schema if field.name != VECTOR}
    return {name: kind for name, kind in kinds.items() if kind}


def _kind_of(type_: pa.DataType) -> Kind | None:
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


def where(conditions: Sequence[Condition], schema: pa.Schema) -> str | None:
    """Joins conditions with AND into a store's `where`; None without conditions.

    Raises:
        RequestError: 422: an unknown column, an operator that its type lacks, or a value of another
            type.

    Example:
        >>> fields = pa.schema([("label", pa.string()), ("lat", pa.float64())])
        >>> where([Condition("label", "=", "it's"), Condition("lat", ">=", "-3")], fields)
        '("label" = \\'it\\'\\'s\\') AND ("lat" >= -3)'
    """
    return " AND ".join(f"({_sql(condition, schema)})" for condition in conditions) or None


def _sql(condition: Condition, schema: pa.Schema) -> str:
    kinds = filterable(schema)
    kind = kinds.get(condition.column)
    if kind is None:
        known = ", ".join(kinds) or "none"
        raise RequestError(422, f"no column {condition.column!r} to filter by; columns: {known}")
    if condition.operator not in OPERATORS[kind]:
        raise RequestError(
            422,
            f"column {condition.column!r}: expected an operator of {', '.join(OPERATORS[kind])}; "
            f"found {condition.operator!r}",
        )
    column = sql_name(condition.column)
    if condition.operator in _NULLS:
        return f"{column} IS {'NOT ' if 'not' in condition.operator else ''}NULL"
    try:
        if kind == "time":
            type_ = _value_type(schema.field(condition.column).type)
            return time_comparison(column, condition.operator, str(condition.value), type_)
        literal = _literal(condition.value, kind)
    except ValueError as error:
        value = repr(condition.value)
        value = value if len(value) <= _SHOWN_CHARS else f"{value[: _SHOWN_CHARS - 1]}…"
        raise RequestError(
            422, f"column {condition.column!r}: expected {error}, found {value}"
        ) from None
    if condition.operator == "contains":
        return f"strpos(lower({column}), lower({literal})) > 0"
    if condition.operator == "starts with":
        return f"starts_with({column}, {literal})"
    return f"{column} {condition.operator} {literal}"


def _literal(value: Value | None, kind: Kind) -> str:
    """A SQL literal. Raises a ValueError that says what was expected."""
    if kind == "text":
        if not isinstance(value, str) or value.encode("utf-8", "replace").decode() != value:
            raise ValueError("a text")
        return sql_literal(value)
    if kind == "truth":
        text = str(value).lower()
        if text not in ("true", "false"):
            raise ValueError("true or false")
        return text
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise ValueError("a number") from None
    if isinstance(value, bool) or value is None:
        raise ValueError("a number")
    if isinstance(value, int):
        if abs(value) <= _LARGEST:
            return str(value)
        value = float(value) if abs(value) < 2**1000 else math.inf
    if not math.isfinite(value):
        raise ValueError("a finite number")
    return repr(value)


def time_comparison(column: str, operator: str, value: str, type_: pa.DataType) -> str:
    """Builds a condition on a column of dates or timestamps.

    Args:
        column: the column as quoted in SQL.
        operator: one of =, !=, <, <=, >, >=.
        value: a date or a time in ISO 8601, with or without an offset.
        type_: the column's type.

    Raises:
        ValueError: the value is not a time; the message says what was expected.

    Example:
        >>> time_comparison("day", ">=", "2024-05-17", pa.timestamp("s"))
        "day >= arrow_cast('2024-05-17T00:00:00.000000', 'Timestamp(Microsecond, None)')"
    """
    first, after = _interval(value, zone_of(type_))
    begin, end = _time_literal(first, type_), _time_literal(after, type_)
    if pa.types.is_date(type_):
        # Comparing as dates would cut off times of day, and as nanoseconds would overflow.
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
    """The time zone of a column's values, UTC by default.

    Raises:
        ValueError: the zone is unknown on this machine.
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
    """The first instant of a value, and the first after it; the same for an instant."""
    try:
        try:
            day = dt.date.fromisoformat(value)
        except ValueError:
            moment = dt.datetime.fromisoformat(value)
            if re.search(r"[.,]\d{6}0*[1-9]", value):  # digits that Python would drop
                raise
            instant = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(dt.UTC)
            return instant, instant
        midnight = dt.datetime(day.year, day.month, day.day, tzinfo=zone)
        return midnight.astimezone(dt.UTC), (midnight + _DAY).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise ValueError(_EXPECTED_TIME) from None


def _time_literal(instant: dt.datetime, type_: pa.DataType) -> str:
    if getattr(type_, "unit", None) == "ns":
        least, most = _NANOSECOND_RANGE
        instant = min(max(instant, least), most)
    text = instant.replace(tzinfo=None).isoformat(timespec="microseconds")
    # SQL's TIMESTAMP would drop the offset and use the column's zone, so the type is explicit.
    if getattr(type_, "tz", None) is None:
        return f"arrow_cast('{text}', 'Timestamp(Microsecond, None)')"
    return f"arrow_cast('{text}Z', 'Timestamp(Microsecond, Some(\"UTC\"))')"
