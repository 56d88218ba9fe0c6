from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rsicd_embed.errors import StoreError
from rsicd_embed.records import Provenance, vector_matrix
from rsicd_embed.stores import graph as graphs
from rsicd_embed.stores import nmslib as nmslib_store
from rsicd_embed.stores import scoring
from rsicd_embed.stores.base import AttributeWriter, VectorStore, open_store
from rsicd_embed.stores.planner import SearchCosts
from tests.other_writer import run_in_a_process

from .contract import MADE_BY, FolderContract, batch, stored, unit


class TestNmslib(FolderContract):
    scheme = "nmslib"


class TestNmslibWithGraph(FolderContract):
    """The same tests with a graph even for the smallest store, rebuilt by every upsert."""

    scheme = "nmslib"

    @pytest.fixture(autouse=True)
    def graphs_even_for_few_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nmslib_store, "GRAPH_ROWS", 1)
        monkeypatch.setattr(nmslib_store, "FOLD_ROWS", 0)
        monkeypatch.setattr(nmslib_store, "_LARGEST_SHARE", 1.0)
        monkeypatch.setattr(nmslib_store, "_SPARE", 1)
        monkeypatch.setattr(nmslib_store, "_COSTS", SearchCosts(0, 0, 1))  # use it always

    def test_info_of_few_rows(self, store: VectorStore) -> None:
        store.upsert([batch(["a", "b"], n=[1, 2])])
        info = store.info()
        assert info.index == "HNSW (M=16, efConstruction=200, efSearch=400) over 2 rows"
        assert info.ann_recall == 1.0


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"nmslib:{tmp_path / 'store'}"


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes graphs reproducible by building them on one thread."""
    from rsicd_embed.stores._lazy_nmslib import nmslib

    class OneThread:
        def __init__(self, **settings: Any) -> None:
            self._index = empty(**settings)

        def createIndex(self, settings: dict[str, Any], **options: Any) -> None:  # noqa: N802
            self._index.createIndex(settings | {"indexThreadQty": 1}, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._index, name)

    empty = nmslib.init
    monkeypatch.setattr(nmslib, "init", OneThread)


@pytest.fixture
def exact_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of rows of each exact scan."""
    calls: list[int] = []
    real = scoring.nearest

    def counting(rows: object, queries: object, k: int, masks: object, first: int = 0) -> object:
        seen = sum(len(part) for part in rows.parts[first:])  # type: ignore[attr-defined]
        calls.append(seen)
        return real(rows, queries, k, masks, first)  # type: ignore[arg-type]

    monkeypatch.setattr(scoring, "nearest", counting)
    yield calls


def fill(store: VectorStore, n: int = 2000, dim: int = 8) -> np.ndarray:
    vectors = unit(n, dim)
    store.upsert([batch([f"i{i}" for i in range(n)], vectors)])
    return vectors


def test_dropping_a_column_keeps_the_graph(uri: str, exact_calls: list[int]) -> None:
    vectors = unit(2000)
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch([f"i{i}" for i in range(2000)], vectors, n=list(range(2000)))])
        store.optimize()
        before = store.info().index
        assert "HNSW" in before
        store.drop_columns(["n"])
        assert store.info().index == before
        exact_calls.clear()
        assert store.search(vectors[7], k=1)["id"].to_pylist() == ["i7"]
        assert exact_calls == []


@pytest.mark.parametrize("live", [2000, 1500, 400])
def test_new_attributes_keep_the_graph(uri: str, live: int) -> None:
    """Also where rows are dead, and where some are newer than the graph."""
    vectors = unit(2000)
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch([f"i{i}" for i in range(2000)], vectors)])
        store.optimize()
        store.tag("before")
        store.delete([f"i{i}" for i in range(2000 - live)])
        store.upsert([batch(["new"], unit(1))])
        index, schema = store.info().index, store.schema
        columns = pa.schema([("half", pa.float64())])
        batches: list[pa.RecordBatch] = []

        def rewrite(rows: pa.RecordBatch) -> pa.RecordBatch:
            batches.append(rows)
            halves = pc.divide(vector_matrix(rows["vector"])[:, 0].astype(float), 2)
            return pa.record_batch([halves], columns)

        assert isinstance(store, AttributeWriter)
        store.rewrite_attributes(rewrite, columns)
        assert "HNSW" in index and store.info().index == index
        rows = store.scan().read_all()
        assert sum(map(len, batches)) == len(rows) == live + 1
        assert (
            pa.Table.from_batches(batches)
            .sort_by("id")
            .equals(rows.select(schema.names).sort_by("id"))
        )
        first = vector_matrix(rows["vector"])[:, 0]
        np.testing.assert_array_equal(rows["half"].to_numpy(), first.astype(float) / 2)
        hits = store.search(vectors[1999:], k=1)
        assert (hits["id"][0].as_py(), hits["half"][0].as_py()) == ("i1999", vectors[1999, 0] / 2)
        assert "half" not in store.as_of("before").schema.names
        with pytest.raises(ZeroDivisionError):
            store.rewrite_attributes(lambda rows: 1 // 0, columns)
        assert store.scan().read_all().equals(rows)


def test_graph_is_used_and_fresh_rows_are_scanned(uri: str, exact_calls: list[int]) -> None:
    with open_store(uri, MADE_BY) as store:
        vectors = fill(store)
        assert store.info().index == "exact scan"
        store.search(vectors[:3], k=5)
        assert exact_calls == [2000]
        store.optimize()
        info = store.info()
        assert info.index == "HNSW (M=16, efConstruction=200, efSearch=400) over 2000 rows"
        assert info.ann_recall > 0.99
        store.upsert([batch(["fresh"], -vectors[:1])])
        exact_calls.clear()
        hits = store.search(np.stack([vectors[7], -vectors[0]]), k=1)
        assert hits["id"].to_pylist() == ["i7", "fresh"]
        assert exact_calls == [1]
        assert store.info().index.endswith("exact scan of 1 fresh rows")
    with open_store(uri) as store:
        assert store.search(vectors[9], k=1)["id"].to_pylist() == ["i9"]
        assert store.info().ann_recall == info.ann_recall


def test_few_rows_have_no_graph(uri: str) -> None:
    with open_store(uri, MADE_BY) as store:
        fill(store, 999)
        store.optimize()
        assert (store.info().index, store.info().ann_recall) == ("exact scan", 1.0)


def test_large_upsert_rebuilds_the_graph(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nmslib_store, "FOLD_ROWS", 1500)
    monkeypatch.setattr(nmslib_store, "FOLD_SHARE", 0.5)
    with open_store(uri, MADE_BY) as store:
        fill(store)
        assert "over 2000 rows" in store.info().index
        store.upsert([batch([f"j{i}" for i in range(1400)], unit(1400, seed=1))])
        assert "over 2000 rows" in store.info().index
        store.upsert([batch([f"k{i}" for i in range(200)], unit(200, seed=2))])
        assert "over 3600 rows" in store.info().index


def write_rows(send: Callable[..., None], uri: str, count: int) -> None:
    nmslib_store.FOLD_ROWS = 100_000  # build no graph here
    with open_store(uri) as other:
        other.delete(["i7"])
        other.upsert([batch([f"j{i}" for i in range(count)], unit(count, seed=1))])


@pytest.mark.parametrize(("count", "rows"), [(10, 2000), (2000, 3999)])
def test_others_write_while_a_graph_is_built(
    uri: str, count: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is built again if their rows were merged with its own."""
    build = graphs.Graph.build
    builds: list[int] = []

    def build_during_a_write(matrix: np.ndarray, settings: graphs.GraphSettings) -> graphs.Graph:
        if not builds:
            run_in_a_process(write_rows, uri, count)
        builds.append(len(matrix))
        return build(matrix, settings)

    with open_store(uri, MADE_BY) as store:
        vectors = unit(2000)
        store.upsert([batch([f"i{i}" for i in range(2000)], vectors)])
        monkeypatch.setattr(graphs.Graph, "build", build_during_a_write)
        store.optimize()
        assert builds == [2000, rows][: 1 + (rows != 2000)]
        assert f"over {rows} rows" in store.info().index
        assert len(store) == 1999 + count
        everything = np.concatenate([vectors, unit(count, seed=1)])
        best = np.argsort(-(everything @ vectors[7]))[1:6]  # the first was deleted
        names = [f"i{i}" if i < 2000 else f"j{i - 2000}" for i in best]
        assert store.search(vectors[7], k=5)["id"].to_pylist() == names


def test_deleted_rows_do_not_reduce_the_hits(uri: str, exact_calls: list[int]) -> None:
    """You get k live rows, however many of the nearest ones are dead."""
    with open_store(uri, MADE_BY) as store:
        vectors = fill(store)
        store.optimize()
        order = np.argsort(-(vectors @ vectors[0]))
        for dead in (5, 300, 1950):
            store.delete([f"i{i}" for i in order[:dead]])
            hits = store.search(vectors[0], k=20)
            assert hits["id"].to_pylist() == [f"i{i}" for i in order[dead : dead + 20]]
        store.delete([f"i{i}" for i in order])
        assert store.search(vectors[0], k=20).num_rows == 0
        assert store.info().index == "exact scan"
        store.optimize()
        assert len(store) == 0


def test_equal_vectors(uri: str) -> None:
    """With more ties than the graph links or returns, hits are still the first ids."""
    with open_store(uri, MADE_BY) as store:
        vectors = np.concatenate([np.repeat(unit(3, seed=1), 400, axis=0), unit(800)])
        ids = [f"{(7 * i) % 2000:04}" for i in range(2000)]
        store.upsert([batch(ids, vectors)])
        store.optimize()
        hits = store.search(vectors[[0, 400, 800]], k=15)
        for query in range(3):
            expected = sorted(ids[400 * query : 400 * query + 400])[:15]
            assert hits["id"].to_pylist()[15 * query : 15 * query + 15] == expected


def test_single_queries_equal_a_batch(uri: str) -> None:
    """Some rows are equal, some of them many times."""
    vectors = np.concatenate([np.repeat(unit(1, seed=1), 90, axis=0), *[unit(600, seed=2)] * 2])
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch([f"{i:04}" for i in range(len(vectors))], vectors)])
        store.optimize()
        queries = np.concatenate([vectors[[0, 100]], unit(20, seed=5)])
        together = store.search(queries, 7)
        for number, query in enumerate(queries):
            expected = together.filter(pc.field("query") == number).drop_columns("query")
            assert store.search(query, 7).drop_columns("query").equals(expected)


def test_only_possible_hits_are_scored(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest node has enough rows, so the following nodes do not matter."""
    kinds = unit(1, seed=1) + 0.05 * unit(10, seed=3)
    kinds /= np.linalg.norm(kinds, axis=1, keepdims=True)
    vectors = np.concatenate([np.repeat(kinds, 300, axis=0), unit(1500, seed=2)])
    scored = []

    def noting(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
        scored.append(len(vectors))
        return usual(vectors, queries)

    usual = scoring.cosines
    monkeypatch.setattr(scoring, "cosines", noting)
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch([f"{i:04}" for i in range(len(vectors))], vectors)])
        store.optimize()
        hits = store.search(kinds[4], 10)
    assert hits["id"].to_pylist() == [f"{i:04}" for i in range(1200, 1210)]
    assert sum(scored) == 300


def test_equal_rows_share_nodes(uri: str, tmp_path: Path) -> None:
    """Most rows are equal, like blank tiles, and the others are still found."""
    vectors = np.concatenate([np.repeat(unit(1, seed=1), 1500, axis=0), unit(1100)])
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch([f"{i:04}" for i in range(2600)], vectors)])
        store.optimize()
        store.delete(["0003"])
        assert list((tmp_path / "store").glob("owners-*"))
    with (
        open_store(uri) as store,
        open_store(f"exact:{tmp_path}/exact", MADE_BY) as exact,
    ):
        exact.upsert(store.scan())
        queries = np.concatenate([vectors[:1], unit(50, seed=5)])
        assert store.search(queries, 5).equals(exact.search(queries, 5))
        assert store.search(queries[0], 5)["id"].to_pylist() == [f"000{i}" for i in (0, 1, 2, 4, 5)]


def test_distinct_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(40)[np.random.default_rng(0).integers(0, 40, 300)]
    for block in (graphs._BLOCK_ROWS, 7):
        monkeypatch.setattr(graphs, "_BLOCK_ROWS", block)
        first, owners = graphs.distinct_rows(vectors)
        assert len(first) == len(np.unique(vectors, axis=0))
        assert np.array_equal(vectors[first[owners]], vectors)


@pytest.mark.usefixtures("one_thread")
def test_many_queries_and_large_k(uri: str, tmp_path: Path) -> None:
    dim = 32
    made_by = Provenance("m", "weights:1", dim)
    with (
        open_store(uri, made_by) as store,
        open_store(f"exact:{tmp_path}/exact", made_by) as exact,
    ):
        vectors = fill(store, 3000, dim)
        fill(exact, 3000, dim)
        store.optimize()
        queries = vectors[:300] + 0.02 * unit(300, dim, seed=7)
        for k in (1, 10, 100, 3000):
            same = pa.concat_tables(
                [store.search(queries[:150], k), exact.search(queries[:150], k)]
            )
            half = same.num_rows // 2
            pairs = list(zip(same["query"].to_pylist(), same["id"].to_pylist(), strict=True))
            assert len(set(pairs[:half]) & set(pairs[half:])) / half > 0.999


def test_stdout_stays_clean(uri: str) -> None:
    code = (
        "import sys; import numpy as np; from rsicd_embed.stores.base import open_store\n"
        "s = open_store(sys.argv[1]); s.optimize()\n"
        "s.search(np.ones((2, 8))); s.search(np.ones(8)); s.close()"
    )
    with open_store(uri, MADE_BY) as store:
        fill(store)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, uri], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_disk_too_full_for_the_graph(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(uri, MADE_BY) as store:
        fill(store)
        before = stored(store)
        with monkeypatch.context() as patch:
            patch.setattr(
                graphs.shutil, "disk_usage", lambda path: os.terminal_size((0, 0)) and _Usage(1000)
            )
            with pytest.raises(StoreError, match="1000 bytes are free; free some space"):
                store.optimize()
        assert stored(store) == before
        assert not list((tmp_path / "store").glob("*graph*"))
        store.optimize()
        assert "HNSW" in store.info().index


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_graph_replaced_during_a_search(uri: str) -> None:
    """A reader uses the newer graph if its own is removed before it is loaded."""
    with open_store(uri, MADE_BY) as writer, open_store(uri) as reader:
        vectors = fill(writer)
        writer.optimize()
        stale = reader._now()
        writer.upsert([batch(["i0"], vectors[:1])])
        writer.optimize()
        states = iter([stale])
        fresh = reader._now
        reader._now = lambda: next(states, None) or fresh()  # type: ignore[method-assign]
        assert reader.search(vectors[5], k=1)["id"].to_pylist() == ["i5"]


def test_rows_are_stored_if_the_graph_cannot_be(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upsert succeeds even if rebuilding the graph fails afterwards."""
    monkeypatch.setattr(nmslib_store, "FOLD_ROWS", 100)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with open_store(uri, MADE_BY) as store:
        vectors = unit(1500)
        rows = batch([f"i{i}" for i in range(1500)], vectors)
        with monkeypatch.context() as patch:
            patch.setattr(graphs.Graph, "save", full)
            with pytest.warns(UserWarning, match="rows are stored.*No space left.*optimize"):
                assert store.upsert([rows]) == 1500
        assert store.search(vectors[5], k=1)["id"].to_pylist() == ["i5"]
        store.upsert([batch(["z"])])
        store.optimize()
        assert "HNSW" in store.info().index


def test_disk_error_while_saving_the_graph(tmp_path: Path) -> None:
    built = graphs.Graph.build(unit(100), graphs.GraphSettings())
    (tmp_path / "graph").mkdir()  # a folder, so writing a file there fails
    with pytest.raises(StoreError, match=r"cannot write a graph in .*; check the disk"):
        built.save(tmp_path / "graph", unit(1).shape[1], 16)


@pytest.mark.usefixtures("one_thread")
def test_ef_search_is_not_raised_without_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that the graph never finds must not slow down all later searches."""
    matrix = unit(2000)
    graph = graphs.Graph.build(matrix, graphs.GraphSettings())
    nearest = graphs.Graph.nearest

    def lacking(graph: graphs.Graph, *arguments: Any) -> graphs.GraphHits:
        hits = nearest(graph, *arguments)
        return graphs.GraphHits(hits.query[1:], hits.row[1:], hits.similarity[1:], None)

    monkeypatch.setattr(graphs.Graph, "nearest", lacking)
    assert graph.measure(matrix, graphs.GraphSettings(recall=1)) == graphs.Measured(400, 0.999)
