"""Random column types, including nested and unusual ones, and random values of them.

All functions use a `random.Random`: a seeded one is reproducible, and one of Hypothesis
(`st.randoms()`) can be shrunk.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

_DEPTH = 3
_NULLS = 0.3  # share of nulls among values, at each depth
_EPOCH = dt.datetime(1970, 1, 1)
_FIELDS = ("a", "b", "A", "eo:cloud", "x.y", "it's", "é", "")
_FLOATS = (0.0, -0.0, 1.5, -2.0, 7.0, float("nan"), float("inf"))
_TEXTS = ("", "a", "b", "port", "it's", "é\n", "木" * 5)
_LEAVES: tuple[pa.DataType, ...] = (
    pa.int8(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.bool_(),
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.binary(),
    pa.large_binary(),
    pa.binary(3),
    pa.decimal128(12, 2),
    pa.decimal256(40, 2),
    pa.date32(),
    pa.date64(),
    pa.time32("s"),
    pa.time32("ms"),
    pa.time64("us"),
    pa.time64("ns"),
    pa.duration("s"),
    pa.duration("us"),
    pa.timestamp("s"),
    pa.timestamp("ms"),
    pa.timestamp("us"),
    pa.timestamp("ns"),
    pa.timestamp("us", "UTC"),
    pa.timestamp("ms", "+02:00"),
    pa.null(),
)


def random_type(random: Random, depth: int = _DEPTH) -> pa.DataType:
    """A random type that stores accept, nested up to `depth` times."""
    kind = (
        random.choice(("leaf", "object", "list", "large list", "fixed list")) if depth else "leaf"
    )
    if kind == "leaf":
        return random.choice(_LEAVES)
    if kind == "object":
        names = random.sample(_FIELDS, random.randint(0, 3))
        return pa.struct([(name, random_type(random, depth - 1)) for name in names])
    value = random_type(random, depth - 1)
    if kind == "fixed list":
        return pa.list_(value, random.randint(0, 3))
    return pa.large_list(value) if kind == "large list" else pa.list_(value)


def random_value(random: Random, kind: pa.DataType) -> Any:
    """A random value of a type, often null, as pyarrow converts it to Python."""
    if pt.is_null(kind) or random.random() < _NULLS:
        return None
    if pt.is_struct(kind):
        return {field.name: random_value(random, field.type) for field in kind}
    if pt.is_fixed_size_list(kind):
        return [random_value(random, kind.value_type) for _ in range(kind.list_size)]
    if pt.is_list(kind) or pt.is_large_list(kind):
        return [random_value(random, kind.value_type) for _ in range(random.randint(0, 3))]
    return next(draw(random, kind) for accepts, draw in _DRAWS if accepts(kind))


def random_column(random: Random, kind: pa.DataType, rows: int) -> pa.Array:
    """A column of random values."""
    return pa.array([random_value(random, kind) for _ in range(rows)], kind)


def as_stored(value: Any, kind: pa.DataType) -> Any:
    """The value as read from a column of type `kind`, which may have other fields."""
    if value is None:
        return None
    if pt.is_struct(kind):
        return {field.name: as_stored(value.get(field.name), field.type) for field in kind}
    if pt.is_list(kind) or pt.is_fixed_size_list(kind):
        return [as_stored(item, kind.value_type) for item in value]
    return value


def _integer(random: Random, kind: pa.DataType) -> int:
    lowest = 0 if pt.is_unsigned_integer(kind) else -(2 ** (kind.bit_width - 1))
    return random.choice((0, 1, 3, 7, max(lowest, -2), lowest, lowest + 2**kind.bit_width - 1))


def _time(random: Random, kind: pa.DataType) -> dt.time:
    fraction = 0 if kind == pa.time32("s") else random.choice((0, 1000, 999_000))
    return dt.time(random.randint(0, 23), 59, random.randint(0, 59), fraction)


def _timestamp(random: Random, kind: pa.DataType) -> Any:
    days = random.choice((0, 1, 20_000, -40_000))
    value = _EPOCH + dt.timedelta(days, milliseconds=0 if kind.unit == "s" else days)
    if kind.tz is None:
        return value
    # Pyarrow returns times in the zone of the type, so convert the value back and forth.
    return pa.scalar(value.replace(tzinfo=dt.UTC), kind).as_py()


_DRAWS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Random, pa.DataType], Any]], ...] = (
    (pt.is_integer, _integer),
    (pt.is_floating, lambda random, kind: random.choice(_FLOATS)),
    (pt.is_boolean, lambda random, kind: random.random() < 0.5),
    (pt.is_fixed_size_binary, lambda random, kind: random.choice((b"\0\xff\0", b"abc"))),
    (pt.is_decimal, lambda random, kind: Decimal(random.choice(("0.00", "1.50", "-99.99")))),
    (pt.is_date, lambda random, kind: dt.date(1970, 1, 1) + dt.timedelta(random.randint(-9, 9))),
    (pt.is_time, _time),
    (pt.is_duration, lambda random, kind: dt.timedelta(random.randint(-2, 2), 3)),
    (pt.is_timestamp, _timestamp),
    (
        lambda kind: kind in (pa.binary(), pa.large_binary()),
        lambda random, kind: random.choice((b"", b"\0", b"abc")),
    ),
    (lambda kind: True, lambda random, kind: random.choice(_TEXTS)),
)
