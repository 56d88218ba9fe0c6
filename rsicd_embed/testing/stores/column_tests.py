"""Tests of column types, and of the columns that every row needs."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.errors import ArgumentError, FilterError, SchemaError
from rsicd_embed.records import FIXED_COLUMNS, vector_array
from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.testing.stores.sample_rows import batch, now_and_reopened, stored, unit

PAIR = pa.struct([("k", pa.string())])


class ColumnTests:
    """Column types, and the columns that every row needs."""

    def test_new_columns_are_added(self, store: VectorStore) -> None:
        """They are added in order of appearance, and are null in older rows."""
        store.upsert([batch(["a"], label=["port"])])
        store.upsert([batch(["b"], captions=[["x", "y"]], lon=[1.5]), batch(["c"], cloud=[True])])
        expected = [*FIXED_COLUMNS, "label", "captions", "lon", "cloud"]
        for opened in now_and_reopened(store):
            assert opened.schema.names == expected
            got = stored(opened)
            assert [got[key]["label"] for key in "abc"] == ["port", None, None]
            assert [got[key]["captions"] for key in "abc"] == [None, ["x", "y"], None]
            assert [got[key]["lon"] for key in "abc"] == [None, 1.5, None]
            hits = opened.search(unit(1), k=3)
            assert hits.column_names == [
                "query",
                "rank",
                "id",
                "score",
                *(name for name in expected if name not in ("id", "vector")),
            ]
            assert opened.info().columns["captions"] == "list<item: string>"

    def test_replacing_a_row_clears_missing_columns(self, store: VectorStore) -> None:
        """Columns that the new row lacks become null."""
        store.upsert([batch(["a"], label=["port"], uri=["u"])])
        store.upsert([batch(["a"])])
        assert stored(store)["a"]["label"] is None
        assert stored(store)["a"]["uri"] is None

    def test_type_clash(self, store: VectorStore) -> None:
        """A column keeps its type, and a refused upsert writes nothing."""
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

    def test_equivalent_types(self, store: VectorStore) -> None:
        """Dictionaries, views, narrower numbers and all-null columns are accepted."""
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

    def test_many_types_are_read_back(self, store: VectorStore) -> None:
        """Values, nulls and types are preserved."""
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
        for opened in now_and_reopened(store):
            for index, key in enumerate("ab"):
                row = stored(opened)[key]
                for name, column in columns.items():
                    assert row[name] == column[index].as_py(), name
            types = {name: opened.schema.field(name).type for name in columns}
            assert types == {name: column.type for name, column in columns.items()}

    def test_drop_columns(self, store: VectorStore) -> None:
        """Their values are dropped too: a new column of the same name starts empty."""
        vectors = unit(3)
        odd = {"Köln am Rhein": ["x", "y", "z"], "it's": [1.5, None, 2.5]}
        geo = pa.array([{"lon": 1.0}, None, {"lon": None}])
        store.upsert(
            [batch(["a", "b", "c"], vectors, n=[1, 2, 3], geo=geo, label=["x"] * 3, **odd)]
        )
        store.delete(["b"])
        hits = store.search(vectors[0], k=2)
        store.drop_columns(["geo", "n", "n", *odd])
        for opened in now_and_reopened(store):
            assert opened.schema.names == [*FIXED_COLUMNS, "label"]
            labels = {key: row["label"] for key, row in stored(opened).items()}
            assert labels == {"a": "x", "c": "x"}
            assert opened.search(vectors[0], k=2).equals(hits.drop(["geo", "n", *odd]))
            with pytest.raises(FilterError, match="no column n"):
                opened.search(vectors[0], where="n = 1")
        with open_store(store.uri) as again:
            again.upsert([batch(["b"], n=["text"], geo=[7])])
            again.optimize()
            got = stored(again)
            assert {key: (row["n"], row["geo"]) for key, row in got.items()} == {
                "a": (None, None),
                "b": ("text", 7),
                "c": (None, None),
            }

    def test_drop_columns_refused(self, store: VectorStore) -> None:
        """Fixed and unknown columns, and a string instead of a list, are refused."""
        store.upsert([batch(["a"], label=["x"], latitude=[1.5])])
        before = stored(store)
        wrongs: tuple[tuple[Any, str], ...] = (
            (["label", "vector"], "'vector' cannot be dropped: every store has it"),
            (["width"], "columns that can be dropped: label, latitude"),
            (["label", "latitud"], "no column 'latitud'; did you mean 'latitude'"),
            (["zzz"], "no column 'zzz'; columns that can be dropped"),
            ("label", "expected a list of names of columns, found 'label'"),
            ([], "expected names of columns to drop, found none"),
        )
        for names, words in wrongs:
            error = ArgumentError if isinstance(names, str) else SchemaError
            with pytest.raises(error, match=words):
                store.drop_columns(names)
        assert stored(store) == before

    def test_objects_and_lists(self, store: VectorStore) -> None:
        """Parts without information are dropped, and the others are preserved."""
        store.upsert(
            [
                batch(
                    ["a", "b"],
                    nothing=pa.array([{}, None], pa.struct([])),
                    nested=pa.array([{"x": {}, "y": 1}, {"x": None, "y": None}]),
                    empty=pa.array([[{}], []], pa.list_(pa.struct([]))),
                    pair=pa.array([[{"k": "v"}, None], None], pa.list_(PAIR, 2)),
                    words=pa.array([["a", None], ["b", "c"]], pa.list_(pa.string(), 2)),
                    bounds=pa.array([[1.0, np.nan], None], pa.list_(pa.float64(), 2)),
                )
            ]
        )
        for opened in now_and_reopened(store):
            assert opened.schema.names == [*FIXED_COLUMNS, "nested", "pair", "words", "bounds"]
            got = stored(opened)
            assert [got[key]["nested"] for key in "ab"] == [{"y": 1}, {"y": None}]
            assert [got[key]["pair"] for key in "ab"] == [[{"k": "v"}, None], None]
            assert [got[key]["words"] for key in "ab"] == [["a", None], ["b", "c"]]
            assert got["b"]["bounds"] is None
            assert got["a"]["bounds"][0] == 1.0
            assert np.isnan(got["a"]["bounds"][1])

    def test_fields_of_objects(self, store: VectorStore) -> None:
        """Fields that later objects lack become null; new ones and other types are refused."""
        store.upsert([batch(["a"], geo=[{"lon": 1.0, "tags": [{"k": "v"}]}])])
        store.upsert([batch(["b", "c"], geo=[{"lon": 2}, None]), batch(["d"], geo=[{}])])
        got = stored(store)
        assert [got[key]["geo"] for key in "abcd"] == [
            {"lon": 1.0, "tags": [{"k": "v"}]},
            {"lon": 2.0, "tags": None},
            None,
            {"lon": None, "tags": None},
        ]
        for geo, words in (
            (
                {"lat": 1.0},
                r"'geo', field 'lat': .* no such field \(only lon, tags\); leave it out",
            ),
            ({"tags": [{"q": 1}]}, r"'geo', field 'tags', field 'q': .* \(only k\).* drop-column"),
            ({"lon": "east"}, r"'geo', field 'lon': expected double, found string; cast it"),
        ):
            with pytest.raises(SchemaError, match=words):
                store.upsert([batch(["ok"]), batch(["e"], geo=[geo])])
        assert stored(store) == got

    @pytest.mark.parametrize(
        "name", ["query", "rank", "score", "_distance", "_rowid", "a.b", "*", ""]
    )
    def test_reserved_columns(self, store: VectorStore, name: str) -> None:
        """Names that hits or stores use themselves, and names that SQL cannot quote."""
        with pytest.raises(SchemaError, match=r"rename it"):
            store.upsert([batch(["a"]).append_column(name, pa.array([1]))])
        assert len(store) == 0

    def test_required_columns(self, store: VectorStore) -> None:
        """A row needs exactly one id and vector, of the right types and not null."""
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

    def test_invalid_vectors(self, store: VectorStore) -> None:
        """NaN, infinity, zero and norms other than 1 are refused."""
        for value, words in ((np.nan, "nan"), (np.inf, "inf"), (0.0, "norm 0"), (2.0, "norm 2")):
            vectors = unit(3)
            vectors[1] = 0
            vectors[1, 0] = value
            with pytest.raises(SchemaError, match=rf"unit vectors, found .*{words}.* at row 1"):
                store.upsert([batch(["a", "b", "c"], vectors)])
        assert len(store) == 0

    def test_vectors_of_other_arrow_types(self, store: VectorStore) -> None:
        """Any kind of list of float32 or float64 is accepted."""
        vectors = unit(1)
        for kind in (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float64())):
            column = pa.array(vectors.tolist(), kind)
            store.upsert([pa.record_batch({"id": pa.array([str(kind)]), "vector": column})])
        assert {row["vector"] for row in stored(store).values()} == {vectors[0].tobytes()}

    def test_vectors_are_renormalised(self, store: VectorStore) -> None:
        """Norms that are slightly off are corrected."""
        store.upsert([batch(["a"], unit(1) * np.float32(1.0005))])
        vector = np.frombuffer(stored(store)["a"]["vector"], np.float32).astype(float)
        assert abs(np.linalg.norm(vector) - 1) < 1e-7

    def test_sliced_batches(self, store: VectorStore) -> None:
        """Offsets of Arrow slices are respected."""
        vectors = unit(10)
        rows = batch(list("abcdefghij"), vectors, n=list(range(10)))
        store.upsert([rows.slice(3, 4)])
        got = stored(store)
        assert set(got) == set("defg")
        assert got["e"]["vector"] == vectors[4].tobytes()
        assert got["e"]["n"] == 4
