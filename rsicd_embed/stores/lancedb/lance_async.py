"""Searches through LanceDB's asynchronous interface, from synchronous code.

LanceDB's synchronous search turns each query into a list of Python numbers and back, and crosses to
another thread several times; that costs it milliseconds.
"""

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
    """A table that is only searched, at the version that each search names."""

    def __init__(self, location: str, name: str) -> None:
        """`location` is the database's; nothing is opened before the first search."""
        self._location, self._name = location, name
        self._open: tuple[Any, int] | None = None  # the table, and the version that it is at

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
        """About the k nearest rows to each of float32 (q, dim) queries, by the table's index.

        Args:
            version: to search.
            queries: at least one.
            k: rows for each.
            partitions: to look at.
            refine: as many times k rows are compared exactly.
            columns: of the table.

        Returns:
            These columns, and `query_index` where there are several queries; by query.
        """
        sought = queries[0] if len(queries) == 1 else [*queries]

        async def search() -> pa.Table:
            table = await self._at(version)
            found = table.query().nearest_to(sought).column(VECTOR).distance_type("cosine")
            found = found.nprobes(partitions).refine_factor(refine).limit(k)
            # Each query logs a warning where the distance is not asked for.
            return await found.select([*columns, "_distance"]).to_arrow()

        return _run(search())

    def close(self) -> None:
        """Lets go of the table; another search would open it again."""
        self._open = None

    async def _at(self, version: int) -> Any:
        if self._open is None:
            database = await lancedb.connect_async(self._location)
            table, held = await database.open_table(self._name), -1
        else:
            table, held = self._open
        if held != version:
            await table.checkout(version)
            self._open = (table, version)
        return table


def _run(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns, from the event loop that all searches of this process share."""
    running = asyncio.run_coroutine_threadsafe(work, _loop(os.getpid()))
    try:
        return running.result()
    except BaseException:
        running.cancel()
        raise


@lru_cache(maxsize=1)
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The event loop of a process: its thread does not survive a fork."""
    del process
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rsicd-embed-lancedb", daemon=True).start()
    return loop
