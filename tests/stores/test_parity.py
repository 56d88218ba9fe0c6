"""Equal rows and queries give bit-identical results in every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.records import Provenance
from rsicd_embed.stores import nmslib
from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.stores.lancedb import lance_reader
from rsicd_embed.stores.planner import SearchCosts
from rsicd_embed.testing.stores.state_machine import SETTINGS, StoreMachine

from .contract import DIM, MADE_BY, batch, unit

SCHEMES = ("exact", "nmslib", "lancedb")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[VectorStore]]:
    opened = [open_store(f"{scheme}:{tmp_path}/{scheme}", MADE_BY) for scheme in SCHEMES]
    yield opened
    for store in opened:
        store.close()


def rows(n: int, dim: int = DIM) -> pa.RecordBatch:
    """Rows with many ties: a third of the vectors repeat others, some up to rounding."""
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
    searches = [(k, where) for k in (1, 10, 60) for where in WHERES]
    expected = {search: stores[0].search(queries, *search) for search in searches}
    for store in stores[1:]:
        for (k, where), hits in expected.items():
            assert store.search(queries, k, where).equals(hits), (store.uri, k, where)
    monkeypatch.setattr(lance_reader, "CACHE_ROWS", 0)
    monkeypatch.setattr("rsicd_embed.stores.lancedb.lance_rows.STREAM_ROWS", 128)
    for (k, where), hits in expected.items():
        assert stores[2].search(queries, k, where).equals(hits), ("streamed", k, where)
    alone = [stores[1].search(query, 10) for query in queries]
    together = stores[0].search(queries, 10)
    for number, hits in enumerate(alone):
        same = together.filter(pa.compute.equal(together["query"], number))
        assert hits.drop(["query"]).equals(same.drop(["query"]))


def test_scores_do_not_depend_on_other_rows(tmp_path: Path) -> None:
    """The score of a pair does not depend on the rest of the store and the batch."""
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


class StoresAgree(StoreMachine):
    """Scores are bit-identical, since all stores use the same kernel."""

    tolerance = 0

    def uris(self, folder: Path) -> list[str]:
        return [f"{scheme}:{folder / scheme}" for scheme in SCHEMES[1:]]


class TestStoresAgree(StoresAgree.TestCase):
    settings = SETTINGS

    @pytest.fixture(autouse=True)
    def graphs_even_for_few_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nmslib, "GRAPH_ROWS", 1)
        monkeypatch.setattr(nmslib, "_LARGEST_SHARE", 1.0)
        monkeypatch.setattr(nmslib, "_SPARE", 1)
        monkeypatch.setattr(nmslib, "_COSTS", SearchCosts(0, 0, 1))
