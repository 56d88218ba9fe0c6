"""What every store promises, as one test class: subclass it and set `scheme`."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.errors import (
    FilterError,
    FingerprintError,
    QueryError,
    SchemaError,
    StoreError,
    StoreNotFoundError,
)
from rsicd_embed.records import FIXED_COLUMNS, Provenance, vector_array
from rsicd_embed.stores.base import StoreInfo, VectorStore, open_store

DIM = 8
MADE_BY = Provenance("small", f"weights:aaa/tokenizer:t/dim:{DIM}", DIM)


def unit(n: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """float32 (n, dim) random unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def batch(ids: list[str], vectors: np.ndarray | None = None, **columns: object) -> pa.RecordBatch:
    """Rows with these ids; vectors depend on the number of ids unless given."""
    vectors = unit(len(ids)) if vectors is None else vectors
    return pa.record_batch(
        {"id": pa.array(ids, pa.string()), "vector": vector_array(vectors)}
        | {
            name: one if isinstance(one, pa.Array) else pa.array(one)
            for name, one in columns.items()
        }
    )


def stored(store: VectorStore) -> dict[str, dict[str, object]]:
    """All rows by id; the vector as bytes."""
    rows = store.scan().read_all().to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {
        row["id"]: row | {"vector": np.array(row["vector"], np.float32).tobytes()} for row in rows
    }


def found(store: VectorStore, where: str) -> set[str]:
    """Ids that a condition accepts, told alike by search and scan."""
    hits = store.search(unit(1)[0], k=10_000, where=where)
    scanned = store.scan(["id"], where).read_all()
    assert set(hits["id"].to_pylist()) == set(scanned["id"].to_pylist())
    return set(hits["id"].to_pylist())


def now_and_reopened(store: VectorStore) -> Iterator[VectorStore]:
    """The store, then the same opened again."""
    yield store
    store.close()
    with open_store(store.uri) as again:
        yield again


class StoreContract:
    scheme: str

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return f"{self.scheme}:{tmp_path / 'store'}"

    @pytest.fixture
    def store(self, uri: str) -> Iterator[VectorStore]:
        with open_store(uri, MADE_BY) as store:
            yield store

    # --- opening

    def test_is_a_vector_store(self, store: VectorStore, uri: str) -> None:
        assert isinstance(store, VectorStore)
        assert store.uri == uri
        assert store.provenance == MADE_BY

    def test_new_store_is_empty_and_stays(self, store: VectorStore, uri: str) -> None:
        assert len(store) == 0
        assert store.schema.names == list(FIXED_COLUMNS)
        with open_store(uri) as again:
            assert len(again) == 0
            assert again.provenance == MADE_BY

    def test_absent_store_is_not_made_for_reading(self, uri: str, tmp_path: Path) -> None:
        for arguments in ({"provenance": MADE_BY, "create": False}, {}):
            with pytest.raises(StoreNotFoundError, match="no store at"):
                open_store(uri, **arguments)
        assert not (tmp_path / "store").exists()

    def test_missing_parents_are_made(self, tmp_path: Path) -> None:
        with open_store(f"{self.scheme}:{tmp_path}/a/b/c", MADE_BY) as store:
            store.upsert([batch(["a"])])
            assert len(store) == 1

    def test_empty_folder_is_used(self, tmp_path: Path) -> None:
        with open_store(f"{self.scheme}:{tmp_path}", MADE_BY) as store:
            assert len(store) == 0

    def test_location_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        for location in ("file", "file/below"):
            for provenance in (MADE_BY, None):
                with pytest.raises(StoreError, match=r"is a file; a store is a folder"):
                    open_store(f"{self.scheme}:{tmp_path}/{location}", provenance)
        assert (tmp_path / "file").read_text() == "x"

    def test_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "holiday.jpg").write_text("x")
        for provenance in (MADE_BY, None):
            with pytest.raises(StoreError, match=r"holiday\.jpg"):
                open_store(f"{self.scheme}:{tmp_path}", provenance)
        assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]

    def test_location_cannot_be_made(
        self, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", fail)
            with pytest.raises(StoreError, match=r"Permission denied; make the folder writable"):
                open_store(uri, MADE_BY)
        assert list(tmp_path.iterdir()) == []

    def test_other_model_is_refused(self, store: VectorStore, uri: str) -> None:
        other = Provenance("large", f"weights:bbb/tokenizer:t/dim:{DIM}", DIM)
        with pytest.raises(FingerprintError, match=r"'small'.*weights aaa ≠ bbb") as caught:
            open_store(uri, other)
        assert "tokenizer" not in str(caught.value)
        with pytest.raises(FingerprintError, match="length 9"):
            open_store(uri, Provenance("small", MADE_BY.fingerprint, 9))

    def test_closed(self, store: VectorStore) -> None:
        store.close()
        store.close()
        for use in (len, VectorStore.info.__get__(store), lambda s: s.search(unit(1))):
            with pytest.raises((StoreError, TypeError)):
                use(store)
        with pytest.raises(StoreError, match="is closed"):
            store.search(unit(1))
        with pytest.raises(StoreError, match="is closed"):
            store.upsert([batch(["a"])])

    # --- writing

    def test_rows_come_back(self, store: VectorStore) -> None:
        vectors = unit(3)
        rows = batch(["a", "b", "c"], vectors, uri=["u", None, "w"], width=[1, 2, 3], n=[1, 2, 3])
        assert store.upsert([rows]) == 3
        for one in now_and_reopened(store):
            assert len(one) == 3
            got = stored(one)
            assert got["a"] == {
                "id": "a",
                "vector": vectors[0].tobytes(),
                "uri": "u",
                "sha256": None,
                "width": 1,
                "height": None,
                "n": 1,
            }
            assert got["b"]["uri"] is None
            assert one.schema.field("width").type == pa.int32()

    def test_upsert_replaces(self, store: VectorStore) -> None:
        store.upsert([batch(["a", "b"], n=[1, 2])])
        vectors = unit(2, seed=5)
        assert store.upsert([batch(["b", "c"], vectors, n=[20, 30])]) == 2
        assert len(store) == 3
        got = stored(store)
        assert {key: row["n"] for key, row in got.items()} == {"a": 1, "b": 20, "c": 30}
        assert got["b"]["vector"] == vectors[0].tobytes()
        assert store.search(vectors[0], k=1)["id"].to_pylist() == ["b"]

    def test_last_of_a_repeated_id_wins(self, store: VectorStore) -> None:
        first, second = batch(["a", "a", "b"], n=[1, 2, 3]), batch(["b", "c"], n=[4, 5])
        assert store.upsert([first, second]) == 3
        assert {key: row["n"] for key, row in stored(store).items()} == {"a": 2, "b": 4, "c": 5}

    def test_delete_and_add_again(self, store: VectorStore) -> None:
        store.upsert([batch(["a", "b", "c"], n=[1, 2, 3])])
        assert store.delete(["b", "nobody", "b"]) == 1
        assert store.delete(["b"]) == 0
        assert store.delete([]) == 0
        assert len(store) == 2
        assert set(stored(store)) == {"a", "c"}
        assert "b" not in store.search(unit(1), k=9)["id"].to_pylist()
        store.upsert([batch(["b"], n=[22])])
        assert {key: row["n"] for key, row in stored(store).items()} == {"a": 1, "b": 22, "c": 3}
        assert store.delete(iter(["a", "b", "c"])) == 3
        assert len(store) == 0
        assert store.search(unit(1), k=9).num_rows == 0
        assert store.schema.names[-1] == "n"
        store.close()
        assert len(open_store(store.uri)) == 0

    def test_odd_ids(self, store: VectorStore) -> None:
        ids = [
            "it's",
            '"',
            "a\nb",
            "é/ü.jpg",
            "木",
            "",
            "\\",
            "\\'",
            "%_",
            "a;--",
            "x" * 3000,
            "😀",
        ]
        store.upsert([batch(ids)])
        assert set(stored(store)) == set(ids)
        assert set(store.search(unit(1), k=99)["id"].to_pylist()) == set(ids)
        for count, one in enumerate(ids, start=1):
            assert store.delete([one]) == 1, repr(one)
            assert len(store) == len(ids) - count

    def test_ids_that_are_not_strings(self, store: VectorStore) -> None:
        store.upsert([batch(["1", "a"])])
        for wrong in ("a", [1], [None], [b"a"]):
            with pytest.raises(SchemaError, match="expected"):
                store.delete(wrong)
        assert len(store) == 2

    def test_nothing_to_write(self, store: VectorStore) -> None:
        assert store.upsert([]) == 0
        assert store.upsert(iter([batch([], unit(0))])) == 0
        assert len(store) == 0

    def test_failing_iterator_writes_nothing(self, store: VectorStore) -> None:
        def batches() -> Iterator[pa.RecordBatch]:
            yield batch(["a"])
            raise RuntimeError("reader broke")

        with pytest.raises(RuntimeError, match="reader broke"):
            store.upsert(batches())
        assert len(store) == 0

    def test_tables_and_readers_are_taken(self, store: VectorStore) -> None:
        table = pa.Table.from_batches([batch(["a", "b"]), batch(["c", "d"])])
        assert store.upsert(table.to_reader()) == 4
        assert store.upsert(table) == 4
        assert store.upsert(batch(["e"])) == 1
        with pytest.raises(SchemaError, match="expected Arrow record batches, found dict"):
            store.upsert([{"id": "a"}])

    # --- schema

    def test_new_columns_are_added(self, store: VectorStore) -> None:
        store.upsert([batch(["a"], label=["port"])])
        store.upsert([batch(["b"], captions=[["x", "y"]], lon=[1.5]), batch(["c"], cloud=[True])])
        expected = [*FIXED_COLUMNS, "label", "captions", "lon", "cloud"]
        for one in now_and_reopened(store):
            assert one.schema.names == expected
            got = stored(one)
            assert [got[key]["label"] for key in "abc"] == ["port", None, None]
            assert [got[key]["captions"] for key in "abc"] == [None, ["x", "y"], None]
            assert [got[key]["lon"] for key in "abc"] == [None, 1.5, None]
            hits = one.search(unit(1), k=3)
            assert hits.column_names == [
                "query",
                "rank",
                "id",
                "score",
                *(name for name in expected if name not in ("id", "vector")),
            ]
            assert one.info().columns["captions"] == "list<item: string>"

    def test_replacing_forgets_columns_that_are_lacking(self, store: VectorStore) -> None:
        store.upsert([batch(["a"], label=["port"], uri=["u"])])
        store.upsert([batch(["a"])])
        assert stored(store)["a"]["label"] is None
        assert stored(store)["a"]["uri"] is None

    def test_type_clash(self, store: VectorStore) -> None:
        store.upsert([batch(["a"], year=[2020], label=["x"])])
        before = stored(store)
        for wrong, types in (
            (batch(["b"], year=["2020"]), "'year': expected int64, found string"),
            (batch(["b"], label=[1]), "'label': expected string, found int64"),
            (batch(["b"], year=[1.5]), "'year': expected int64, found double"),
            (batch(["b"], width=["wide"]), "'width': expected int32, found string"),
            (batch(["b"], width=[2**40]), "'width': expected int32, found int64"),
            (batch(["b"], year=pa.array([None], pa.string())), "'year': expected int64"),
        ):
            with pytest.raises(SchemaError, match=types):
                store.upsert([batch(["ok"]), wrong])
        assert stored(store) == before

    def test_types_that_mean_the_same(self, store: VectorStore) -> None:
        store.upsert([batch(["a"], label=["x"], n=pa.array([1], pa.int32()), nothing=pa.nulls(1))])
        assert "nothing" not in store.schema.names
        store.upsert(
            [
                batch(["b"], label=pa.array(["y"]).dictionary_encode(), n=[2]),
                batch(["c"], label=pa.array(["z"], pa.large_string()), n=pa.nulls(1)),
                batch(["d"], label=pa.array(["w"], pa.string_view()), width=pa.array([5])),
                batch(["e"], label=pa.nulls(1), nothing=["something"]),
            ]
        )
        got = stored(store)
        assert [got[key]["label"] for key in "abcde"] == ["x", "y", "z", "w", None]
        assert [got[key]["n"] for key in "abcde"] == [1, 2, None, None, None]
        assert got["d"]["width"] == 5
        assert store.schema.field("label").type == pa.string()
        assert store.schema.field("nothing").type == pa.string()

    def test_many_types_come_back(self, store: VectorStore) -> None:
        columns = {
            "ts": pa.array([dt.datetime(2020, 1, 1), None], pa.timestamp("us")),
            "utc": pa.array([1, None], pa.timestamp("ms", tz="UTC")),
            "day": pa.array([dt.date(2020, 1, 1), None]),
            "flag": pa.array([True, None]),
            "f": pa.array([1.5, None], pa.float32()),
            "raw": pa.array([b"\x00\xff", None]),
            "bbox": pa.array([[1.0, 2.0, 3.0, 4.0], None]),
            "words": pa.array([["a", None], []]),
            "geo": pa.array([{"lon": 1.0, "name": "x"}, None]),
            "nested": pa.array([[["a"], []], None]),
            "eo:cloud": pa.array([5, None], pa.uint8()),
            "Köln am Rhein": pa.array(["x", None]),
        }
        store.upsert([batch(["a", "b"], **columns)])
        for one in now_and_reopened(store):
            for index, key in enumerate("ab"):
                row = stored(one)[key]
                for name, column in columns.items():
                    assert row[name] == column[index].as_py(), name
            types = {name: one.schema.field(name).type for name in columns}
            assert types == {name: column.type for name, column in columns.items()}

    @pytest.mark.parametrize("name", ["query", "rank", "score", "_distance", "_rowid", "a.b", ""])
    def test_reserved_columns(self, store: VectorStore, name: str) -> None:
        with pytest.raises(SchemaError, match=r"rename it"):
            store.upsert([batch(["a"], **{name: [1]})])
        assert len(store) == 0

    def test_what_a_row_needs(self, store: VectorStore) -> None:
        vectors = vector_array(unit(2))
        for rows, words in (
            (pa.record_batch({"vector": vectors}), "expected a column 'id'"),
            (pa.record_batch({"id": ["a", "b"]}), "expected a column 'vector'"),
            (pa.record_batch({"id": [1, 2], "vector": vectors}), "'id': expected string"),
            (pa.record_batch({"id": ["a", None], "vector": vectors}), "value of 'id'"),
            (
                pa.record_batch({"id": ["a", "b"], "vector": pa.array([None, [1.0] + [0.0] * 7])}),
                "value of 'vector'",
            ),
            (pa.record_batch({"id": ["a"], "vector": pa.array(["x"])}), "found string"),
            (pa.record_batch({"id": ["a"], "vector": pa.array([[1.0, 0.0]])}), "found length 2"),
            (pa.record_batch([["a"], ["b"]], names=["id", "id"]), "twice"),
        ):
            with pytest.raises(SchemaError, match=words):
                store.upsert([rows])
        assert len(store) == 0

    def test_vectors_that_are_no_directions(self, store: VectorStore) -> None:
        for value, words in ((np.nan, "nan"), (np.inf, "inf"), (0.0, "norm 0"), (2.0, "norm 2")):
            vectors = unit(3)
            vectors[1] = 0
            vectors[1, 0] = value
            with pytest.raises(SchemaError, match=rf"unit vectors, found .*{words}.* at row 1"):
                store.upsert([batch(["a", "b", "c"], vectors)])
        assert len(store) == 0

    def test_vectors_of_other_arrow_types(self, store: VectorStore) -> None:
        one = unit(1)
        for kind in (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float64())):
            column = pa.array(one.tolist(), kind)
            store.upsert([pa.record_batch({"id": pa.array([str(kind)]), "vector": column})])
        assert {row["vector"] for row in stored(store).values()} == {one[0].tobytes()}

    def test_vectors_are_made_exactly_unit(self, store: VectorStore) -> None:
        store.upsert([batch(["a"], unit(1) * np.float32(1.0005))])
        kept = np.frombuffer(stored(store)["a"]["vector"], np.float32).astype(float)
        assert abs(np.linalg.norm(kept) - 1) < 1e-7

    def test_sliced_batches(self, store: VectorStore) -> None:
        vectors = unit(10)
        rows = batch(list("abcdefghij"), vectors, n=list(range(10)))
        store.upsert([rows.slice(3, 4)])
        got = stored(store)
        assert set(got) == set("defg")
        assert got["e"]["vector"] == vectors[4].tobytes()
        assert got["e"]["n"] == 4

    # --- searching

    def test_hits(self, store: VectorStore) -> None:
        vectors = unit(50)
        store.upsert([batch([f"i{i:02}" for i in range(50)], vectors, n=list(range(50)))])
        queries = unit(4, seed=1) * np.float32(3)
        hits = store.search(queries, k=7)
        types = [hits.schema.field(name).type for name in ("query", "rank", "id", "score")]
        assert types == [pa.int32(), pa.int32(), pa.string(), pa.float32()]
        assert hits["query"].to_pylist() == sorted(list(range(4)) * 7)
        assert hits["rank"].to_pylist() == list(range(1, 8)) * 4
        cosine = (queries.astype(float) / 3) @ vectors.astype(float).T
        for query in range(4):
            best = np.argsort(-cosine[query])[:7]
            part = hits.slice(query * 7, 7)
            assert part["n"].to_pylist() == best.tolist()
            np.testing.assert_allclose(part["score"], cosine[query][best], atol=1e-6)
        alone = store.search(queries[2], k=7)
        assert alone.drop(["query"]).equals(hits.slice(14, 7).drop(["query"]).combine_chunks())

    def test_k(self, store: VectorStore) -> None:
        store.upsert([batch(["a", "b", "c"])])
        assert store.search(unit(2), k=2).num_rows == 4
        assert store.search(unit(2), k=10**9).num_rows == 6
        assert store.search(unit(1), k=np.int64(1)).num_rows == 1
        for wrong in (0, -1, 1.5, "3", None, True):
            with pytest.raises(QueryError, match="expected k"):
                store.search(unit(1), k=wrong)

    def test_empty_store_and_no_queries(self, store: VectorStore) -> None:
        assert store.search(unit(3)).num_rows == 0
        store.upsert([batch(["a"], n=[1])])
        for none in (store.search(unit(0)), store.search(unit(1), where="n = 2")):
            assert none.num_rows == 0
            assert none.schema == store.search(unit(1)).schema

    def test_wrong_queries(self, store: VectorStore) -> None:
        store.upsert([batch(["a", "b"])])
        bad = unit(2)
        bad[1, 3] = np.nan
        for wrong, words in (
            (unit(1, DIM + 1), rf"expected queries of shape \(q, {DIM}\)"),
            (unit(1)[0, :3], r"found \(3,\)"),
            (unit(2)[None], r"found \(1, 2, 8\)"),
            (np.float32(1.0), r"found \(\)"),
            (bad, "query 1 is not finite"),
            (unit(1) * np.float32(np.inf), "query 0 is not finite"),
            (np.zeros((1, DIM), np.float32), "query 0 is zero"),
            (np.array(["x"] * DIM), "real numbers"),
            (unit(1) * 1j, "real numbers"),
        ):
            with pytest.raises(QueryError, match=words):
                store.search(wrong)

    def test_queries_of_any_size(self, store: VectorStore) -> None:
        store.upsert([batch(list("abcde"))])
        query = unit(1, seed=3).astype(float)
        expected = store.search(query)
        assert store.search(query * 1e200)["id"].equals(expected["id"])
        assert store.search(query * 1e-200)["id"].equals(expected["id"])
        assert store.search(query[0].tolist())["id"].equals(expected["id"])

    def test_ties_are_sorted_by_id(self, store: VectorStore) -> None:
        vectors = np.repeat(unit(2), 20, axis=0)
        ids = [f"{i % 7}{i:02}é" for i in range(40)]
        store.upsert([batch(ids, vectors)])
        hits = store.search(vectors[0], k=25)
        assert hits["id"].to_pylist() == sorted(ids[:20]) + sorted(ids[20:])[:5]
        assert hits["score"].to_pylist()[:20] == [1.0] * 20
        assert store.search(-vectors[0], k=40)["score"].to_pylist()[-1] == -1.0

    # --- where

    def test_where(self, store: VectorStore) -> None:
        store.upsert(
            [
                batch(
                    ["a", "b", "c", "d"],
                    width=[100, 224, 500, None],
                    label=["port", "farmer's field", None, "Port"],
                    Label=["p", "q", "r", "s"],
                    share=[0.1, 0.5, None, 0.9],
                    cloud=[True, False, None, True],
                    day=pa.array(
                        [dt.datetime(2020, 1, day) for day in (1, 2, 3)] + [None],
                        pa.timestamp("us"),
                    ),
                    tags=[["sea", "boat"], ["field"], [], None],
                )
            ]
        )
        for where, expected in {
            "width >= 224": "bc",
            "width between 100 and 224": "ab",
            "width in (100, 500)": "ac",
            "width is null": "d",
            "not (width is null)": "abc",
            "width <> 100": "bc",
            "WIDTH > 100 AND share < 0.6": "b",
            "label = 'farmer''s field'": "b",
            "label like 'p%'": "a",
            "label ilike 'p%'": "ad",
            "lower(label) = 'port'": "ad",
            "label is not null and label != 'port'": "bd",
            "\"Label\" = 'r'": "c",
            "cloud": "ad",
            "not cloud": "b",
            "cloud is not true": "bc",
            "day < '2020-01-02'": "a",
            "day >= timestamp '2020-01-02 00:00:00'": "bc",
            "array_has(tags, 'sea')": "a",
            "cardinality(tags) = 1": "b",
            "tags is null": "d",
            "id = 'c' or share > 0.8": "cd",
            "width / 2 = 50 -- half": "a",
            "uri is null": "abcd",
            "true": "abcd",
            "null": "",
            "case when cloud then width < 200 else share = 0.5 end": "ab",
        }.items():
            assert found(store, where) == set(expected), where

    def test_where_comes_before_k(self, store: VectorStore) -> None:
        vectors = unit(300)
        order = np.argsort(-(vectors @ vectors[0]))
        rare = np.isin(np.arange(300), order[-5:])
        store.upsert([batch([f"i{i}" for i in range(300)], vectors, rare=rare)])
        hits = store.search(vectors[0], k=5, where="rare")
        assert hits["id"].to_pylist() == [f"i{i}" for i in order[-5:]]
        assert store.search(vectors[0], k=7, where="not rare").num_rows == 7
        assert store.search(vectors[:3], k=7, where="rare").num_rows == 15

    def test_wrong_where(self, store: VectorStore) -> None:
        store.upsert([batch(["a", "b"], width=[1, 2], Label=["x", "y"])])
        for where, words in (
            ("", "expected a SQL condition"),
            ("  ", "expected a SQL condition"),
            ("width >", "not understood"),
            ("width > 1; drop table rows", "not understood"),
            ("wide > 1", 'no column wide; columns: id, uri, sha256, width, height, "Label"'),
            ("label = 'x'", 'did you mean "Label"'),
            ("vector is null", "no column vector"),
            ("width", "expected a condition"),
            ("width + 1", "expected a condition"),
            ("'true'", "expected a condition"),
            ("width = 'abc'", "abc"),
            ("count(*) > 1", "aggregate"),
            ("max(width) = width", "aggregate"),
            ("row_number() over () < 3", "window"),
            ("width in (select 1)", "subquery"),
            ("exists (select 1)", "subquery"),
            ("width > (select 1)", "subquery"),
            ("random() < 0.5", "random"),
            ("width = $1", "placeholder"),
            ("nofunction(width)", "nofunction"),
            ("width / 0 = 1", "[Dd]ivide by zero"),
        ):
            messages = set()
            for use in (
                lambda one=where: store.search(unit(1), where=one),
                lambda one=where: store.scan(None, one).read_all(),
            ):
                with pytest.raises(FilterError, match=words) as caught:
                    use()
                messages.add(str(caught.value))
            message = messages.pop()
            assert not messages
            assert "\n" not in message
            assert "rows." not in message
            assert len(message) < 600

    def test_where_sees_only_live_rows(self, store: VectorStore) -> None:
        store.upsert([batch(["a", "b", "c"], code=["1", "x", "3"])])
        with pytest.raises(FilterError, match="x"):
            store.search(unit(1), where="cast(code as int) > 1")
        store.delete(["b"])
        assert found(store, "cast(code as int) > 1") == {"c"}

    # --- scanning, info, upkeep

    def test_scan(self, store: VectorStore) -> None:
        vectors = unit(9_000)
        store.upsert([batch([f"i{i}" for i in range(9_000)], vectors, n=list(range(9_000)))])
        store.delete(["i7"])
        reader = store.scan(["n", "id"], where="n < 10")
        assert isinstance(reader, pa.RecordBatchReader)
        table = reader.read_all()
        assert table.column_names == ["n", "id"]
        assert sorted(table["n"].to_pylist()) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
        assert store.scan(["id"]).read_all().num_rows == 8_999
        assert store.scan().schema == store.schema
        table = store.scan(["vector", "n"], where="n = 8999").read_all()
        assert table["vector"].to_pylist() == [vectors[8_999].tolist()]
        for wrong in (["nothing"], ["id", "id"]):
            with pytest.raises(SchemaError, match="column"):
                store.scan(wrong)

    def test_info(self, store: VectorStore) -> None:
        store.upsert([batch(["a", "b"], n=[1, 2])])
        info = store.info()
        assert isinstance(info, StoreInfo)
        assert (info.rows, info.dim, info.model) == (2, DIM, "small")
        assert info.fingerprint == MADE_BY.fingerprint
        assert (info.index, info.ann_recall) == ("exact scan", 1.0)
        assert info.bytes > 0
        assert list(info.columns) == [*FIXED_COLUMNS, "n"]
        assert info.columns["vector"] == f"fixed_size_list<item: float>[{DIM}]"

    def test_optimize_changes_no_answer(self, store: VectorStore) -> None:
        store.optimize()
        for start in range(0, 60, 3):
            ids = [f"i{i}" for i in range(start, start + 4)]
            store.upsert([batch(ids, unit(4, seed=start), n=[start] * 4)])
        store.delete(["i3", "i40"])
        before, hits = stored(store), store.search(unit(3), k=20)
        for _ in range(2):
            store.optimize()
            assert stored(store) == before
            assert store.search(unit(3), k=20).equals(hits)
        store.close()
        assert stored(open_store(store.uri)) == before

    # --- others at work

    def test_two_writers_in_turn(self, store: VectorStore, uri: str) -> None:
        with open_store(uri) as other:
            store.upsert([batch(["a"], n=[1])])
            other.upsert([batch(["b"], label=["x"])])
            store.upsert([batch(["c"], n=[3])])
            assert other.delete(["a"]) == 1
            for one in (store, other):
                assert set(stored(one)) == {"b", "c"}
                assert len(one) == 2
                assert one.schema.names[-2:] == ["n", "label"]
                assert set(one.search(unit(1))["id"].to_pylist()) == {"b", "c"}

    def test_another_process_reads_and_writes(self, store: VectorStore, uri: str) -> None:
        store.upsert([batch(["a"])])
        code = (
            "import sys, pyarrow as pa; from rsicd_embed.stores.base import open_store\n"
            "s = open_store(sys.argv[1]); row = s.scan().read_all().to_pylist()[0]\n"
            "assert len(s) == 1 and row['id'] == 'a'\n"
            "rows = s.scan(['vector']).read_all()\n"
            "rows = rows.append_column('id', pa.array(['b']))\n"
            "s.upsert(rows); s.close()"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, uri], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert len(store) == 2
        assert store.search(unit(1), k=2)["id"].to_pylist() == ["a", "b"]

    def test_threads(self, store: VectorStore) -> None:
        """Readers always see whole upserts while another thread writes."""
        store.upsert([batch([f"i{i}" for i in range(20)], n=[0] * 20)])
        problems: list[object] = []
        done = threading.Event()

        def read() -> None:
            try:
                while not done.is_set():
                    hits = store.search(unit(1), k=20)
                    if len(set(hits["n"].to_pylist())) != 1 or hits.num_rows != 20:
                        problems.append(hits)
            except BaseException as error:
                problems.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for one in readers:
            one.start()
        for turn in range(1, 11):
            store.upsert([batch([f"i{i}" for i in range(20)], n=[turn] * 20)])
        done.set()
        for one in readers:
            one.join()
        assert problems == []
