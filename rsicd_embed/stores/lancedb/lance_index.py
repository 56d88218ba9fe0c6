"""The approximate index over a LanceDB table's vectors: building, measuring and searching it.

IVF_SQ builds in seconds, and refining (comparing more rows exactly) makes up for its errors. The
number of partitions and rows to look at is measured on the table's own rows, and kept in the
metadata of its vector column.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from rsicd_embed.records import VECTOR
from rsicd_embed.stores import recall
from rsicd_embed.stores.base import StoreURI
from rsicd_embed.stores.lancedb._lazy_lancedb import lancedb
from rsicd_embed.stores.lancedb.lance_rows import part_of
from rsicd_embed.stores.row_view import Rows
from rsicd_embed.stores.scoring import Candidates, score_pairs

# Smaller tables are cached in memory: an exact search of 120,000 × 512 takes 7 ms, and one through
# the index 12 ms (benchmarks/ann-lancedb-120k).
INDEX_ROWS = 200_000
STALE_ROWS = 50_000  # rows that are not indexed yet are scanned, at about 2 µs each
RECALL_GOAL = 0.99
_LADDER = ((20, 2), (50, 4), (100, 8), (200, 16), (400, 32))  # partitions, refine factor
_SPARE = 2  # hits fetched beyond k, so that rounding does not hide a better one
_REBUILD = 2.0  # growth or shrinkage of the table after which the index is rebuilt
_MEASURE = 1.1  # … and after which it is measured again
_KEY = b"rsicd-embed.index"
_NAME = "vector_idx"

T = TypeVar("T")
# Exact similarity of the k-th best row of each of float32 (q, dim) queries.
KthBest = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class AnnIndex:
    """The settings of an index.

    Attributes:
        built_rows: number of rows when it was built.
        rows: number of rows when it was measured.
        partitions: partitions searched per query.
        refine: multiple of k rows that are compared exactly.
        ann_recall: ANN recall@10 with these settings.
    """

    built_rows: int
    rows: int
    partitions: int
    refine: int
    ann_recall: float

    def __str__(self) -> str:
        return (
            f"IVF_SQ (nprobes={self.partitions}, refine={self.refine}) "
            f"measured over {self.rows} rows"
        )


@dataclass(frozen=True)
class IndexSettings:
    """The options of a store URI that concern the index.

    Attributes:
        goal: ANN recall@10 that the index is tuned to.
        partitions, refine: search settings; None for the measured ones.
    """

    goal: float = RECALL_GOAL
    partitions: int | None = None
    refine: int | None = None

    @classmethod
    def of(cls, uri: StoreURI) -> IndexSettings:
        """Parses the options of a URI; StoreURIError for an unknown or invalid one."""
        given = uri.numbers(recall=(0.1, 1), nprobes=(1, 100_000), refine=(1, 1000))
        partitions, refine = (
            int(given[name]) if name in given else None for name in ("nprobes", "refine")
        )
        return cls(given.get("recall", RECALL_GOAL), partitions, refine)

    def applied(self, index: AnnIndex) -> AnnIndex:
        """The index with its search settings replaced by those of the URI."""
        return replace(
            index,
            partitions=self.partitions or index.partitions,
            refine=self.refine or index.refine,
        )


def stored_index(schema: pa.Schema) -> AnnIndex | None:
    """Reads the index settings from a table's schema; None if there are none."""
    raw = (schema.field(VECTOR).metadata or {}).get(_KEY)
    try:
        return AnnIndex(**json.loads(raw)) if raw else None
    except (ValueError, TypeError):
        return None


def is_due(table: Any, index: AnnIndex | None, rows: int, cached_rows: int) -> bool:
    """Whether an upsert should update the index; up to `cached_rows` rows need none."""
    if index is None:
        return rows > max(cached_rows, INDEX_ROWS)
    stats = table.index_stats(_NAME)
    stale = stats.num_unindexed_rows if stats else rows
    return int(stale) > max(STALE_ROWS, index.rows // 5)


class SearchedTable:
    """A table that is only searched by its index, at the version given with each search.

    It uses LanceDB's asynchronous interface: the synchronous one takes milliseconds to convert each
    query to Python numbers and back, and to switch threads several times.
    """

    def __init__(self, database: str, name: str, uri: str) -> None:
        """Opens nothing before the first search; `uri` is the store's, for messages."""
        self._database, self._name, self.uri = database, name, uri
        self._open: tuple[Any, int] | None = None  # the table, and the version it is at

    def nearest(
        self, index: AnnIndex, units: np.ndarray, k: int, schema: pa.Schema, version: int
    ) -> tuple[Rows, Candidates]:
        """Finds approximately the k nearest rows to each query, and a few more.

        Args:
            index: settings to search with.
            units: (q, dim) of unit norm, q ≥ 1.
            k: number of rows per query.
            schema: schema of the rows.
            version: version of the table to search.

        Returns:
            Rows, and pairs of query numbers and their positions.
        """
        queries = units.astype(np.float32)
        vectors = queries[0] if len(queries) == 1 else [*queries]

        async def search() -> pa.Table:
            table = await self._at(version)
            query = table.query().nearest_to(vectors).column(VECTOR).distance_type("cosine")
            query = query.nprobes(index.partitions).refine_factor(index.refine).limit(k + _SPARE)
            # LanceDB logs a warning for each query that does not select the distance.
            return await query.select([*schema.names, "_distance"]).to_arrow()

        hits = _run(search())
        batches = hits.combine_chunks().to_batches()
        if not batches:
            return Rows(schema, ()), Candidates(*(np.zeros(0, np.int64),) * 2)
        query = np.zeros(len(hits), np.int64)
        if len(units) > 1:
            query = hits["query_index"].to_numpy().astype(np.int64)
        rows = Rows(schema, (part_of(batches[0], schema, self.uri),))
        return rows, Candidates(query, np.arange(len(hits)))

    def close(self) -> None:
        """Releases the table; another search would reopen it."""
        self._open = None

    async def _at(self, version: int) -> Any:
        if self._open is None:
            database = await lancedb.connect_async(self._database)
            table, current = await database.open_table(self._name), -1
        else:
            table, current = self._open
        if current != version:
            await table.checkout(version)
            self._open = (table, version)
        return table


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in the event loop that all searches of this process share."""
    future = asyncio.run_coroutine_threadsafe(work, _loop(os.getpid()))
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


@lru_cache(maxsize=1)
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The event loop of a process, since its thread does not survive a fork."""
    del process
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rsicd-embed-lancedb", daemon=True).start()
    return loop


def update(
    table: Any,
    searched: SearchedTable,
    index: AnnIndex | None,
    rows: int,
    schema: pa.Schema,
    kth_best: KthBest,
    goal: float,
) -> None:
    """Builds, rebuilds or measures the index of an optimised table, depending on its growth."""
    if rows < INDEX_ROWS:
        return
    missing = table.index_stats(_NAME) is None
    if index is None or missing or not 1 / _REBUILD <= rows / index.built_rows <= _REBUILD:
        table.create_index(
            VECTOR, config=lancedb.index.IvfSq(distance_type="cosine"), replace=True, name=_NAME
        )
        index = AnnIndex(rows, rows, 0, 0, 0.0)
    elif 1 / _MEASURE <= rows / index.rows <= _MEASURE:
        return
    index = _measure(table, searched, replace(index, rows=rows), schema, kth_best, goal)
    metadata = {_KEY.decode(): json.dumps(asdict(index))}
    table.update_field_metadata({"path": VECTOR, "metadata": metadata})


def _measure(
    table: Any,
    searched: SearchedTable,
    index: AnnIndex,
    schema: pa.Schema,
    kth_best: KthBest,
    goal: float,
) -> AnnIndex:
    """The lowest settings of the ladder that reach the goal, or its last ones."""
    offsets = sorted(recall.sample(index.rows).tolist())
    batch = table.take_offsets(offsets).select(schema.names).to_arrow().combine_chunks()
    queries = recall.queries_near(part_of(batch.to_batches()[0], schema, searched.uri).matrix)
    kth = kth_best(queries, recall.K)
    version = int(table.version)
    for partitions, refine in _LADDER:
        index = replace(index, partitions=partitions, refine=refine)
        rows, pairs = searched.nearest(index, queries, recall.K, schema, version)
        scores = score_pairs(rows, queries.astype(np.float64), pairs)
        similarities = [
            np.sort(scores[pairs.query == query])[-recall.K :] for query in range(len(queries))
        ]
        index = replace(index, ann_recall=recall.recall(similarities, kth, recall.K))
        if index.ann_recall >= goal:
            break
    return index
