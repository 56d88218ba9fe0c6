"""Searches of a LanceDB table through its index, by LanceDB's asynchronous interface."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from rsicd_embed.records import VECTOR
from rsicd_embed.stores.lancedb._lazy_lancedb import lancedb

T = TypeVar("T")


class SearchedTable:
    """A table that is only searched by its index, at the version given with each search.

    It uses LanceDB's asynchronous interface: the synchronous one takes milliseconds to convert each
    query to Python numbers and back, and to switch threads several times.
    """

    def __init__(self, location: str, name: str) -> None:
        """`location` is that of the database; nothing is opened before the first search."""
        self._location, self._name = location, name
        self._open: tuple[Any, int] | None = None  # the table, and the version it is at

    def nearest(
        self,
        version: int,
        queries: np.ndarray,
        k: int,
        *,
        partitions: int,
        refine: int,
        columns: Sequence[str],
    ) -> pa.Table:
        """Finds approximately the k nearest rows to each query.

        Args:
            version: version to search.
            queries: float32 (q, dim), q ≥ 1.
            k: number of rows per query.
            partitions: number of partitions to search.
            refine: multiple of k rows to compare exactly.
            columns: columns to return.

        Returns:
            These columns, and `query_index` if there are several queries; by query.
        """
        vectors = queries[0] if len(queries) == 1 else [*queries]

        async def search() -> pa.Table:
            query = (await self._at(version)).query().nearest_to(vectors).column(VECTOR)
            query = query.distance_type("cosine").nprobes(partitions).refine_factor(refine)
            # LanceDB logs a warning for each query that does not select the distance.
            return await query.limit(k).select([*columns, "_distance"]).to_arrow()

        return _run(search())

    def nearest_ids(
        self, version: int, queries: np.ndarray, k: int, partitions: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the k rows that the index puts nearest to each query, without refining.

        Returns:
            int64 (m,) numbers of queries, ascending, and uint64 (m,) row ids, the nearest first.
        """
        narrow = queries.astype(np.float32)
        vectors = narrow[0] if len(narrow) == 1 else [*narrow]

        async def search() -> pa.Table:
            query = (await self._at(version)).query().nearest_to(vectors).column(VECTOR)
            query = query.distance_type("cosine").nprobes(partitions).limit(k).with_row_id()
            return await query.select(["_distance"]).to_arrow()

        hits = _run(search())
        query = np.zeros(len(hits), np.int64)
        if len(queries) > 1:
            query = hits["query_index"].to_numpy().astype(np.int64)
        order = np.lexsort((hits["_distance"].to_numpy(), query))
        return query[order], hits["_rowid"].to_numpy()[order]

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
