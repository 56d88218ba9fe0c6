"""Comparisons of date and timestamp columns with a value from anyone, as SQL.

- A value with an offset is an instant, whatever the column's zone.
- A value without an offset is in the column's zone, in which hits show it. Columns without a zone
  and columns of dates are taken as UTC.
- A date alone is the whole day: `= 2024-05-17` matches every moment of it, `<=` includes it.
"""

from __future__ import annotations

import datetime as dt
import re
from zoneinfo import ZoneInfo

import pyarrow as pa

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


def comparison(column: str, operator: str, value: str, type_: pa.DataType) -> str:
    """A condition on a column of times.

    Args:
        column: as it is written in SQL.
        operator: one of =, !=, <, <=, >, >=.
        value: a date or a time in ISO 8601, with or without an offset.
        type_: the column's: a date or a timestamp.

    Raises:
        ValueError: what was expected of the value.

    Example:
        >>> comparison("day", ">=", "2024-05-17", pa.timestamp("s"))
        "day >= arrow_cast('2024-05-17T00:00:00.000000', 'Timestamp(Microsecond, None)')"
    """
    first, after = _interval(value, zone_of(type_))
    begin, end = _literal(first, type_), _literal(after, type_)
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


def _literal(instant: dt.datetime, type_: pa.DataType) -> str:
    if getattr(type_, "unit", None) == "ns":
        least, most = _NANOSECOND_RANGE
        instant = min(max(instant, least), most)
    text = instant.replace(tzinfo=None).isoformat(timespec="microseconds")
    # Typed in full: SQL's TIMESTAMP drops the offset, then is read in the column's zone.
    if getattr(type_, "tz", None) is None:
        return f"arrow_cast('{text}', 'Timestamp(Microsecond, None)')"
    return f"arrow_cast('{text}Z', 'Timestamp(Microsecond, Some(\"UTC\"))')"
