"""Searches and upserts in each store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rsicd_embed.bench.ann.workload import PART, Workload, threshold
from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import VectorStore, open_store, row_vectors
from tests.benchmarks.conftest import DIM, QUERIES, ROWS, K
from tests.helpers import SCHEMES

MADE_BY = Provenance("benchmarks", "weights:none", DIM)
TENTH = f"{PART} < {threshold(10)}"
UPSERTED, ROUNDS = 2_000, 10


@pytest.fixture(scope="module", params=SCHEMES)
def store(
    request: pytest.FixtureRequest, rows: Workload, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VectorStore]:
    """All rows, optimized."""
    with open_store(f"{request.param}:{tmp_path_factory.mktemp('store')}/rows", MADE_BY) as store:
        store.upsert(rows.batches(ROWS))
        store.optimize()
        yield store


@pytest.mark.parametrize("where", [None, TENTH], ids=["all", "tenth"])
@pytest.mark.benchmark(group="searches for one query")
def test_search(benchmark: Any, store: VectorStore, rows: Workload, where: str | None) -> None:
    queries = itertools.cycle(range(QUERIES))

    def search() -> pa.Table:
        at = next(queries)
        return store.search(rows.queries[at : at + 1], K, where)

    assert benchmark(search).num_rows == K


@pytest.mark.parametrize("where", [None, TENTH], ids=["all", "tenth"])
@pytest.mark.benchmark(group=f"searches for {QUERIES} queries at once")
def test_search_batch(
    benchmark: Any, store: VectorStore, rows: Workload, where: str | None
) -> None:
    assert benchmark(store.search, rows.queries, K, where).num_rows == K * QUERIES


@pytest.mark.benchmark(group="look-ups of one row's vector by id")
def test_look_up(benchmark: Any, store: VectorStore) -> None:
    """What an example costs in a composed query; each round looks up another id."""
    with store.scan(["id"]) as reader:
        ids = itertools.cycle(reader.read_all()["id"].to_pylist())

    def look_up() -> int:
        return len(row_vectors(store, [next(ids)]))

    assert benchmark(look_up) == 1


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.benchmark(group=f"upserts of {UPSERTED:,} rows")
def test_upsert(benchmark: Any, rows: Workload, tmp_path: Path, scheme: str) -> None:
    """Each round upserts into a new store."""
    batch = next(rows.batches(UPSERTED))
    numbers = itertools.count()

    def empty() -> tuple[tuple[VectorStore], dict[str, Any]]:
        return (open_store(f"{scheme}:{tmp_path / str(next(numbers))}", MADE_BY),), {}

    count = benchmark.pedantic(
        lambda store: store.upsert([batch]),
        setup=empty,
        teardown=lambda store: store.close(),
        rounds=ROUNDS,
        warmup_rounds=1,
    )
    assert count == UPSERTED
