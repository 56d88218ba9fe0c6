"""Tests of search: hits, refused queries, and `where` conditions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.errors import FilterError, QueryError
from rsicd_embed.stores.base import VectorStore
from rsicd_embed.testing.stores.sample_rows import DIM, batch, matches, unit


class SearchTests:
    """Hits, refused queries, and `where` conditions in one dialect, applied before top-k."""

    def test_hits(self, store: VectorStore) -> None:
        """Types, order, ranks and scores; one query is a batch of one."""
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
        """k may exceed the number of rows and be of any integer type, but not be below 1."""
        store.upsert([batch(["a", "b", "c"])])
        assert store.search(unit(2), k=2).num_rows == 4
        assert store.search(unit(2), k=10**9).num_rows == 6
        numpy_int: Any = np.int64(1)
        assert store.search(unit(1), k=numpy_int).num_rows == 1
        wrongs: tuple[Any, ...] = (0, -1, 1.5, "3", None, True)
        for wrong in wrongs:
            with pytest.raises(QueryError, match="expected k"):
                store.search(unit(1), k=wrong)

    def test_empty_store_and_no_queries(self, store: VectorStore) -> None:
        """The result has no rows, and the usual schema."""
        assert store.search(unit(3)).num_rows == 0
        store.upsert([batch(["a"], n=[1])])
        for none in (store.search(unit(0)), store.search(unit(1), where="n = 2")):
            assert none.num_rows == 0
            assert none.schema == store.search(unit(1)).schema

    def test_wrong_queries(self, store: VectorStore) -> None:
        """Wrong shapes, NaN, infinity, zero, and values that are not real numbers."""
        store.upsert([batch(["a", "b"])])
        bad = unit(2)
        bad[1, 3] = np.nan
        wrongs: tuple[tuple[Any, str], ...] = (
            (unit(1, DIM + 1), rf"expected queries of shape \(q, {DIM}\)"),
            (unit(1)[0, :3], r"found \(3,\)"),
            (unit(2)[None], r"found \(1, 2, 8\)"),
            (np.float32(1.0), r"found \(\)"),
            (bad, "query 1 is not finite"),
            (unit(1) * np.float32(np.inf), "query 0 is not finite"),
            (np.zeros((1, DIM), np.float32), "query 0 is zero"),
            (np.array(["x"] * DIM), "real numbers"),
            (unit(1) * 1j, "real numbers"),
        )
        for wrong, words in wrongs:
            with pytest.raises(QueryError, match=words):
                store.search(wrong)

    def test_queries_of_any_length(self, store: VectorStore) -> None:
        """They need not be normalised."""
        store.upsert([batch(list("abcde"))])
        query = unit(1, seed=3).astype(float)
        expected = store.search(query)
        assert store.search(query * 1e200)["id"].equals(expected["id"])
        assert store.search(query * 1e-200)["id"].equals(expected["id"])
        assert store.search(query[0].tolist())["id"].equals(expected["id"])

    def test_ties_are_sorted_by_id(self, store: VectorStore) -> None:
        """Equal rows have equal scores, and are sorted by id."""
        vectors = np.repeat(unit(2), 20, axis=0)
        ids = [f"{i % 7}{i:02}é" for i in range(40)]
        store.upsert([batch(ids, vectors)])
        hits = store.search(vectors[0], k=25)
        assert hits["id"].to_pylist() == sorted(ids[:20]) + sorted(ids[20:])[:5]
        assert hits["score"].to_pylist()[:20] == [1.0] * 20
        assert store.search(-vectors[0], k=40)["score"].to_pylist()[-1] == -1.0

    def test_where(self, store: VectorStore) -> None:
        """DataFusion's dialect over strings, numbers, times and lists."""
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
            assert matches(store, where) == set(expected), where

    def test_where_in_objects(self, store: VectorStore) -> None:
        """A field of a null object is null at any depth, not the 0 that Arrow stores there."""
        cloud = pa.StructArray.from_arrays(
            [pa.array([0, 9, 7]), pa.array(["", "x", "y"])],
            ["cloud", "place"],
            mask=pa.array([True, False, False]),
        )
        outer = pa.StructArray.from_arrays([cloud], ["geo"], mask=pa.array([False, True, False]))
        listed = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), outer)
        store.upsert([batch(["a", "b", "c"], geo=cloud, outer=outer, listed=listed)])
        for where, expected in {
            "geo['cloud'] < 8": "c",
            "geo['cloud'] is null": "a",
            "geo is null": "a",
            "geo['place'] = ''": "",
            "geo['cloud'] <> 7": "b",
            "outer['geo']['cloud'] >= 0": "c",
            "outer['geo'] is null": "ab",
            "outer['geo']['place'] is null": "ab",
            "outer is null": "b",
            "listed[1]['geo']['cloud'] >= 0": "c",
            "listed[1]['geo'] is null": "ab",
            "listed[2]['geo']['cloud'] is null": "abc",
        }.items():
            assert matches(store, where) == set(expected), where

    def test_where_comes_before_k(self, store: VectorStore) -> None:
        """You get k hits whenever at least k rows match."""
        vectors = unit(300)
        order = np.argsort(-(vectors @ vectors[0]))
        rare = np.isin(np.arange(300), order[-5:])
        store.upsert([batch([f"i{i}" for i in range(300)], vectors, rare=rare)])
        hits = store.search(vectors[0], k=5, where="rare")
        assert hits["id"].to_pylist() == [f"i{i}" for i in order[-5:]]
        assert store.search(vectors[0], k=7, where="not rare").num_rows == 7
        assert store.search(vectors[:3], k=7, where="rare").num_rows == 15

    def test_wrong_where(self, store: VectorStore) -> None:
        """Search and scan raise the same one-line message."""
        store.upsert([batch(["a", "b"], width=[1, 2], Label=["x", "y"])])
        uses: tuple[Callable[[str], object], ...] = (
            lambda where: store.search(unit(1), where=where),
            lambda where: store.scan(None, where).read_all(),
        )
        for where, words in (
            ("", "expected a SQL condition"),
            ("  ", "expected a SQL condition"),
            ("width >", "syntax error"),
            ("width > 1; drop table rows", "syntax error"),
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
            for use in uses:
                with pytest.raises(FilterError, match=words) as caught:
                    use(where)
                messages.add(str(caught.value))
            message = messages.pop()
            assert not messages
            assert "\n" not in message
            assert "rows." not in message
            assert len(message) < 600

    def test_where_sees_only_live_rows(self, store: VectorStore) -> None:
        """A deleted value cannot make a condition fail."""
        store.upsert([batch(["a", "b", "c"], code=["1", "x", "3"])])
        with pytest.raises(FilterError, match="x"):
            store.search(unit(1), where="cast(code as int) > 1")
        store.delete(["b"])
        assert matches(store, "cast(code as int) > 1") == {"c"}
