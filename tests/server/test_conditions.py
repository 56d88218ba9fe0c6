"""Untrusted conditions select the right rows and never become SQL."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rsicd_embed.errors import RequestError
from rsicd_embed.server.conditions import OPERATORS, Condition, filterable, where
from rsicd_embed.stores.filters import matching

ODD = 'a "column"; DROP'
TABLE = pa.table(
    {
        "Label": ["port", "it's", None, "Port'", "%", "\\", "é木", ""],
        ODD: pa.array([0, 1, -5, None, 2**62, 7, 8, 9], pa.int64()),
        "share": [0.5, -1.0, None, 1e300, float("nan"), 0.0, 2.0, 3.0],
        "flag": [True, False, None, True, True, True, False, False],
        "at": pa.array([dt.datetime(2020, 1, i + 1) for i in range(8)], pa.timestamp("us", "UTC")),
        "day": pa.array([dt.date(2020, 1, i + 1) for i in range(8)]),
        "captions": [["a"]] * 8,
    }
)


def rows(*conditions: Condition) -> list[int]:
    text = where(conditions, TABLE.schema)
    assert text is not None
    return [i for i, matches in enumerate(matching(TABLE, text)) if matches]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (("Label", "=", "it's"), [1]),
        (("Label", "!=", "port"), [1, 3, 4, 5, 6, 7]),
        (("Label", "contains", "PORT"), [0, 3]),
        (("Label", "contains", "%"), [4]),
        (("Label", "contains", "\\"), [5]),
        (("Label", "starts with", "é"), [6]),
        (("Label", "is empty", None), [2]),
        (("Label", "is not empty", None), [0, 1, 3, 4, 5, 6, 7]),
        ((ODD, "=", 2**62), [4]),
        ((ODD, "<", "0"), [2]),
        ((ODD, ">=", 7.5), [4, 6, 7]),
        (("share", ">", "1e299"), [3, 4]),
        (("share", "<=", -1), [1]),
        (("flag", "=", "False"), [1, 6, 7]),
        (("at", ">=", "2020-01-07"), [6, 7]),
        (("at", "<", "2020-01-01T12:00:00"), [0]),
        (("at", "=", "2020-01-02T01:00:00+01:00"), [1]),
        (("day", "=", "2020-01-03"), [2]),
    ],
)
def test_conditions_match_the_expected_rows(
    condition: tuple[str, str, Any], expected: list[int]
) -> None:
    assert rows(Condition(*condition)) == expected


def test_conditions_are_joined_with_and() -> None:
    assert rows(Condition("flag", "=", True), Condition("Label", "contains", "port")) == [0, 3]
    assert where([], TABLE.schema) is None


@given(st.text(max_size=30))
@example("' OR 1=1 --")
@example("\0")
@settings(max_examples=150)
def test_any_text_is_only_a_value(text: str) -> None:
    table = pa.table({"Label": [text, text + "x", "y" + text]})
    for operator, expected in (("=", [True, False, False]), ("starts with", None)):
        sql = where([Condition("Label", operator, text)], table.schema)
        assert sql is not None
        mask = matching(table, sql).tolist()
        assert mask == (expected or [True, True, ("y" + text).startswith(text)])


VALUES = st.one_of(
    st.text(max_size=9), st.integers(), st.floats(), st.booleans(), st.none(), st.just("1e999")
)


@given(
    st.sampled_from([*TABLE.column_names, "vector", "nothing", ""]) | st.text(max_size=5),
    st.sampled_from(sorted({operator for group in OPERATORS.values() for operator in group}))
    | st.text(),
    VALUES,
)
@settings(max_examples=300)
def test_any_condition_is_refused_or_valid(column: str, operator: str, value: Any) -> None:
    try:
        text = where([Condition(column, operator, value)], TABLE.schema)
    except RequestError as error:
        assert error.status == 422
        assert "\n" not in str(error)
        return
    assert text is not None
    assert column in filterable(TABLE.schema)
    assert len(matching(TABLE, text)) == len(TABLE)
