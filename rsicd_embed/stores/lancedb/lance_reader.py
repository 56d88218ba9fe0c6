"""What a LanceDB table answers: the reading half of the store `lancedb`.

From `lance_index.INDEX_ROWS` rows on, searches without `where` go through LanceDB's index, and what
it finds is scored again. All others are exact and go through the kernel that all stores share: up
to `CACHE_ROWS` rows are held in memory as long as the table's version stays the same, more are
streamed from it. LanceDB's own scan takes some thirty times as long, and its SQL quotes names in
another way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.errors import StoreCorruptError
from rsicd_embed.files import Closing
from rsicd_embed.records import VECTOR, Provenance, require_same_model
from rsicd_embed.stores import opening, scoring
from rsicd_embed.stores.base import StoreInfo, described
from rsicd_embed.stores.lancedb import lance_index, lance_rows
from rsicd_embed.stores.lancedb.lance_index import AnnIndex
from rsicd_embed.stores.lancedb.lance_table import LanceLocation, Stamp, lance_errors, plain_schema
from rsicd_embed.stores.queries import require_k, unit_queries
from rsicd_embed.stores.row_view import Rows, chosen_schema, scan
from rsicd_embed.stores.streaming import search_stream

CACHE_ROWS = 200_000  # 400 MB of vectors of length 512
_LARGEST_SHARE = 0.01  # a search for more of the rows than this is better done exactly


@dataclass(frozen=True)
class TableState:
    """What is cached of one version of the table.

    `stamp` is what `LanceLocation.stamp` was before it was read; `rows` has no vectors until a
    search needs them.
    """

    version: int
    schema: pa.Schema
    count: int
    index: AnnIndex | None = None
    rows: Rows | None = None
    has_vectors: bool = False
    stamp: Stamp | None = None


class LanceReader(Closing):
    """The newest version of a table, or one that stays; see `VectorStore` for what is promised."""

    def __init__(self, location: LanceLocation, table: Any, version: str | None) -> None:
        """`version` is the one to read, None for the newest."""
        self.uri = str(location.uri) + (f" as of {version}" if version else "")
        self.provenance: Provenance = location.provenance(table)
        self._version = version
        self._location = location
        self._how = lance_index.IndexSettings.of(location.uri)
        self._open_table: Any | None = table
        self._searched = location.searched()
        self._state: TableState | None = None
        self._mutex = threading.RLock()

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the rows."""
        return self._now().schema

    def search(self, queries: np.ndarray, k: int = 10, where: str | None = None) -> pa.Table:
        """The k best rows for each query; see `VectorStore.search`."""
        units = unit_queries(queries, self.provenance.dim)
        count = require_k(k)
        with self._mutex:
            now = self._now()
            if now.index and where is None and 0 < count <= _LARGEST_SHARE * now.count:
                hits = self._by_index(now, self._how.applied(now.index), units, count)
                if hits is not None:
                    return hits
            if now.count > CACHE_ROWS:
                with lance_errors(f"cannot read {self.uri}"):
                    return search_stream(self._passing(now, where), now.schema, units, count)
            rows = self._held(now, vectors=True)
        return scoring.search(rows, queries, count, where)

    def scan(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """Live rows as record batches; see `VectorStore.scan`."""
        with self._mutex:
            now = self._now()
            schema = chosen_schema(now.schema, columns)
            if now.count <= CACHE_ROWS:
                rows = self._held(now, vectors=VECTOR in schema.names)
                return scan(rows, schema.names, where)
            stream = self._stream(now, where, schema.names)
        return pa.RecordBatchReader.from_batches(
            schema, (one for rows in stream for one in scan(rows, schema.names, None))
        )

    def info(self) -> StoreInfo:
        """What is in the store."""
        now = self._now()
        with lance_errors(f"cannot read {self.uri}"):
            size = self._location.bytes(self._table)
        return StoreInfo.of(
            self.provenance,
            now.schema,
            now.count,
            index=str(now.index or "exact scan"),
            ann_recall=now.index.ann_recall if now.index else 1.0,
            bytes=size,
        )

    def __len__(self) -> int:
        return self._now().count

    def __repr__(self) -> str:
        return described(self, self.uri, self.provenance)

    def close(self) -> None:
        """Frees the memory; the store is not usable afterwards."""
        self._open_table = self._state = None
        self._searched.close()

    def _check(self, now: TableState) -> None:
        """Verifies all rows before some are read, unless there are too many to be held."""
        if now.count <= CACHE_ROWS:
            self._location.checks.large()

    @property
    def _table(self) -> Any:
        if self._open_table is None:
            raise opening.closed(self.uri)
        return self._open_table

    def _now(self) -> TableState:
        """The newest version, with what is held of it."""
        with self._mutex, lance_errors(f"cannot read {self.uri}"):
            stamp = self._location.stamp() if self._version is None else frozenset()
            if self._state and stamp is not None and self._state.stamp == stamp:
                return self._state
            if self._version is None:
                self._table.checkout_latest()
            version = int(self._table.version)
            if self._state is None or self._state.version != version:
                version = self._checked(version)
                require_same_model(
                    self._location.provenance(self._table), self.provenance, self.uri
                )
                schema = plain_schema(self._table.schema)
                index = lance_index.known(self._table.schema)
                self._state = TableState(version, schema, int(self._table.count_rows()), index)
            self._state = replace(self._state, stamp=stamp)
            return self._state

    def _checked(self, version: int) -> int:
        """Verifies what says which rows there are; returns the newest version, if it is there.

        Raises:
            StoreCorruptError: a newer one was there before.
        """
        self._location.checks.small()
        known = self._location.checks.version()
        if self._version is None and version < known:
            self._table.checkout_latest()  # another process may have been faster
            version = int(self._table.version)
            if version < known:
                raise StoreCorruptError(
                    f"{self.uri}: version {known} is gone, {version} is the newest that is there; "
                    "restore the table from a backup"
                )
        return version

    def _held(self, now: TableState, *, vectors: bool) -> Rows:
        """All rows of a small table, from memory where they are there already."""
        if now.rows is None or (vectors and not now.has_vectors):
            stream = self._stream(now, None, now.schema.names if vectors else ["id"])
            parts = [part for rows in stream for part in rows.parts]
            now = replace(now, rows=lance_rows.in_one_part(now.schema, parts), has_vectors=vectors)
            self._state = now
        assert now.rows is not None
        return now.rows

    def _stream(
        self, now: TableState, where: str | None, columns: Sequence[str] | None = None
    ) -> Iterator[Rows]:
        self._location.checks.large()
        return lance_rows.stream(self._table, now.schema, self.uri, where, columns)

    def _passing(self, now: TableState, where: str | None) -> Iterator[Rows]:
        """All rows, or those that `where` accepts; what is refused may come along, dead."""
        if where is None:
            return self._stream(now, None)
        self._location.checks.large()
        return lance_rows.selected(self._table, now.schema, self.uri, where)

    def _by_index(
        self, now: TableState, index: AnnIndex, units: np.ndarray, k: int
    ) -> pa.Table | None:
        """The k best rows that the index finds; None where it finds fewer than there are."""
        self._check(now)
        with lance_errors(f"cannot read {self.uri}"):
            rows, pairs = lance_index.nearest(
                self._searched, index, units, k, now.schema, now.version, self.uri
            )
        hits = scoring.hit_table(rows, units, pairs, k)
        return hits if len(hits) == k * len(units) else None
