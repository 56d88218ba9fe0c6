"""Conditions that need no SQL engine."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.records import with_ids
from rsicd_embed.stores.filters import matching

IDS = ["a", "it's", "''", "', 'b", "b", "", "a) OR (1=1", "木/é.jpg", "a\nb", "\\", "A", "x" * 5000]
TABLE = pa.table({"id": IDS, "width": range(len(IDS))})


@pytest.mark.parametrize(
    "ids", [*([id_] for id_ in IDS), IDS, ["b", "no such id", "a"], ["no such id"], ["b", "b"]]
)
def test_ids_are_looked_up_as_by_sql(ids: list[str]) -> None:
    expected = matching(TABLE, f"({with_ids(ids)})")
    found = matching(TABLE, with_ids(ids))
    assert found.dtype == bool
    assert np.array_equal(found, expected)
    assert found.tolist() == [id_ in ids for id_ in IDS]


def test_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datafusion", None)  # not needed
    table = pa.concat_tables([TABLE, TABLE.slice(0, 2)])
    assert np.flatnonzero(matching(table, with_ids(["it's"]))).tolist() == [1, len(IDS) + 1]


@pytest.mark.parametrize(
    "where", ["id IN ('a', 'b') AND width > 0", "id IN ('a') OR id IN ('b')", "id IN ('a', 'a''b')"]
)
def test_other_conditions_are_left_to_sql(where: str) -> None:
    assert np.array_equal(matching(TABLE, where), matching(TABLE, f"({where})"))
