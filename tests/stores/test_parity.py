"""The same rows and questions give the same answers in every store, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rsicd_embed.records import Provenance
from rsicd_embed.stores import lancedb, nmslib
from rsicd_embed.stores.base import VectorStore, open_store

from .contract import DIM, MADE_BY, batch, stored, unit

SCHEMES = ("exact", "nmslib", "lancedb")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[VectorStore]]:
    opened = [open_store(f"{scheme}:{tmp_path}/{scheme}", MADE_BY) for scheme in SCHEMES]
    yield opened
    for store in opened:
        store.close()


def rows(n: int, dim: int = DIM) -> pa.RecordBatch:
    """Rows with many ties: a third of the vectors repeats others, some up to rounding."""
    random = np.random.default_rng(3)
    vectors = unit(n, dim, seed=2)
    copies = random.integers(0, n // 50, n // 3)
    vectors[-len(copies) :] = vectors[copies]
    nearly = vectors[-len(copies) // 2 :]
    nearly *= (1 + random.integers(-1, 2, nearly.shape) * 1e-7).astype(np.float32)
    ids = [f"{i % 10}/{i}" for i in random.permutation(n)]
    return batch(
        ids,
        vectors,
        width=random.integers(0, 500, n),
        label=[None if i % 7 == 0 else f"l{i % 5}" for i in range(n)],
    )


WHERES = (None, "width > 250", "label = 'l3' or label is null", "id like '3/%'", "width = -1")


def test_same_hits(stores: list[VectorStore], monkeypatch: pytest.MonkeyPatch) -> None:
    everything = rows(1500)
    queries = np.concatenate([unit(6, seed=8), unit(1500, seed=2)[:6]])
    for store in stores:
        for start in range(0, 1500, 300):
            store.upsert([everything.slice(start, 300)])
        store.delete([f"{i % 10}/{i}" for i in range(0, 1500, 9)])
        store.optimize()
        store.upsert([everything.slice(40, 200)])
    assert "HNSW" in stores[1].info().index
    asked = [(k, where) for k in (1, 10, 60) for where in WHERES]
    expected = {one: stores[0].search(queries, *one) for one in asked}
    for store in stores[1:]:
        for (k, where), hits in expected.items():
            assert store.search(queries, k, where).equals(hits), (store.uri, k, where)
    monkeypatch.setattr(lancedb, "CACHE_ROWS", 0)
    monkeypatch.setattr("rsicd_embed.stores.lance_rows.STREAM_ROWS", 128)
    for (k, where), hits in expected.items():
        assert stores[2].search(queries, k, where).equals(hits), ("streamed", k, where)
    alone = [stores[1].search(query, 10) for query in queries]
    together = stores[0].search(queries, 10)
    for number, hits in enumerate(alone):
        same = together.filter(pa.compute.equal(together["query"], number))
        assert hits.drop(["query"]).equals(same.drop(["query"]))


def test_scores_do_not_depend_on_company(tmp_path: Path) -> None:
    """The same pair has the same score whatever else is in the store and in the batch."""
    dim = 513
    vectors, queries = unit(300, dim, seed=1), unit(40, dim, seed=2)
    made_by = Provenance("m", "weights:1", dim)
    with (
        open_store(f"exact:{tmp_path}/few", made_by) as few,
        open_store(f"lancedb:{tmp_path}/many", made_by) as many,
    ):
        few.upsert([batch(["i5", "i6"], vectors[5:7])])
        many.upsert([batch([f"i{i}" for i in range(300)], vectors)])
        all_hits = many.search(queries, k=300, where="id in ('i5', 'i6')")
        for number, query in enumerate(queries):
            alone = few.search(query, k=2)
            same = all_hits.slice(2 * number, 2)
            assert alone["score"].to_pylist() == same["score"].to_pylist()
            assert alone["id"].to_pylist() == same["id"].to_pylist()


def test_same_schema_and_info(stores: list[VectorStore]) -> None:
    for store in stores:
        store.upsert([rows(100)])
        store.upsert([batch(["new"], tags=[["x"]])])
    assert len({store.schema.to_string() for store in stores}) == 1
    assert len({store.search(unit(1)).schema.to_string() for store in stores}) == 1
    assert len({str(store.info().columns) for store in stores}) == 1


IDS = st.sampled_from(["a", "b", "c'", "d\n", "é", *(f"i{n}" for n in range(20))])
VECTORS = st.integers(0, 11)  # few directions, so that ties are frequent
POOL = unit(12, DIM, seed=6)


class StoresAgree(RuleBasedStateMachine):
    """Every store behaves like a dict with brute-force search, whatever is done to it."""

    @initialize()
    def start(self) -> None:
        self.folder = TemporaryDirectory()
        self.model: dict[str, tuple[int, int | None]] = {}
        self.stores = [self._opened(scheme) for scheme in SCHEMES]
        for store in self.stores:  # so that there is a column for conditions
            store.upsert([batch(["a"], n=[1])])
            store.delete(["a"])

    def _opened(self, scheme: str) -> VectorStore:
        return open_store(f"{scheme}:{self.folder.name}/{scheme}", MADE_BY)

    @rule(
        written=st.lists(
            st.tuples(IDS, VECTORS, st.none() | st.integers(0, 3)), min_size=1, max_size=12
        )
    )
    def upsert(self, written: list[tuple[str, int, int | None]]) -> None:
        ids, vectors, numbers = zip(*written, strict=True)
        one = batch(list(ids), POOL[list(vectors)], n=pa.array(numbers, pa.int64()))
        for store in self.stores:
            assert store.upsert([one]) == len(set(ids))
        self.model |= {key: (vector, n) for key, vector, n in written}

    @rule(ids=st.lists(IDS, max_size=8))
    def delete(self, ids: list[str]) -> None:
        for store in self.stores:
            assert store.delete(ids) == len(set(ids) & set(self.model))
        for key in ids:
            self.model.pop(key, None)

    @rule()
    def optimize(self) -> None:
        for store in self.stores:
            store.optimize()

    @rule(scheme=st.sampled_from(range(3)))
    def reopen(self, scheme: int) -> None:
        self.stores[scheme].close()
        self.stores[scheme] = self._opened(SCHEMES[scheme])

    @rule(vector=VECTORS, k=st.integers(1, 30), where=st.sampled_from([None, "n > 1", "n is null"]))
    def search(self, vector: int, k: int, where: str | None) -> None:
        accepts: Any = {
            None: lambda n: True,
            "n > 1": lambda n: n is not None and n > 1,
            "n is null": lambda n: n is None,
        }[where]
        cosine = POOL.astype(float) @ POOL[vector].astype(float)
        expected = sorted(
            (-round(cosine[one], 5), key) for key, (one, n) in self.model.items() if accepts(n)
        )[:k]
        hits = [store.search(POOL[vector], k, where) for store in self.stores]
        assert hits[0]["id"].to_pylist() == [key for _, key in expected]
        assert all(one.equals(hits[0]) for one in hits[1:])

    @invariant()
    def same_rows(self) -> None:
        expected = {key: (POOL[vector].tobytes(), n) for key, (vector, n) in self.model.items()}
        for store in getattr(self, "stores", []):
            assert len(store) == len(expected)
            got = {key: (row["vector"], row.get("n")) for key, row in stored(store).items()}
            assert got == expected

    def teardown(self) -> None:
        for store in getattr(self, "stores", []):
            store.close()
        if hasattr(self, "folder"):
            self.folder.cleanup()


class TestStoresAgree(StoresAgree.TestCase):
    settings = settings(
        max_examples=8,
        stateful_step_count=15,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )

    @pytest.fixture(autouse=True)
    def graphs_even_for_few_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nmslib, "GRAPH_ROWS", 1)
        monkeypatch.setattr(nmslib, "_LARGEST_SHARE", 1.0)
        monkeypatch.setattr(nmslib, "_SPARE", 1)
