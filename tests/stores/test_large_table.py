"""LanceDB tables too large to cache: filters, codes and budgets leave the hits as they are."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.errors import FilterError, StoreError
from rsicd_embed.stores import quantised
from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.stores.filters import CACHED_FILTERS, RecentFilters
from rsicd_embed.stores.lancedb import (
    lance_index,
    lance_reader,
    lance_store,
    large_table,
    search_costs,
)
from rsicd_embed.stores.lancedb.lance_index import AnnIndex, FilteredRecall
from rsicd_embed.stores.lancedb.lance_store import LanceStore
from rsicd_embed.stores.lancedb.large_table import LargeTable
from rsicd_embed.stores.planner import SearchCosts

from .contract import MADE_BY, batch, unit

ROWS = 1200
WHERES = (
    "n >= 600",
    "n % 10 = 3",
    "n < 7",
    "n < 0",
    "n >= 0",
    "label = 'b'",
    "label IS NULL",
    "nothing IS NULL",
    "nothing = 1",
    "at > TIMESTAMP '2024-01-02'",
    "array_has(tags, 't3')",
    '"Odd ""name""" = 2',
    "id LIKE '%7'",
    "1 = 1",
    "shape = X'0102'",
)


def rows(start: int = 0, count: int = ROWS, seed: int = 0) -> pa.RecordBatch:
    numbers = list(range(start, start + count))
    columns = {
        "n": numbers,
        "label": [("a", "b", None)[n % 3] for n in numbers],
        "nothing": pa.nulls(count, pa.int64()),
        "at": [dt.datetime(2024, 1, 1) + dt.timedelta(minutes=2 * n) for n in numbers],
        "tags": [[f"t{n % 5}"] for n in numbers],
        'Odd "name"': [n % 4 for n in numbers],
        "shape": pa.array([b"\1\2" if n % 2 else None for n in numbers], pa.binary()),
    }
    return batch([f"{n:05}" for n in numbers], unit(count, seed=seed), **columns)


def with_large_tables(patch: pytest.MonkeyPatch) -> None:
    """Small tables have an index and are above the limit of the cache."""
    patch.setattr(lance_reader, "CACHE_ROWS", 100)
    patch.setattr(lance_reader, "_LARGEST_SHARE", 1.0)
    patch.setattr(lance_index, "INDEX_ROWS", 1000)
    patch.setattr(lance_store, "_QUERIES", 60)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both stores of `pair`, which tests copy."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        with_large_tables(patch)
        for scheme in ("exact", "lancedb"):
            with open_store(f"{scheme}:{folder}/{scheme}", MADE_BY) as store:
                store.upsert([rows()])
                store.optimize()
    return folder


@pytest.fixture
def pair(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[VectorStore, LanceStore]]:
    """The same rows in an exact store, and in an indexed table above the limit of the cache."""
    with_large_tables(monkeypatch)
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    with (
        open_store(f"exact:{tmp_path}/exact", MADE_BY) as exact,
        open_store(f"lancedb:{tmp_path}/lancedb", MADE_BY) as large,
    ):
        assert isinstance(large, LanceStore)
        yield exact, large


def same_hits(pair: tuple[VectorStore, VectorStore], where: str | None, k: int = 7) -> None:
    exact, large = pair
    for queries in (unit(3, seed=8), unit(1, seed=9)):
        assert large.search(queries, k, where) == exact.search(queries, k, where), where


@pytest.mark.parametrize("path", ["rows in memory", "codes", "stream", "index"])
def test_filters_mean_the_same_on_every_path(
    pair: tuple[VectorStore, LanceStore], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    always, never = SearchCosts(0, 0, 1e6), SearchCosts(1e9, 0, 0)
    costs = always if path == "index" else never
    monkeypatch.setattr(search_costs, "by_codes", lambda dim: costs)
    monkeypatch.setattr(search_costs, "BY_READING", costs)
    monkeypatch.setattr(search_costs, "_PARTITION_US", 0)
    monkeypatch.setattr(search_costs, "_PARTITION_NUMBER_US", 0)
    if path != "rows in memory":
        monkeypatch.setattr(large_table, "_ROWS_SHARE", 0.0)
    if path == "codes":
        monkeypatch.setattr(large_table, "_QUANTISE_US", -1.0)
    else:
        monkeypatch.setattr(large_table, "_CODES_SHARE", 0.0)
    if path == "index":
        everything = FilteredRecall(0.0, 400, 1.0)
        monkeypatch.setattr(AnnIndex, "for_share", lambda self, share: everything)
    by_index: list[bool] = []
    search_index = LargeTable.search_index

    def watched(self: LargeTable, *arguments: Any) -> pa.Table | None:
        hits = search_index(self, *arguments)
        by_index.append(hits is not None)
        return hits

    monkeypatch.setattr(LargeTable, "search_index", watched)
    for where in (*WHERES, None):
        same_hits(pair, where)
        same_hits(pair, where)  # what was cached by the first search
        if where is None or where == "n >= 600":
            assert any(by_index) == (path == "index" or (where is None and path != "codes"))
        by_index.clear()
    state = pair[1]._state
    assert state is not None
    assert state.large is not None
    assert (state.large._codes is not None) == (path == "codes")


def test_vectors_are_coded_once_the_index_has_lost_that_time(
    pair: tuple[VectorStore, LanceStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, large = pair
    monkeypatch.setattr(search_costs, "_PARTITION_US", 10_000)
    monkeypatch.setattr(large_table, "_QUANTISE_US", 1e9)
    large.search(unit(1, seed=9), 7)
    state = large._state
    assert state is not None
    assert state.large is not None
    assert state.large._spent_us > 0
    monkeypatch.setattr(large_table, "_QUANTISE_US", 1.5 * state.large._spent_us / (8 * ROWS))
    many = unit(quantised.MOST_QUERIES + 1, seed=8)
    assert large.search(many, 7) == exact.search(many, 7)
    assert state.large._codes is None  # for many queries the index stays faster
    same_hits(pair, None)
    assert state.large._codes is not None


def test_queries_that_share_hits(
    pair: tuple[VectorStore, LanceStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, large = pair
    monkeypatch.setattr(large_table, "_FETCH_US", 0)  # attributes are not cached
    queries = np.repeat(unit(2, seed=8), 40, axis=0)
    for where in (None, "n >= 600", "n < 7"):
        assert large.search(queries, 10, where) == exact.search(queries, 10, where)


def test_attributes_are_cached_after_some_searches(
    pair: tuple[VectorStore, LanceStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_table, "_FETCH_US", 1e9)
    same_hits(pair, None)
    same_hits(pair, "n >= 600")
    monkeypatch.setattr(large_table, "_ATTRIBUTES_SHARE", 0.0)
    pair[1].upsert([rows(5, 1)])
    pair[0].upsert([rows(5, 1)])
    same_hits(pair, None)
    same_hits(pair, "n >= 600")


def test_rows_of_a_filter_that_stays_are_cached(
    pair: tuple[VectorStore, LanceStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = FilteredRecall(0.0, 400, 1.0)
    monkeypatch.setattr(AnnIndex, "for_share", lambda self, share: everything)
    monkeypatch.setattr(search_costs, "BY_READING", SearchCosts(0, 1, 1))
    monkeypatch.setattr(search_costs, "_PARTITION_US", 0)
    monkeypatch.setattr(search_costs, "_PARTITION_NUMBER_US", 0)
    same_hits(pair, "n >= 600")
    state = pair[1]._state
    assert state is not None
    assert state.large is not None
    assert state.large.matches("n >= 600").rows is None
    for _ in range(10):
        same_hits(pair, "n >= 600")
    assert state.large.matches("n >= 600").rows is not None


def test_changes_by_others_are_seen(pair: tuple[VectorStore, LanceStore], tmp_path: Path) -> None:
    exact, _ = pair
    same_hits(pair, "n >= 600")
    with open_store(f"lancedb:{tmp_path}/lancedb", MADE_BY) as writer:
        for store in (exact, writer):
            store.upsert([rows(1100, 300, seed=4)])
            store.delete([f"{n:05}" for n in range(600, 700)])
        same_hits(pair, "n >= 600")
        writer.optimize()
        same_hits(pair, "n >= 600")
    table = lancedb.connect(tmp_path / "lancedb").open_table("images")
    table.optimize()
    same_hits(pair, "n >= 600")


def test_a_column_newer_than_the_index(pair: tuple[VectorStore, LanceStore]) -> None:
    same_hits(pair, "n < 50")
    for store in pair:
        store.upsert([batch(["new"], unit(1, seed=8)[:1], added=[True])])
    same_hits(pair, "added")
    same_hits(pair, "added IS NULL AND n < 50")


def test_an_empty_table(
    pair: tuple[VectorStore, LanceStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_reader, "CACHE_ROWS", -1)
    for store in pair:
        store.delete([f"{n:05}" for n in range(ROWS)])
    for where in (*WHERES, None):
        same_hits(pair, where)


def test_wrong_filters_name_all_columns(pair: tuple[VectorStore, LanceStore]) -> None:
    with pytest.raises(FilterError, match="label"):
        pair[1].search(unit(1), 5, "nope = 1")
    with pytest.raises(FilterError, match="expected a SQL condition"):
        pair[1].search(unit(1), 5, "")


def test_an_index_that_another_tool_removed(
    pair: tuple[VectorStore, LanceStore], tmp_path: Path
) -> None:
    lancedb.connect(tmp_path / "lancedb").open_table("images").drop_index("vector_idx")
    same_hits(pair, None)
    same_hits(pair, "n >= 600")


@pytest.mark.parametrize("damage", ["removed", "empty", "overwritten"])
def test_damaged_index_files(
    pair: tuple[VectorStore, LanceStore], tmp_path: Path, damage: str
) -> None:
    exact, large = pair
    large.close()
    for path in (tmp_path / "lancedb" / "images.lance" / "_indices").rglob("*.idx"):
        if damage == "removed":
            path.unlink()
        else:
            path.write_bytes(b"" if damage == "empty" else bytes(path.stat().st_size))
    with open_store(f"lancedb:{tmp_path}/lancedb", MADE_BY) as again:
        for where in ("n < 50", "n >= 600", None):
            same_hits((exact, again), where)
        again.optimize()
        assert again.info().index.startswith("IVF_SQ")
        same_hits((exact, again), None)


def test_rows_that_lancedb_itself_appended(
    pair: tuple[VectorStore, LanceStore], tmp_path: Path
) -> None:
    same_hits(pair, "n >= 600")
    table = lancedb.connect(tmp_path / "lancedb").open_table("images")
    added = pa.Table.from_batches([rows(ROWS, 50, seed=8)])
    table.add(added)
    pair[0].upsert([rows(ROWS, 50, seed=8)])
    for where in ("n >= 600", "n >= 1200", None):
        same_hits(pair, where)
    table.optimize(cleanup_older_than=dt.timedelta(milliseconds=1), delete_unverified=True)
    for where in ("n >= 600", "n >= 1200", None):
        same_hits(pair, where)


@pytest.mark.parametrize("value", ["0", "-5", "lots", "1.5"])
def test_wrong_budgets_are_refused(
    pair: tuple[VectorStore, LanceStore], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("RSICD_EMBED_MEMORY", value)
    pair[1].upsert([rows(0, 1)])  # a new version, with new caches
    with pytest.raises(StoreError, match="RSICD_EMBED_MEMORY: expected a positive number of"):
        pair[1].search(unit(1), 5, "n < 5")


def test_the_smallest_budget(
    pair: tuple[VectorStore, LanceStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_table, "_QUANTISE_US", -1.0)
    monkeypatch.setattr(large_table, "_MEGABYTE", 64)  # less than one row of anything
    monkeypatch.setenv("RSICD_EMBED_MEMORY", "1")
    for store in pair:
        store.upsert([rows(0, 1)])
    for where in (*WHERES, None):
        same_hits(pair, where)


def test_recent_filters_are_evaluated_once() -> None:
    recent: RecentFilters[int] = RecentFilters()
    calls: list[str] = []

    def evaluate(where: str) -> int:
        calls.append(where)
        return len(calls)

    assert [recent.result(where, evaluate) for where in ("a", "b", "a")] == [1, 2, 1]
    for number in range(CACHED_FILTERS - 1):
        recent.result(f"c{number}", evaluate)
    assert recent.result("a", evaluate) == 1  # used more recently than b
    assert recent.result("b", evaluate) == CACHED_FILTERS + 2


@pytest.mark.parametrize("where", ["at > now() - INTERVAL '1 hour'", "at < CURRENT_TIMESTAMP"])
def test_filters_on_the_time_are_evaluated_each_time(where: str) -> None:
    recent: RecentFilters[object] = RecentFilters()
    assert recent.result(where, lambda _: object()) is not recent.result(where, lambda _: object())


def test_measured_recall_is_kept_with_the_index(pair: tuple[VectorStore, LanceStore]) -> None:
    index = lance_index.stored_index(pair[1]._table.schema)
    assert index is not None
    assert index.filtered is not None
    assert 0.99 <= index.ann_recall <= 1.0
    assert np.all([0.99 <= entry.ann_recall <= 1.0 for entry in index.filtered])


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_optimize_removes_old_files_unless_they_are_read(
    pair: tuple[VectorStore, LanceStore], tmp_path: Path
) -> None:
    large, folder = pair[1], tmp_path / "lancedb" / "images.lance" / "data"
    before = files(folder)
    batches = iter(large.scan(["id"], "n >= 0"))
    ids = next(batches)["id"].to_pylist()
    for number in range(3):
        large.upsert([rows(number, 1, seed=3)])
    large.optimize()
    during = files(folder)
    assert before < during
    ids += [id_ for rest in batches for id_ in rest["id"].to_pylist()]
    assert ids == [f"{n:05}" for n in range(ROWS)]
    (tmp_path / "lancedb" / ".images.read-left-by-a-killed-process.lock").touch()
    large.upsert([rows(9, 1, seed=3)])
    large.optimize()
    assert len(during - files(folder)) >= 3
    assert len(large._table.list_versions()) <= 2
    assert not list((tmp_path / "lancedb").glob(".images.read-*"))


def test_a_search_starts_again_if_its_version_is_removed(
    pair: tuple[VectorStore, LanceStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, large = pair
    matches, calls = LargeTable.matches, []

    def removed_first(self: LargeTable, where: str) -> Any:
        if not calls:
            calls.append(where)
            with open_store(f"lancedb:{tmp_path}/lancedb", MADE_BY) as writer:
                for store in (exact, writer):
                    store.upsert([rows(40, 300, seed=6)])
                    store.optimize()
        return matches(self, where)

    monkeypatch.setattr(LargeTable, "matches", removed_first)
    hits = large.search(unit(2, seed=8), 7, "n >= 600")
    assert calls
    assert hits == exact.search(unit(2, seed=8), 7, "n >= 600")
