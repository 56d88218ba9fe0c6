"""Filters on dates and times select the right rows for any time zone, in every store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsicd_embed.errors import RequestError
from rsicd_embed.server.conditions import Condition, where
from rsicd_embed.stores.base import open_store
from rsicd_embed.stores.filters import matching
from rsicd_embed.testing.stores import MADE_BY, batch, unit
from tests.helpers import SCHEMES

# 18:00, 21:00, 00:00, 03:00, 06:00 and 09:00 UTC. The day begins with row 1 in India (23:30 and
# 02:30), with row 2 in UTC, and with row 4 in New York (22:00 and 01:00).
MOMENTS = [dt.datetime(2020, 1, 1, 18) + dt.timedelta(hours=3 * i) for i in range(6)]
ZONES = {"naive": None, "utc": "UTC", "india": "+05:30", "york": "America/New_York"}
ROWS = batch(
    [str(i) for i in range(6)],
    unit(6),
    **{name: pa.array(MOMENTS, pa.timestamp("us", zone)) for name, zone in ZONES.items()},
    seconds=pa.array(MOMENTS, pa.timestamp("s", "+05:30")),
    nanos=pa.array(MOMENTS, pa.timestamp("ns", "+05:30")),
    day=pa.array([moment.date() for moment in MOMENTS], pa.date32()),
    day_ms=pa.array([moment.date() for moment in MOMENTS], pa.date64()),
)
Matching = Callable[[str, str, str], list[int]]


@pytest.fixture(scope="module", params=SCHEMES)
def match(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that returns the numbers of the rows that meet a condition, in each store."""
    uri = f"{request.param}:{tmp_path_factory.mktemp('times') / 'store'}"
    with open_store(uri, MADE_BY) as store:
        store.upsert([ROWS])

        def rows(column: str, operator: str, value: str) -> list[int]:
            text = where([Condition(column, operator, value)], store.schema)
            with store.scan(["id"], where=text) as reader:
                return sorted(int(id_) for id_ in reader.read_all()["id"].to_pylist())

        yield rows


ALL_ZONES = (*ZONES, "seconds", "nanos")


@pytest.mark.parametrize(
    "value",
    ["2020-01-02T00:00:00Z", "2020-01-02T05:30:00+05:30", "2020-01-01T19:00-05:00"],
)
@pytest.mark.parametrize("column", ALL_ZONES)
def test_value_with_offset_is_an_instant(match: Matching, column: str, value: str) -> None:
    assert match(column, "=", value) == [2]
    assert match(column, "!=", value) == [0, 1, 3, 4, 5]
    assert match(column, "<", value) == [0, 1]
    assert match(column, "<=", value) == [0, 1, 2]
    assert match(column, ">", value) == [3, 4, 5]
    assert match(column, ">=", value) == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("column", "first"),
    [("naive", 3), ("utc", 3), ("india", 2), ("seconds", 2), ("nanos", 2), ("york", 5)],
)
def test_value_without_offset_is_in_the_columns_zone(
    match: Matching, column: str, first: int
) -> None:
    assert match(column, ">=", "2020-01-02T02:31") == list(range(first, 6))
    assert match(column, "<", "2020-01-02T02:31") == list(range(first))


@pytest.mark.parametrize(
    ("column", "first"),
    [
        *(("naive", 2), ("utc", 2), ("india", 1), ("seconds", 1), ("nanos", 1), ("york", 4)),
        *(("day", 2), ("day_ms", 2)),
    ],
)
def test_date_is_a_whole_day(match: Matching, column: str, first: int) -> None:
    before, day = list(range(first)), list(range(first, 6))
    assert match(column, "=", "2020-01-02") == day
    assert match(column, "=", "2020-01-01") == before
    assert match(column, "!=", "2020-01-02") == before
    assert match(column, ">=", "2020-01-02") == day
    assert match(column, ">", "2020-01-01") == day
    assert match(column, "<=", "2020-01-01") == before
    assert match(column, "<", "2020-01-02") == before
    assert match(column, ">", "2020-01-02") == []
    assert match(column, "<=", "2020-01-02") == [*before, *day]


@pytest.mark.parametrize("column", ["day", "day_ms"])
def test_date_columns_are_midnights_in_utc(match: Matching, column: str) -> None:
    assert match(column, "<", "2020-01-02T12:00") == [0, 1, 2, 3, 4, 5]
    assert match(column, ">", "2020-01-01T12:00") == [2, 3, 4, 5]
    assert match(column, "=", "2020-01-02T05:30+05:30") == [2, 3, 4, 5]
    assert match(column, "=", "2020-01-02T05:30") == []


@pytest.mark.parametrize("column", [*ALL_ZONES, "day", "day_ms"])
def test_distant_times(match: Matching, column: str) -> None:
    for far in ("3000-01-01", "9998-12-31T23:59:59", "3000-01-01T00:00:00+14:00"):
        assert match(column, "<", far) == [0, 1, 2, 3, 4, 5]
        assert match(column, ">=", far) == []
    for early in ("0002-01-01", "1000-01-01T00:00:00Z"):
        assert match(column, ">", early) == [0, 1, 2, 3, 4, 5]


NONSENSE = ["", "yesterday", "2020-13-01", "2020-01-01T25:00", None, 5]
OUT_OF_RANGE = ["0001-01-01", "2020-01-01T00:00:00.123456789", "9999-12-31T23:00:00-05:00"]


@pytest.mark.parametrize("value", [*NONSENSE, *OUT_OF_RANGE])
def test_invalid_times_are_refused_with_examples(value: Any) -> None:
    schema = pa.schema([("at", pa.timestamp("us", "+05:30"))])
    if value == "9999-12-31":  # it ends in the year 10,000
        schema = pa.schema([("at", pa.timestamp("us"))])
    with pytest.raises(
        RequestError, match="column 'at': expected a time such as 2024-05-17"
    ) as got:
        where([Condition("at", "=", value)], schema)
    assert got.value.status == 422


def test_unknown_time_zone_is_named() -> None:
    schema = pa.schema([("at", pa.timestamp("us", "Mars/Olympus"))])
    with pytest.raises(RequestError, match="known time zone, not 'Mars/Olympus'"):
        where([Condition("at", "=", "2020-01-01")], schema)


OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda n: dt.timezone(dt.timedelta(minutes=n)))
INSTANTS = st.datetimes(dt.datetime(2019, 12, 31), dt.datetime(2020, 1, 3), timezones=OFFSETS)


@given(INSTANTS, st.integers(-14 * 60, 14 * 60), st.sampled_from(["s", "ms", "us", "ns"]))
@settings(max_examples=25)
def test_any_offset_and_time_zone(moment: dt.datetime, minutes: int, unit_: str) -> None:
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    zone = f"{sign}{hours:02}:{rest:02}"
    table = pa.table({"at": pa.array(MOMENTS, pa.timestamp(unit_, zone))})
    text = where([Condition("at", "<", moment.isoformat())], table.schema)
    assert text is not None
    expected = [other.replace(tzinfo=dt.UTC) < moment for other in MOMENTS]
    assert matching(table, text).tolist() == expected
