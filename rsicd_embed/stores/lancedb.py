"""`lancedb:PATH[#table]`: a LanceDB table, in a local folder or an object store.

Searches are exact and go through the kernel that all stores share: up to `CACHE_ROWS` rows are
held in memory as long as the table's version stays the same, more are streamed from it. LanceDB's
own scan takes some thirty times as long, and its SQL quotes names in another way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from rsicd_embed.errors import StoreError
from rsicd_embed.records import VECTOR, Provenance
from rsicd_embed.stores import scoring
from rsicd_embed.stores.base import StoreInfo, StoreURI
from rsicd_embed.stores.filters import matching
from rsicd_embed.stores.lance_table import Place, lance_errors, plain_schema
from rsicd_embed.stores.parts import Part, Rows, chosen_schema, scan, without_vector
from rsicd_embed.stores.rows import checked_ids, conform, unit_vectors
from rsicd_embed.stores.streaming import search_stream

CACHE_ROWS = 200_000  # 400 MB of vectors of length 512
_STREAM_ROWS = 16_384
_KEEP_VERSIONS = timedelta(hours=1)  # long enough for any search that still reads one


@dataclass(frozen=True)
class _State:
    """What is held of one version of the table; `rows` has no vectors until a search needs them."""

    version: int
    schema: pa.Schema
    count: int
    rows: Rows | None = None
    has_vectors: bool = False


class LanceStore:
    """A VectorStore on a LanceDB table; see `VectorStore` for what its methods promise."""

    def __init__(self, place: Place, table: Any) -> None:
        self.uri = str(place.uri)
        self.provenance: Provenance = place.provenance(table)
        self._place = place
        self._open_table: Any | None = table
        self._state: _State | None = None
        self._mutex = threading.RLock()

    @classmethod
    def open(cls, uri: StoreURI, provenance: Provenance | None, *, create: bool) -> Self:
        """Opens the table at `uri`; see `StoreType.open`."""
        place = Place.of(uri)
        return cls(place, place.open(provenance, create=create))

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the rows."""
        return self._now().schema

    def upsert(self, batches: Iterable[pa.RecordBatch]) -> int:
        """Inserts rows, replacing those with the same id; see `VectorStore.upsert`."""
        schema = self._now().schema
        rows = conform(batches, schema)  # before locking: making the batches may take long
        if not rows.num_rows:
            return 0
        with self._mutex, self._place.writing():
            now = self._now()
            if now.schema != schema:  # another process added columns meanwhile
                rows = conform(rows.to_batches(), now.schema)
            added = [field for field in rows.schema if field.name not in now.schema.names]
            if added:
                # A commit of its own, which changes no row: it only adds nulls.
                self._table.add_columns(pa.schema(added))
            merge = self._table.merge_insert("id")
            merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)
        return int(rows.num_rows)

    def delete(self, ids: Iterable[str]) -> int:
        """Removes rows by id; see `VectorStore.delete`."""
        chosen = checked_ids(ids).to_pylist()
        if not chosen:
            return 0
        # One commit for all. Doubling quotes is all the escaping that a SQL string needs.
        listed = ", ".join("'" + one.replace("'", "''") + "'" for one in chosen)
        with self._mutex, self._place.writing():
            self._table.checkout_latest()
            return int(self._table.delete(f"id IN ({listed})").num_deleted_rows)

    def search(self, queries: np.ndarray, k: int = 10, where: str | None = None) -> pa.Table:
        """The k best rows for each query; see `VectorStore.search`."""
        with self._mutex:
            now = self._now()
            if now.count > CACHE_ROWS:
                units = scoring.unit_queries(queries, self.provenance.dim)
                count = scoring.require_k(k)
                with lance_errors(f"cannot read {self.uri}"):
                    return search_stream(self._stream(now, where), now.schema, units, count)
            rows = self._held(now, vectors=True)
        return scoring.search(rows, queries, k, where)

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

    def optimize(self) -> None:
        """Compacts the table's files, and removes versions that nobody reads any more."""
        with self._mutex, self._place.writing():
            self._table.checkout_latest()
            self._table.optimize(cleanup_older_than=_KEEP_VERSIONS)

    def info(self) -> StoreInfo:
        """What is in the store."""
        now = self._now()
        with lance_errors(f"cannot read {self.uri}"):
            size = self._place.bytes(self._table)
        return StoreInfo(
            rows=now.count,
            dim=self.provenance.dim,
            model=self.provenance.model,
            fingerprint=self.provenance.fingerprint,
            index="exact scan",
            ann_recall=1.0,
            bytes=size,
            columns={field.name: str(field.type) for field in now.schema},
        )

    def __len__(self) -> int:
        return self._now().count

    def close(self) -> None:
        """Frees the memory; the store is not usable afterwards."""
        self._open_table = self._state = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _table(self) -> Any:
        if self._open_table is None:
            raise StoreError(f"{self.uri} is closed; open it again")
        return self._open_table

    def _now(self) -> _State:
        """The newest version, with what is held of it."""
        with self._mutex, lance_errors(f"cannot read {self.uri}"):
            self._table.checkout_latest()
            version = int(self._table.version)
            if self._state is None or self._state.version != version:
                schema = plain_schema(self._table.schema)
                self._state = _State(version, schema, int(self._table.count_rows()))
            return self._state

    def _held(self, now: _State, *, vectors: bool) -> Rows:
        """All rows of a small table, from memory where they are there already."""
        if now.rows is None or (vectors and not now.has_vectors):
            parts = tuple(
                part
                for rows in self._stream(now, None, now.schema.names if vectors else ["id"])
                for part in rows.parts
            )
            now = replace(now, rows=_in_one_part(now.schema, parts), has_vectors=vectors)
            self._state = now
        assert now.rows is not None
        return now.rows

    def _stream(
        self, now: _State, where: str | None, columns: Sequence[str] | None = None
    ) -> Iterator[Rows]:
        """Rows of this version, some thousand at a time; those that `where` refuses are dead.

        All attributes come along, and the vectors if `columns` (None: all) has them.
        """
        if where is not None:  # to refuse a wrong one whether or not there are rows
            matching(without_vector(now.schema).empty_table(), where)
        names = [
            name
            for name in now.schema.names
            if name != VECTOR or columns is None or VECTOR in columns
        ]
        with lance_errors(f"cannot read {self.uri}"):
            batches = self._table.search().select(names).to_batches(batch_size=_STREAM_ROWS)
        return self._parts(now, batches, where)

    def _parts(
        self, now: _State, batches: Iterable[pa.RecordBatch], where: str | None
    ) -> Iterator[Rows]:
        dim = self.provenance.dim
        attribute_schema = without_vector(now.schema)
        reader = iter(batches)
        while True:
            with lance_errors(f"cannot read {self.uri}"):
                batch = next(reader, None)
            if batch is None:
                return
            attributes = pa.record_batch(
                [batch.column(name) for name in attribute_schema.names], schema=attribute_schema
            )
            matrix = np.empty((len(batch), 0), dtype=np.float32)
            if VECTOR in batch.schema.names:
                # Something else may have written to the table, so its vectors are checked.
                matrix = unit_vectors(batch.column(VECTOR), dim, self.uri)
            live = None
            if where is not None:
                live = matching(pa.Table.from_batches([attributes]), where)
            yield Rows(now.schema, (Part(matrix, attributes, live),))


def _in_one_part(schema: pa.Schema, parts: tuple[Part, ...]) -> Rows:
    if not parts:
        return Rows(schema, ())
    table = pa.Table.from_batches([part.attributes for part in parts]).combine_chunks()
    matrix = np.concatenate([part.matrix for part in parts])
    return Rows(schema, (Part(matrix, table.to_batches()[0]),))
