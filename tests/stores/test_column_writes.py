"""Writing columns without touching vectors, in every store; LanceDB keeps its index and rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rsicd_embed.errors import FilterError, SchemaError, StoreError
from rsicd_embed.records import vector_matrix
from rsicd_embed.stores.base import AttributeWriter, RowMerger, VectorStore, open_store
from rsicd_embed.stores.lancedb import lance_columns, lance_index, lance_reader, lance_store
from rsicd_embed.stores.lancedb.lance_table import LanceLocation
from tests.helpers import SCHEMES

from .contract import MADE_BY, batch, stored, unit

ROWS = 2000
HALF = pa.schema([("half", pa.float64()), ("tags", pa.list_(pa.string()))])


@pytest.fixture(autouse=True)
def small_tables_have_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance_index, "INDEX_ROWS", 1000)
    monkeypatch.setattr(lance_reader, "CACHE_ROWS", 1000)
    monkeypatch.setattr(lance_store, "_QUERIES", 60)


@pytest.fixture(params=SCHEMES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    yield from filled(f"{request.param}:{tmp_path / 'store'}")


@pytest.fixture
def lance(tmp_path: Path) -> Iterator[VectorStore]:
    yield from filled(f"lancedb:{tmp_path / 'store'}")


def filled(uri: str) -> Iterator[VectorStore]:
    with open_store(uri, MADE_BY) as opened:
        names = [f"i{i:04}" for i in range(ROWS)]
        years, tags = list(range(ROWS)), [["a"] * (i % 3) for i in range(ROWS)]
        opened.upsert([batch(names, unit(ROWS), year=years, tags=tags)])
        opened.optimize()
        opened.tag("before")
        opened.delete(names[:3])
        opened.upsert([batch(["new"], unit(1, seed=9), year=[7])])
        yield opened


def halves(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Half of the first number of each vector, and tags from the ids."""
    half = pc.divide(vector_matrix(rows["vector"])[:, 0].astype(float), 2)
    tags = [[id_] if id_ > "i1" else None for id_ in rows["id"].to_pylist()]
    return pa.record_batch([half, pa.array(tags, HALF.field("tags").type)], HALF)


def half_of(row: dict[str, Any]) -> float:
    return float(np.frombuffer(row["vector"], np.float32)[0]) / 2


def raw(store: VectorStore) -> lancedb.table.LanceTable:
    folder = store.uri.partition(":")[2]
    return lancedb.connect(folder).open_table("images")


def row_ids(table: lancedb.table.LanceTable) -> dict[str, int]:
    rows = table.search().select(["id"]).with_row_id(True).to_arrow()
    return dict(zip(rows["id"].to_pylist(), rows["_rowid"].to_pylist(), strict=True))


def test_columns_are_added_and_replaced(store: VectorStore) -> None:
    before, index = stored(store), store.info().index
    queries = unit(20, seed=4)
    hits = store.search(queries, k=5).select(["query", "rank", "id", "score"])
    assert isinstance(store, AttributeWriter)
    for _ in range(2):
        store.rewrite_attributes(halves, HALF)
        after = stored(store)
        for id_, row in before.items():
            tags = [id_] if id_ > "i1" else None
            assert after[id_] == row | {"half": half_of(row), "tags": tags}
        assert store.search(queries, k=5).select(hits.column_names).equals(hits)
        assert store.info().index == index
    best = store.search(queries, k=5, where="half > 0")
    assert best["half"].to_pylist() == [after[id_]["half"] for id_ in best["id"].to_pylist()]
    assert "half" not in store.as_of("before").schema.names
    store.restore("before")
    assert "half" not in store.schema.names


@pytest.mark.parametrize("where", ["year BETWEEN 3 AND 9 OR id = 'new'", "year % 2 = 1"])
def test_columns_of_some_rows(store: VectorStore, where: str) -> None:
    """Few rows and many; the others keep their values, or have nulls in new columns."""
    before, queries = stored(store), unit(20, seed=4)
    hits = store.search(queries, k=5).select(["query", "rank", "id", "score"])
    chosen = set(store.scan(["id"], where).read_all()["id"].to_pylist())
    assert isinstance(store, AttributeWriter)
    seen: list[str] = []

    uris = pa.schema([*HALF, ("uri", pa.string())])

    def rewrite(rows: pa.RecordBatch) -> pa.RecordBatch:
        seen.extend(rows["id"].to_pylist())
        return halves(rows).append_column("uri", rows["id"])

    for _ in range(2):
        seen.clear()
        store.rewrite_attributes(rewrite, uris, where)
        assert sorted(seen) == sorted(chosen)
        after = stored(store)
        for id_, row in before.items():
            half, tags = (half_of(row), [id_] if id_ > "i1" else None)
            expected = {"half": half, "tags": tags, "uri": id_} if id_ in chosen else {"half": None}
            assert after[id_] == row | expected
        assert store.search(queries, k=5).select(hits.column_names).equals(hits)
    store.optimize()
    assert stored(store) == after
    store.rewrite_attributes(halves, pa.schema([("none", pa.int8())]), "year < -1")
    assert {row["none"] for row in stored(store).values()} == {None}
    with pytest.raises(FilterError, match="no column"):
        store.rewrite_attributes(halves, HALF, "unknown = 1")


def test_new_columns_appear_with_their_values(
    lance: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers see no column without its values, not even if a writer is killed."""
    merge, uri = lance_columns._merge, lance.uri
    columns = pa.schema([("one", pa.int64()), ("two", pa.string())])

    def rewrite(rows: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch([pa.array([1] * len(rows)), rows["id"]], columns)

    def look(location: LanceLocation, values: pa.Table) -> Any:
        with open_store(uri) as reader:
            assert reader.schema.equals(lance.schema) and "one" not in reader.schema.names
            assert set(reader.search(unit(1), k=1).column_names).isdisjoint(values.column_names[1:])
        return merge(location, values)

    raw(lance).add_columns(pa.schema([("_rsicd_embed_one", pa.float64())]))  # a writer was killed
    lance.upsert([batch(["later", "new"], unit(2, seed=8))])
    monkeypatch.setattr(lance_columns, "_merge", look)
    assert isinstance(lance, AttributeWriter)
    lance.rewrite_attributes(rewrite, columns)
    assert {(row["one"], row["two"]) for row in stored(lance).values()} == {
        (1, id_) for id_ in stored(lance)
    }
    assert raw(lance).schema.names == lance.schema.names


def test_merged_rows_keep_values(store: VectorStore) -> None:
    """Those of columns that the new rows lack, and those named unless they are null."""
    assert isinstance(store, RowMerger)
    store.rewrite_attributes(halves, HALF, "year < 6")  # type: ignore[attr-defined]
    before, vectors = stored(store), unit(3, seed=8)
    ids = ["i0004", "i1999", "later"]
    new = batch(ids, vectors, uri=["u"] * 3, year=[-1] * 3, half=[5.0] * 3)
    assert store.merge([new], keep=["half"]) == 3
    after, lacking = stored(store), {"sha256": None, "width": None, "height": None, "tags": None}
    for id_, vector, half in zip(ids, vectors, [before["i0004"]["half"], 5.0, 5.0], strict=True):
        given = {"id": id_, "uri": "u", "year": -1, "half": half, "vector": vector.tobytes()}
        assert after.pop(id_) == lacking | before.pop(id_, {}) | given
    assert after == before
    with pytest.raises(SchemaError, match="unit"):
        store.merge([batch(["i0004"], 2 * unit(1))])


def test_refusals(store: VectorStore) -> None:
    before = stored(store)
    assert isinstance(store, AttributeWriter)
    with pytest.raises(SchemaError, match="'year' has the type int64, expected string"):
        store.rewrite_attributes(halves, pa.schema([("year", pa.string())]))
    with pytest.raises(SchemaError, match="'sha256' cannot be replaced"):
        store.rewrite_attributes(halves, pa.schema([("sha256", pa.string())]))
    with pytest.raises(ZeroDivisionError):
        store.rewrite_attributes(lambda rows: 1 // 0, HALF)
    assert stored(store) == before


def test_rows_and_the_vector_index_stay(lance: VectorStore) -> None:
    table = raw(lance)
    rows, statistics = row_ids(table), table.index_stats("vector_idx")
    assert "IVF_SQ" in lance.info().index
    assert isinstance(lance, AttributeWriter)
    lance.rewrite_attributes(halves, HALF)
    table = raw(lance)
    assert row_ids(table) == rows
    assert table.index_stats("vector_idx") == statistics
    assert [index.name for index in table.list_indices()] == ["vector_idx"]
    size = lance.info().bytes
    lance.rewrite_attributes(halves, HALF)  # nothing changes
    assert lance.info().bytes - size < ROWS * 40  # the ids' index, and no vectors


def test_scalar_indexes_are_renewed(lance: VectorStore) -> None:
    table = raw(lance)
    table.create_index("id", config=lancedb.index.BTree(), name="ids")
    table.create_index("tags", config=lancedb.index.LabelList(), name="tags")
    table.create_index("year", config=lancedb.index.BTree(), name="years")
    assert isinstance(lance, AttributeWriter)
    lance.rewrite_attributes(halves, HALF)
    table = raw(lance)
    for name in ("ids", "tags", "years"):
        assert table.index_stats(name).num_unindexed_rows == 0
    assert table.count_rows("array_has_any(tags, ['i1500'])") == 1


def test_a_write_by_another_program_is_not_lost(
    lance: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only remote tables can change meanwhile; here, a program without our lock stands for one."""
    other = raw(lance)

    def write_first(location: LanceLocation, table: object, values: pa.Table) -> None:
        def update() -> None:
            other.update(where="year = 1500", values={"year": -1})
            other.delete("id = 'i1600'")
            other.add(other.to_arrow().slice(0, 1).set_column(0, "id", pa.array(["late"])))

        thread = threading.Thread(target=update)
        thread.start()
        thread.join()
        write_columns(location, table, values)

    write_columns = lance_columns.write_columns
    monkeypatch.setattr("rsicd_embed.stores.lancedb.lance_store.write_columns", write_first)
    assert isinstance(lance, AttributeWriter)
    lance.rewrite_attributes(halves, HALF)
    rows = stored(lance)
    assert "i1600" not in rows and rows["late"]["half"] is None
    assert rows["i1500"]["year"] == -1
    assert rows["i1500"]["half"] == half_of(rows["i1500"])


def test_a_failed_write_leaves_no_columns(lance: VectorStore) -> None:
    table = raw(lance)
    table.add(table.to_arrow().slice(0, 1))  # another program adds an id again
    assert isinstance(lance, AttributeWriter)
    with pytest.raises(StoreError, match=r"stays as it was: .*Ambiguous merge"):
        lance.rewrite_attributes(halves, HALF)
    assert "half" not in lance.schema.names
    assert [index.name for index in raw(lance).list_indices()] == ["vector_idx"]
    np.testing.assert_array_equal(len(lance), ROWS - 1)
