"""Random SQL conditions, each with a Python function that evaluates it for a row.

Conditions are true, false, or None for unknown, as in SQL; NaN is larger than all other floats and
equal to itself, as in DataFusion.
"""

from __future__ import annotations

import datetime as dt
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import pyarrow as pa

Row = Mapping[str, Any]
Truth = bool | None

_GEO = pa.struct(
    [
        ("cloud", pa.int64()),
        ("place", pa.string()),
        ("inner", pa.struct([("x", pa.float64()), ("on", pa.timestamp("us"))])),
    ]
)
_SAMPLES: dict[pa.DataType, tuple[Any, ...]] = {
    pa.int64(): (-3, 0, 1, 5, 7, 2**40),
    pa.float64(): (-1.5, 0.0, 2.0, 7.0, math.nan, math.inf),
    pa.string(): ("", "a", "port", "farmer's field", "é", "%"),
    pa.bool_(): (True, False),
    pa.timestamp("us"): tuple(dt.datetime(year, 1, 2, 3, 4, 5) for year in (1950, 1970, 2020)),
}
COLUMNS: dict[str, pa.DataType] = {
    "n": pa.int64(),
    "f": pa.float64(),
    "s": pa.string(),
    "flag": pa.bool_(),
    "at": pa.timestamp("us"),
    "geo": _GEO,
    "tags": pa.list_(pa.string()),
    "objects": pa.list_(_GEO),
}
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Path:
    """An operand of a condition: its SQL, its type, and its value in a row."""

    sql: str
    kind: pa.DataType
    value: Callable[[Row], Any]


@dataclass(frozen=True)
class RandomCondition:
    """A condition in SQL, and its evaluation for a row."""

    sql: str
    accepts: Callable[[Row], Truth]


def sample(random: Random, kind: pa.DataType) -> Any:
    """A random value for one of `COLUMNS`; each value and nested value is null with p = 1/4."""
    if random.random() < 0.25:
        return None
    if pa.types.is_struct(kind):
        return {field.name: sample(random, field.type) for field in kind}
    if pa.types.is_list(kind):
        return [sample(random, kind.value_type) for _ in range(random.randint(0, 3))]
    return random.choice(_SAMPLES[kind])


def random_condition(random: Random, depth: int = 2) -> RandomCondition:
    """A random condition on `COLUMNS` with up to `depth` levels of AND, OR and NOT."""
    shape = random.choice(("simple", "simple", "not", "and", "or")) if depth else "simple"
    if shape == "simple":
        return _simple(random)
    first = random_condition(random, depth - 1)
    if shape == "not":
        return RandomCondition(f"NOT ({first.sql})", lambda row: _not(first.accepts(row)))
    second = random_condition(random, depth - 1)
    dominant = shape == "or"
    return RandomCondition(
        f"({first.sql}) {shape.upper()} ({second.sql})",
        lambda row: _joined((first.accepts(row), second.accepts(row)), dominant),
    )


def random_path(random: Random, kind: pa.DataType | None = None) -> Path:
    """A random operand (of a type): a column, or a field of an object or first list item."""
    return random.choice([path for path in PATHS if kind in (None, path.kind)])


def _paths(sql: str, kind: pa.DataType, value: Callable[[Row], Any]) -> list[Path]:
    """All operands within a value, including itself."""
    paths = [Path(sql, kind, value)]
    if pa.types.is_struct(kind):
        for field in kind:
            inside = _field(value, field.name)
            paths += _paths(f"{sql}['{field.name}']", field.type, inside)
    if pa.types.is_list(kind):
        paths += _paths(
            f"{sql}[1]", kind.value_type, lambda row: next(iter(value(row) or ()), None)
        )
    return paths


def _field(value: Callable[[Row], Any], name: str) -> Callable[[Row], Any]:
    return lambda row: (value(row) or {}).get(name)


PATHS = [
    path
    for name, kind in COLUMNS.items()
    for path in _paths(name, kind, lambda row, name=name: row.get(name))  # type: ignore[misc]
]


def _simple(random: Random) -> RandomCondition:
    path = random_path(random)
    if path.kind not in _SAMPLES or random.random() < 0.2:
        return _null_test(path, negated=random.random() < 0.5)
    if path.kind == pa.bool_():
        return _truth_test(random, path)
    value = path.value
    if path.kind == pa.string() and random.random() < 0.2:
        return RandomCondition(
            f"{path.sql} LIKE 'p%'", _unless_null(value, lambda text: text.startswith("p"))
        )
    shape = random.choice(("compare", "compare", "between", "in"))
    if shape == "compare":
        name, literal = random.choice(list(_OPERATORS)), _literal(random, path.kind)
        compare = _OPERATORS[name]
        return RandomCondition(
            f"{path.sql} {name} {_shown(literal)}",
            _unless_null(value, lambda x: compare(_ordered(x), _ordered(literal))),
        )
    negated = random.random() < 0.3
    word = "NOT " if negated else ""
    if shape == "between":
        low, high = _literal(random, path.kind), _literal(random, path.kind)
        return RandomCondition(
            f"{path.sql} {word}BETWEEN {_shown(low)} AND {_shown(high)}",
            _unless_null(
                value,
                lambda x: (_ordered(low) <= _ordered(x) <= _ordered(high)) is not negated,
            ),
        )
    literals = [_literal(random, path.kind) for _ in range(random.randint(1, 4))]
    members = [_ordered(literal) for literal in literals]
    return RandomCondition(
        f"{path.sql} {word}IN ({', '.join(map(_shown, literals))})",
        _unless_null(value, lambda x: (_ordered(x) in members) is not negated),
    )


def _null_test(path: Path, *, negated: bool) -> RandomCondition:
    return RandomCondition(
        f"{path.sql} IS {'NOT ' if negated else ''}NULL",
        lambda row: (path.value(row) is None) is not negated,
    )


def _truth_test(random: Random, path: Path) -> RandomCondition:
    accepted: tuple[Truth, ...]
    suffix, accepted = random.choice(
        (
            ("", ()),
            (" IS TRUE", (True,)),
            (" IS FALSE", (False,)),
            (" IS NOT TRUE", (False, None)),
            (" IS NOT FALSE", (True, None)),
        )
    )
    if not suffix:
        return RandomCondition(path.sql, path.value)
    return RandomCondition(path.sql + suffix, lambda row: path.value(row) in accepted)


def _literal(random: Random, kind: pa.DataType) -> Any:
    return random.choice([x for x in _SAMPLES[kind] if x == x and x != math.inf])


def _shown(literal: Any) -> str:
    if isinstance(literal, str):
        return "'" + literal.replace("'", "''") + "'"
    return f"timestamp '{literal}'" if isinstance(literal, dt.datetime) else repr(literal)


def _ordered(value: Any) -> Any:
    """A sort key with the order of SQL."""
    if isinstance(value, float):
        return (math.isnan(value), 0.0 if math.isnan(value) else value)
    return value


def _unless_null(
    value: Callable[[Row], Any], test: Callable[[Any], bool]
) -> Callable[[Row], Truth]:
    def accepts(row: Row) -> Truth:
        x = value(row)
        return None if x is None else test(x)

    return accepts


def _not(truth: Truth) -> Truth:
    return None if truth is None else not truth


def _joined(truths: tuple[Truth, Truth], dominant: bool) -> Truth:
    """OR if True dominates, AND if False does."""
    if dominant in truths:
        return dominant
    return None if None in truths else not dominant
