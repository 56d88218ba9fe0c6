"""The reading half of the LanceDB store.

Up to `CACHE_ROWS` rows are cached in memory until the table gets a new version, and searched by the
kernel that all stores share; LanceDB's own scan takes about thirty times as long. Larger tables are
searched through LanceDB's index, whose hits are scored again, or as described in `large_table`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.errors import StoreCorruptError, StoreError
from rsicd_embed.files import Closing
from rsicd_embed.records import VECTOR, Provenance, require_same_model
from rsicd_embed.stores import opening, recall, scoring
from rsicd_embed.stores.base import StoreInfo, described
from rsicd_embed.stores.lancedb import lance_index, lance_rows
from rsicd_embed.stores.lancedb.lance_index import AnnIndex, IndexSettings, Matches
from rsicd_embed.stores.lancedb.lance_leases import ReadLeases
from rsicd_embed.stores.lancedb.lance_searcher import SearchedTable
from rsicd_embed.stores.lancedb.lance_table import LanceLocation, Stamp, lance_errors, plain_schema
from rsicd_embed.stores.lancedb.large_table import LargeTable
from rsicd_embed.stores.row_view import Rows, chosen_schema, scan
from rsicd_embed.stores.scoring import require_k, unit_queries

CACHE_ROWS = 200_000  # 400 MB of vectors of length 512
_LARGEST_SHARE = 0.01  # searching for more than this share of the rows is faster exactly


@dataclass(frozen=True)
class TableState:
    """A version of the table and its cached rows.

    Attributes:
        version: number of the version.
        schema: schema of the rows, without metadata.
        count: number of rows.
        index: the index, if there is one.
        rows: all rows, if they are cached.
        has_vectors: whether the cached rows include vectors.
        large: caches of a table that is too large for `rows`.
        stamp: `LanceLocation.stamp` from before the version was read.
    """

    version: int
    schema: pa.Schema
    count: int
    index: AnnIndex | None = None
    rows: Rows | None = None
    has_vectors: bool = False
    large: LargeTable | None = None
    stamp: Stamp | None = None


class LanceReader(Closing):
    """Reads the newest version of a table, or a fixed one; see `VectorStore` for the contract."""

    def __init__(self, location: LanceLocation, table: Any, version: str | None) -> None:
        """`version` is the version to read; None for the newest."""
        self.uri = str(location.uri) + (f" as of {version}" if version else "")
        self.provenance: Provenance = location.provenance(table)
        self._version = version
        self._location = location
        self._settings = IndexSettings.of(location.uri)
        self._open_table: Any | None = table
        self._searched = SearchedTable(location.database, location.uri.table)
        self._leases = ReadLeases(location.folder, location.uri.table)
        self._state: TableState | None = None
        self._mutex = threading.RLock()

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the rows."""
        return self._now().schema

    def search(self, queries: np.ndarray, k: int = 10, where: str | None = None) -> pa.Table:
        """Finds the k most similar rows for each query; see `VectorStore.search`."""
        units = unit_queries(queries, self.provenance.dim)
        count = require_k(k)
        while True:
            with self._mutex:
                now = self._now()
                try:
                    if now.count > CACHE_ROWS:
                        return self._search_large(now, units, count, where)
                    rows = self._cached(now, vectors=True)
                    break
                except StoreError:
                    # A writer may have removed the version that was being read.
                    if self._version is not None or self._now().version == now.version:
                        raise
        return scoring.search(rows, queries, count, where)

    def scan(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """Reads live rows as record batches; see `VectorStore.scan`."""
        with self._mutex:
            now = self._now()
            schema = chosen_schema(now.schema, columns)
            if now.count <= CACHE_ROWS:
                rows = self._cached(now, vectors=VECTOR in schema.names)
                return scan(rows, schema.names, where)
            stream = self._stream(now, where, schema.names)
        return pa.RecordBatchReader.from_batches(schema, self._scanned(stream, schema.names))

    def _scanned(self, stream: Iterator[Rows], names: list[str]) -> Iterator[pa.RecordBatch]:
        with self._leases.lease():
            for rows in stream:
                yield from scan(rows, names, None)

    def info(self) -> StoreInfo:
        """Describes the store."""
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
        """Frees memory; the store cannot be used afterwards."""
        self._open_table = self._state = None
        self._searched.close()

    def _verify(self, now: TableState) -> None:
        """Verifies all rows before some are read, unless the table is too large to cache."""
        if now.count <= CACHE_ROWS:
            self._location.checksums.verify_rows()

    @property
    def _table(self) -> Any:
        if self._open_table is None:
            raise opening.closed(self.uri)
        return self._open_table

    def _now(self) -> TableState:
        """The newest version (or the fixed one) and its cached rows."""
        with self._mutex, lance_errors(f"cannot read {self.uri}"):
            stamp = self._location.stamp() if self._version is None else frozenset()
            if self._state and stamp is not None and self._state.stamp == stamp:
                return self._state
            if self._version is None:
                self._table.checkout_latest()
            version = int(self._table.version)
            if self._state is None or self._state.version != version:
                version = self._verified_version(version)
                require_same_model(
                    self._location.provenance(self._table), self.provenance, self.uri
                )
                schema = plain_schema(self._table.schema)
                index = lance_index.stored_index(self._table.schema)
                self._state = TableState(version, schema, int(self._table.count_rows()), index)
            self._state = replace(self._state, stamp=stamp)
            return self._state

    def _verified_version(self, version: int) -> int:
        """Verifies the table's metadata; returns the version, or a newer one if there is one.

        Raises:
            StoreCorruptError: the newest version of before is missing.
        """
        checksums = self._location.checksums
        checksums.verify_metadata()
        recorded = checksums.version()
        if self._version is None and version < recorded:
            self._table.checkout_latest()  # another process may have written in between
            version = int(self._table.version)
            if version < recorded:
                raise StoreCorruptError(
                    f"{self.uri}: version {recorded} is gone, the newest one left is {version}; "
                    "restore the table from a backup"
                )
        return version

    def _cached(self, now: TableState, *, vectors: bool) -> Rows:
        """All rows of a small table, read unless they are cached."""
        if now.rows is None or (vectors and not now.has_vectors):
            stream = self._stream(now, None, now.schema.names if vectors else ["id"])
            rows = lance_rows.in_one_part(now.schema, stream)
            now = self._state = replace(now, rows=rows, has_vectors=vectors)
        assert now.rows is not None
        return now.rows

    def _stream(
        self, now: TableState, where: str | None, columns: Sequence[str] | None = None
    ) -> Iterator[Rows]:
        self._location.checksums.verify_rows()
        return lance_rows.stream(self._table, now.schema, self.uri, where, columns)

    def _search_large(
        self, now: TableState, units: np.ndarray, k: int, where: str | None
    ) -> pa.Table:
        with lance_errors(f"cannot read {self.uri}"):
            large = self._large(now)
            matches = None if where is None else large.matches(where)
            if now.index is not None and 0 < k <= _LARGEST_SHARE * now.count and len(units):
                index = self._settings.applied(now.index)
                if k <= recall.K and matches is None and index.levels:
                    nearness = float(large.nearness(units).min())
                    index = replace(index, partitions=index.partitions_for(nearness))
                hits = None
                if not large.is_scan_faster(index, len(units), k, matches):
                    hits = self._index_hits(now, large, index, units, k, matches)
                if hits is not None:
                    return hits
            self._location.checksums.verify_rows()
            return large.search(units, k, matches)

    def _index_hits(
        self,
        now: TableState,
        large: LargeTable,
        index: AnnIndex,
        units: np.ndarray,
        k: int,
        matches: Matches | None,
    ) -> pa.Table | None:
        """`LargeTable.search_index`; None also for a damaged index, ignored from then on."""
        try:
            with lance_errors(f"cannot read {self.uri}"):
                return large.search_index(index, units, k, matches)
        except StoreError:
            if self._location.checksums.is_index_whole():
                raise
            self._state = replace(now, index=None)  # until it is rebuilt
            return None

    def _large(self, now: TableState) -> LargeTable:
        """The caches of a large table."""
        if now.large is None:
            large = LargeTable(self._table, self._searched, now.schema, now.count, self.uri)
            now = self._state = replace(now, large=large)
        assert now.large is not None
        return now.large
