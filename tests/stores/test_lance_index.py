"""LanceDB's own index, which is built once a table is large enough."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.stores.lancedb import lance_index, lance_reader, lance_rows, lance_store
from rsicd_embed.stores.lancedb.lance_index import AnnIndex, Matches
from rsicd_embed.stores.lancedb.large_table import LargeTable
from tests.other_writer import run_in_a_process

from .contract import MADE_BY, batch, unit

ROWS = 3000


def with_small_indexes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lance_index, "INDEX_ROWS", 1000)
    patch.setattr(lance_reader, "CACHE_ROWS", 1000)
    patch.setattr(lance_store, "_QUERIES", 120)


@pytest.fixture(autouse=True)
def small_tables_have_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    with_small_indexes(monkeypatch)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an index, which tests copy."""
    folder = tmp_path_factory.mktemp("indexed") / "store"
    with pytest.MonkeyPatch.context() as patch, open_store(f"lancedb:{folder}", MADE_BY) as opened:
        with_small_indexes(patch)
        names = [f"{i:05}" for i in range(ROWS)]
        opened.upsert([batch(names, unit(ROWS), label=["a", "b", None] * (ROWS // 3))])
        opened.optimize()
    return folder


@pytest.fixture
def store(indexed: Path, tmp_path: Path) -> Iterator[VectorStore]:
    shutil.copytree(indexed, tmp_path / "store")
    with open_store(f"lancedb:{tmp_path / 'store'}", MADE_BY) as opened:
        yield opened


@pytest.fixture
def exact_searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of queries of each search that does not use the index."""
    calls: list[int] = []
    search = LargeTable.search

    def counted(self: LargeTable, units: np.ndarray, k: int, matches: Matches | None) -> pa.Table:
        calls.append(len(units))
        return search(self, units, k, matches)

    monkeypatch.setattr(LargeTable, "search", counted)
    return calls


def exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> list[list[str]]:
    order = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]
    return [[f"{i:05}" for i in row] for row in order]


def by_query(hits: pa.Table, queries: int) -> list[list[str]]:
    rows = hits.to_pylist()
    return [[row["id"] for row in rows if row["query"] == query] for query in range(queries)]


def test_recall_is_measured_and_reported(store: VectorStore) -> None:
    info = store.info()
    assert re.match(
        r"IVF_SQ \(nprobes=\d+( or down to \d+ near rows)?, refine=[248]\) "
        r"measured over 3000 rows: "
        r"ANN recall@10 (0\.99\d|1\.000)(, (0\.99\d|1\.000) with filters for \d+%)*$",
        info.index,
    )
    assert info.ann_recall is not None
    assert lance_index.RECALL_GOAL <= info.ann_recall <= 1.0


def write_rows(send: Callable[..., None], uri: str) -> None:
    with open_store(uri) as other:
        other.delete(["00007"])
        other.upsert([batch(["n"], unit(1, seed=9))])


@pytest.mark.parametrize("both_optimize", [False, True])
def test_others_write_while_the_index_is_measured(
    both_optimize: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = lance_index.measure

    def measured_during_a_write(index: AnnIndex, *arguments: Any) -> AnnIndex:
        monkeypatch.setattr(lance_index, "measure", measure)
        run_in_a_process(write_rows, store.uri)
        if both_optimize:
            with open_store(store.uri) as other:
                other.optimize()
        return measure(index, *arguments)

    with open_store(f"lancedb:{tmp_path / 'store'}", MADE_BY) as store:
        store.upsert([batch([f"{i:05}" for i in range(ROWS)], unit(ROWS))])
        monkeypatch.setattr(lance_index, "measure", measured_during_a_write)
        store.optimize()
        assert f"measured over {ROWS} rows" in store.info().index
        assert len(store) == ROWS
        assert store.search(unit(1, seed=9), k=1)["id"].to_pylist() == ["n"]
        near = store.search(unit(ROWS)[7], k=3)["id"].to_pylist()
        assert near == [id_ for id_ in exact(unit(ROWS), unit(ROWS)[7:8], 4)[0] if id_ != "00007"]


def test_searches_use_the_index(store: VectorStore, exact_searches: list[int]) -> None:
    exact_searches.clear()
    queries = unit(40, seed=1)
    hits = store.search(queries, k=10)
    assert not exact_searches
    wanted = exact(unit(ROWS), queries, 10)
    same = sum(len(set(a) & set(b)) for a, b in zip(by_query(hits, 40), wanted, strict=True))
    assert same / 400 >= 0.99
    assert hits["score"].to_pylist()[:10] == sorted(hits["score"].to_pylist()[:10], reverse=True)
    single = store.search(queries[3], k=10)
    assert by_query(single, 1)[0] == by_query(hits, 40)[3]
    assert single["score"].to_pylist() == hits["score"].to_pylist()[30:40]


def test_large_k_is_exact(store: VectorStore, exact_searches: list[int]) -> None:
    exact_searches.clear()
    assert len(store.search(unit(1, seed=2), k=ROWS + 5)) == ROWS
    assert exact_searches == [1]


def test_rows_written_after_the_build_are_found(store: VectorStore) -> None:
    queries = unit(3, seed=9)
    store.upsert([batch(["new", "00000"], queries[:2])])
    assert [ids[0] for ids in by_query(store.search(queries, k=5), 3)][:2] == ["new", "00000"]
    store.delete(["new"])
    assert "new" not in by_query(store.search(queries, k=5), 3)[0]
    store.upsert([batch(["new"], queries[2:])])
    assert [ids[0] for ids in by_query(store.search(queries, k=5), 3)][1:] == ["00000", "new"]
    store.optimize()
    assert by_query(store.search(queries[2], k=1), 1) == [["new"]]


def test_settings_are_stored_in_the_table(store: VectorStore, tmp_path: Path) -> None:
    before = store.info()
    with open_store(f"lancedb:{tmp_path / 'store'}", MADE_BY) as again:
        assert again.info().index == before.index
        assert again.info().ann_recall == before.ann_recall


def test_growth_measures_and_then_rebuilds_the_index(store: VectorStore) -> None:
    def write(count: int, seed: int) -> None:
        store.upsert([batch([f"{seed}-{i}" for i in range(count)], unit(count, seed=seed))])

    write(400, 1)
    store.optimize()
    assert "over 3400 rows" in store.info().index
    write(100, 2)  # too few to measure again
    store.optimize()
    assert "over 3400 rows" in store.info().index
    write(4000, 3)
    assert "over 3400 rows" in store.info().index  # until it is optimised
    store.optimize()
    assert "over 7500 rows" in store.info().index
    queries = unit(20, seed=3)
    assert [ids[0] for ids in by_query(store.search(queries, k=1), 20)] == [
        f"3-{i}" for i in range(20)
    ]


def test_settings_increase_until_the_goal_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_index, "_LADDER", (1, 2, 32))
    monkeypatch.setattr(lancedb.index, "IvfSq", partial(lancedb.index.IvfSq, num_partitions=32))
    with open_store(f"lancedb:{tmp_path / 'store'}", MADE_BY) as store:
        store.upsert([batch([str(i) for i in range(ROWS)], unit(ROWS))])
        store.optimize()
        info = store.info()
        assert re.search(r"nprobes=32( or down to \d near rows)?, refine=[248]", info.index)
        assert info.ann_recall is not None
        assert info.ann_recall >= 0.99


def test_search_without_the_index_files_stays_correct(store: VectorStore, tmp_path: Path) -> None:
    table = lancedb.connect(tmp_path / "store").open_table("images")
    table.drop_index("vector_idx")
    queries = unit(5, seed=4)
    assert by_query(store.search(queries, k=10), 5) == exact(unit(ROWS), queries, 10)
    store.optimize()
    table.checkout_latest()
    assert table.index_stats("vector_idx").num_unindexed_rows == 0


@pytest.mark.parametrize("metadata", ["not JSON", "[]", json.dumps({"rows": 1})])
def test_foreign_metadata(store: VectorStore, tmp_path: Path, metadata: str) -> None:
    table = lancedb.connect(tmp_path / "store").open_table("images")
    table.update_field_metadata({"path": "vector", "metadata": {"rsicd-embed.index": metadata}})
    assert store.info().index == "exact scan"
    assert by_query(store.search(unit(1, seed=5), k=10), 1) == exact(
        unit(ROWS), unit(1, seed=5), 10
    )
    store.optimize()
    assert store.info().index.startswith("IVF_SQ")


def test_kth_scores_are_those_of_an_exact_search() -> None:
    vectors, queries = unit(700), unit(20, seed=1).astype(np.float64)
    mask = np.random.default_rng(0).random(700) < 0.2
    few = np.arange(700) < 4
    blocks = [(slice(at, at + 100), vectors[at : at + 100]) for at in range(0, 700, 100)]
    every, masked, missing = lance_rows.kth_scores(blocks, queries, 5, [None, mask, few])
    similarities = queries @ vectors.T
    np.testing.assert_allclose(every, np.sort(similarities)[:, -5], atol=1e-6)
    np.testing.assert_allclose(masked, np.sort(similarities[:, mask])[:, -5], atol=1e-6)
    assert set(missing.tolist()) == {-2}


def test_each_level_gets_the_fewest_partitions_that_suffice() -> None:
    """The recall of a query is 1 from as many partitions on as it needs, and 0 before."""
    nearness = np.linspace(1, 0, 90)
    needed = np.repeat([4, 20, 300], 30)

    def recalls(index: AnnIndex, chosen: np.ndarray) -> np.ndarray:
        reached: np.ndarray = (index.partitions >= needed[chosen]).astype(float)
        return reached

    index = lance_index._with_levels(AnnIndex(9, 9, 0, 2, 0.0), nearness, recalls)
    assert [level.partitions for level in index.levels or ()] == [5, 20]
    assert index.partitions == 340
    assert index.ann_recall == 1.0
    found = [index.partitions_for(value) for value in nearness]
    assert found == [5] * 30 + [20] * 30 + [340] * 30


def test_the_index_of_an_earlier_version_is_still_used(store: VectorStore, tmp_path: Path) -> None:
    table = lancedb.connect(tmp_path / "store").open_table("images")
    earlier = {"built_rows": ROWS, "rows": ROWS, "partitions": 7, "refine": 4, "ann_recall": 0.995}
    earlier |= {"near_partitions": 3, "near_score": 0.5, "filtered": [[0.5, 9, 0.99]], "goal": 0.99}
    value = {"path": "vector", "metadata": {"rsicd-embed.index": json.dumps(earlier)}}
    table.update_field_metadata(value)
    assert store.info().index.startswith("IVF_SQ (nprobes=7, refine=4) measured over 3000 rows")
    assert len(store.search(unit(1), k=10)) == 10
    store.optimize()  # measures the levels
    index = lance_index.stored_index(lancedb.connect(tmp_path / "store")["images"].schema)
    assert index is not None
    assert index.levels is not None
