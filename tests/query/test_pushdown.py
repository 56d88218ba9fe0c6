"""A query only reads the columns that it uses and the rows that it may use."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed.errors import FilterError
from rsicd_embed.query.run import run
from rsicd_embed.stores.base import VectorStore, open_store

from .conftest import MADE_BY, RecordedStore, Words, table


def scans(query: str, store: VectorStore) -> list[tuple[list[str], str | None]]:
    """The columns and the condition of each scan of the store."""
    recorded = RecordedStore(store)
    rsicd_embed.sql(query, recorded, Words())  # type: ignore[arg-type]
    return [(sorted(columns), where) for columns, where in recorded.scans]


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("SELECT id FROM images", ["id"]),
        ("SELECT count(*) FROM images", ["id"]),
        ("SELECT label, avg(width) FROM images GROUP BY label ORDER BY max(at)", "at label width"),
        ("SELECT id FROM (SELECT *, similarity('a') AS s FROM images)", ["id"]),
        ("SELECT id FROM images WHERE similarity('a') > 0", "id vector"),
        ("SELECT count(*) FROM images ORDER BY max(similarity('a'))", ["vector"]),
        ("SELECT vector FROM images", ["vector"]),
        ("SELECT label FROM images WHERE false", None),
        ("SELECT 1", None),
        ("SELECT a.id FROM images a JOIN images b ON a.id = b.label", "id label"),
        ("SELECT id FROM images WHERE width > (SELECT avg(similarity('a')) FROM images)",
         "id vector width"),
    ],
)  # fmt: skip
def test_columns(exact: VectorStore, query: str, columns: str | list[str] | None) -> None:
    expected = columns.split() if isinstance(columns, str) else columns
    assert scans(query, exact) == ([(expected, None)] if expected else [])


@pytest.mark.parametrize(
    ("condition", "pushed"),
    [
        ("width > 3", '("width" > 3)'),
        ("WIDTH <> 3 AND (label = 'it''s')", '("width" != 3) AND ("label" = \'it\'\'s\')'),
        ("\"Night\" AND NOT \"Night\"", '"Night" AND (NOT "Night")'),
        ("similarity('a') > 0.5 AND width IN (1, -2)", '("width" IN (1, -2))'),
        ("width NOT IN (1) OR cloud NOT BETWEEN 0.5 AND 1e20",
         '(("width" NOT IN (1)) OR ("cloud" NOT BETWEEN 0.5 AND 1e+20))'),
        ("label LIKE 'p%' AND id NOT ILIKE '_/%'",
         '("label" like \'p%\') AND ("id" not ilike \'_/%\')'),
        ("label IS NULL OR \"Night\" IS NOT TRUE", '(("label" IS NULL) OR ("Night" IS NOT TRUE))'),
        ("array_has(captions, 'a port') AND lower(label) = 'port'",
         '(array_has("captions", \'a port\')) AND ((lower("label")) = \'port\')'),
        ("label IS DISTINCT FROM 'port'", '("label" IS DISTINCT FROM \'port\')'),
        ("width = 1 + 1 AND cloud > 0", '("cloud" > 0)'),
        ("random() > 2 AND at > now()", None),
        ("10 / (width + 1) > 3 AND cast(width AS DOUBLE) > 3", None),
        ("vector[1] > 0", None),
        ("width > 3 OR similarity('a') > 0.5", None),
        ("width > (SELECT 3)", None),
        ("label = 'TableScan: images'", None),  # looks like another scan in the display
    ],
)  # fmt: skip
def test_conditions(exact: VectorStore, condition: str, pushed: str | None) -> None:
    ((_, where),) = scans(f"SELECT id FROM images WHERE {condition}", exact)
    assert where == pushed
    with_it = rsicd_embed.sql(f"SELECT id FROM images WHERE {condition}", exact, Words())
    without = rsicd_embed.sql(f"SELECT id FROM images i WHERE {condition}", exact, Words())
    assert with_it.equals(without)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT a.id FROM images a JOIN images b ON a.id = b.id WHERE a.width > 3",
        "SELECT id FROM images WHERE width > 3 AND id IN (SELECT id FROM images)",
        "SELECT id FROM images WHERE width > 3 UNION ALL SELECT id FROM images",
        "SELECT count(*) FROM images HAVING max(width) > 3",
        "SELECT (SELECT count(*) FROM images) AS n FROM "
        "(SELECT 1 FROM images WHERE width > 3 LIMIT 0)",
        "SELECT id FROM (SELECT * FROM images LIMIT 5) WHERE width > 3",
        "SELECT id, count(*) FILTER (WHERE width > 3) FROM images GROUP BY id",
    ],
)
def test_conditions_on_some_rows_are_not_pushed_down(exact: VectorStore, query: str) -> None:
    assert {where for _, where in scans(query, exact)} <= {None}


def test_one_state_for_all_scans(exact: VectorStore) -> None:
    """A query that needs the table twice reads the store once."""
    query = (
        "SELECT count(*) FROM images a JOIN images b ON a.id = b.id "
        "WHERE a.width > (SELECT avg(width) FROM images)"
    )
    assert scans(query, exact) == [(["id", "width"], None)]


def test_one_state_for_a_repeated_scan(exact: VectorStore) -> None:
    query = (
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n, images "
        "WHERE i < 4 AND id = '2/2') SELECT count(*) FROM n"
    )
    assert scans(query, exact) == [(["id"], None)]


def test_limit_stops_reading(exact: VectorStore) -> None:
    seen = []

    def scan(columns: list[str], where: str | None = None) -> pa.RecordBatchReader:
        def batches() -> object:
            for start in range(0, 700, 10):
                seen.append(start)
                yield from table().slice(start, 10).select(columns).to_batches()

        return pa.RecordBatchReader.from_batches(table().select(columns).schema, batches())

    class Slow(RecordedStore):
        pass

    slow = Slow(exact)
    slow.scan = scan  # type: ignore[method-assign]
    result = rsicd_embed.sql("SELECT id FROM images LIMIT 15", slow)  # type: ignore[arg-type]
    assert result.num_rows == 15
    assert len(seen) < 8
    with run("SELECT id FROM images", slow, Words) as reader:  # type: ignore[arg-type]
        seen.clear()
        next(iter(reader))
    assert len(seen) < 8


def test_store_with_less_sql(exact: VectorStore) -> None:
    """DataFusion applies the conditions that the store refuses."""

    class Poor(RecordedStore):
        def scan(self, columns: list[str] | None = None, where: str | None = None) -> object:
            if where:
                raise FilterError("not here")
            return super().scan(columns)

    result = rsicd_embed.sql("SELECT id FROM images WHERE width > 250", Poor(exact))  # type: ignore[arg-type]
    assert result.num_rows == exact.scan(["id"], "width > 250").read_all().num_rows > 0


def test_nan_is_treated_as_in_where(tmp_path: Path) -> None:
    rows = [row | {"cloud": value} for row, value in zip(
        table(5).to_pylist(), [math.nan, math.inf, -math.inf, 0.0, None], strict=True)]  # fmt: skip
    with open_store(f"exact:{tmp_path / 'store'}", MADE_BY) as store:
        store.upsert([pa.RecordBatch.from_pylist(rows, table(5).schema)])
        for where in ("cloud > 1", "cloud = cloud", "NOT cloud < 1", "cloud <> 0", "isnan(cloud)"):
            result = rsicd_embed.sql(f"SELECT id FROM images i WHERE {where}", store)
            assert (
                result["id"].to_pylist() == store.scan(["id"], where).read_all()["id"].to_pylist()
            )
