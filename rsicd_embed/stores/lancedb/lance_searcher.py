"""Searches of a LanceDB table through its index, by LanceDB's asynchronous interface."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from rsicd_embed.records import VECTOR
from rsicd_embed.stores.lancedb._lazy_lancedb import lancedb

T = TypeVar("T")


@dataclass(frozen=True)
class IndexHits:
    """Hits of an index, by query, then nearest first.

    Attributes:
        query: int64 (m,), number of the query.
        row_id: uint64 (m,), LanceDB's number of the row.
        vectors: the rows' vectors, if they were read.
    """

    query: np.ndarray
    row_id: np.ndarray
    vectors: pa.FixedSizeListArray | None


class SearchedTable:
    """A table that is only searched by its index, at the version given with each search.

    It uses LanceDB's asynchronous interface: the synchronous one takes milliseconds to convert each
    query to Python numbers and back, and to switch threads several times.
    """

    def __init__(self, location: str, name: str) -> None:
        """`location` is that of the database; nothing is opened before the first search."""
        self._location, self._name = location, name
        self._open: tuple[Any, int] | None = None  # the table, and the version it is at

    def nearest(self, version: int, queries: np.ndarray, k: int, partitions: int) -> IndexHits:
        """Finds the k rows that the index puts nearest to each query.

        Args:
            version: version to search.
            queries: floats (q, dim), q ≥ 1.
            k: number of rows per query.
            partitions: number of partitions to search.
        """
        return run(self._search(version, queries, k, partitions, None))

    def refined(
        self, version: int, queries: np.ndarray, k: int, partitions: int, refine: int
    ) -> IndexHits:
        """Finds the k nearest of `refine` times as many hits of the index, with their vectors.

        Arguments are those of `nearest`.
        """
        return run(self._search(version, queries, k, partitions, refine))

    async def _search(
        self, version: int, queries: np.ndarray, k: int, partitions: int, refine: int | None
    ) -> IndexHits:
        narrow = queries.astype(np.float32)
        vectors = narrow[0] if len(narrow) == 1 else [*narrow]
        query = (await self._at(version)).query().nearest_to(vectors).column(VECTOR)
        query = query.distance_type("cosine").nprobes(partitions).limit(k).with_row_id()
        columns = ["_distance"]  # LanceDB logs a warning for each query that does not select it
        if refine is not None:
            query, columns = query.refine_factor(refine), [VECTOR, *columns]
        hits = (await query.select(columns).to_arrow()).combine_chunks()
        number, distance = np.zeros(len(hits), np.int64), hits["_distance"].to_numpy()
        if len(queries) > 1:
            number = hits["query_index"].to_numpy().astype(np.int64)
        if len(queries) > 1 or (distance[1:] < distance[:-1]).any():
            order = np.lexsort((distance, number))
            hits, number = hits.take(order), number[order]
        vectors = hits[VECTOR].combine_chunks() if refine is not None else None
        return IndexHits(number, hits["_rowid"].to_numpy(), vectors)

    def take(self, version: int, row_ids: np.ndarray, names: list[str]) -> pa.Table:
        """Reads columns of rows by their ids, in any order; `_rowid` is one more column."""

        async def read() -> pa.Table:
            query = (await self._at(version)).take_row_ids(row_ids.tolist())
            return await query.with_row_id().select(names).to_arrow()

        return run(read())

    def close(self) -> None:
        """Releases the table; another search would reopen it."""
        self._open = None

    async def _at(self, version: int) -> Any:
        if self._open is None:
            database = await lancedb.connect_async(self._location)
            table, current = await database.open_table(self._name), -1
        else:
            table, current = self._open
        if current != version:
            await table.checkout(version)
            self._open = (table, version)
        return table


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in the event loop that all LanceDB tables of this process share."""
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
