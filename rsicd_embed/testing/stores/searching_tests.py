"""Hits, and queries that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.errors import QueryError
from rsicd_embed.stores.base import VectorStore
from rsicd_embed.testing.stores.sample_rows import DIM, batch, unit


class Searching:
    """Hits, and queries that are refused."""

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
        """More than there are rows, of any integer type, and none below 1."""
        store.upsert([batch(["a", "b", "c"])])
        assert store.search(unit(2), k=2).num_rows == 4
        assert store.search(unit(2), k=10**9).num_rows == 6
        one: Any = np.int64(1)
        assert store.search(unit(1), k=one).num_rows == 1
        wrongs: tuple[Any, ...] = (0, -1, 1.5, "3", None, True)
        for wrong in wrongs:
            with pytest.raises(QueryError, match="expected k"):
                store.search(unit(1), k=wrong)

    def test_empty_store_and_no_queries(self, store: VectorStore) -> None:
        """A table without rows, of the same schema."""
        assert store.search(unit(3)).num_rows == 0
        store.upsert([batch(["a"], n=[1])])
        for none in (store.search(unit(0)), store.search(unit(1), where="n = 2")):
            assert none.num_rows == 0
            assert none.schema == store.search(unit(1)).schema

    def test_wrong_queries(self, store: VectorStore) -> None:
        """Shapes, NaN, infinity, zero and what is no number."""
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

    def test_queries_of_any_size(self, store: VectorStore) -> None:
        """They need not be normalised."""
        store.upsert([batch(list("abcde"))])
        query = unit(1, seed=3).astype(float)
        expected = store.search(query)
        assert store.search(query * 1e200)["id"].equals(expected["id"])
        assert store.search(query * 1e-200)["id"].equals(expected["id"])
        assert store.search(query[0].tolist())["id"].equals(expected["id"])

    def test_ties_are_sorted_by_id(self, store: VectorStore) -> None:
        """Equal rows have equal scores."""
        vectors = np.repeat(unit(2), 20, axis=0)
        ids = [f"{i % 7}{i:02}é" for i in range(40)]
        store.upsert([batch(ids, vectors)])
        hits = store.search(vectors[0], k=25)
        assert hits["id"].to_pylist() == sorted(ids[:20]) + sorted(ids[20:])[:5]
        assert hits["score"].to_pylist()[:20] == [1.0] * 20
        assert store.search(-vectors[0], k=40)["score"].to_pylist()[-1] == -1.0
