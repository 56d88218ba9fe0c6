"""`lancedb:PATH[?recall=…][#table]`: a LanceDB table, in a local folder or an object store.

From `lance_index.INDEX_ROWS` rows on, searches without `where` go through LanceDB's index, and what
it finds is scored again. All others are exact and go through the kernel that all stores share: up
to `CACHE_ROWS` rows are held in memory as long as the table's version stays the same, more are
streamed from it. LanceDB's own scan takes some thirty times as long, and its SQL quotes names in
another way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.closing import Closing
from rsicd_embed.errors import StoreCorruptError, StoreError
from rsicd_embed.records import VECTOR, Provenance, require_same_model
from rsicd_embed.stores import lance_index, lance_rows, lance_versions, scoring
from rsicd_embed.stores.base import StoreInfo, StoreURI
from rsicd_embed.stores.lance_ids import SeenIds
from rsicd_embed.stores.lance_index import AnnIndex
from rsicd_embed.stores.lance_table import Place, Stamp, lance_errors, plain_schema
from rsicd_embed.stores.opening import stored_anyway
from rsicd_embed.stores.parts import Rows, chosen_schema, scan
from rsicd_embed.stores.rows import checked_ids, conform
from rsicd_embed.stores.streaming import search_stream

CACHE_ROWS = 200_000  # 400 MB of vectors of length 512
_LARGEST_SHARE = 0.01  # a search for more of the rows than this is better done exactly


@dataclass(frozen=True)
class _State:
    """What is held of one version of the table.

    `stamp` is what `Place.stamp` was before it was read; `rows` has no vectors until a search needs
    them.
    """

    version: int
    schema: pa.Schema
    count: int
    index: AnnIndex | None = None
    rows: Rows | None = None
    has_vectors: bool = False
    stamp: Stamp | None = None


class LanceStore(Closing):
    """A VectorStore on a LanceDB table; see `VectorStore` for what its methods promise."""

    def __init__(self, place: Place, table: Any, version: str | None = None) -> None:
        self.uri = str(place.uri) + (f" as of {version}" if version else "")
        self._goal = self.goal(place.uri)
        self._version = version  # the one to read, None for the newest
        self.provenance: Provenance = place.provenance(table)
        self._place = place
        self._open_table: Any | None = table
        self._state: _State | None = None
        self._seen: SeenIds | None = None
        self._mutex = threading.RLock()

    @classmethod
    def open(cls, uri: StoreURI, provenance: Provenance | None, *, create: bool) -> Self:
        """Opens the table at `uri`; see `StoreType.open`."""
        cls.goal(uri)  # before anything is made
        place = Place.of(uri)
        return cls(place, place.open(provenance, create=create))

    @staticmethod
    def goal(uri: StoreURI) -> float:
        """The ANN recall@10 that a URI asks for; StoreURIError for another option."""
        return uri.numbers(recall=(0.1, 1)).get("recall", lance_index.RECALL_GOAL)

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
        with self._writing() as now:
            if now.schema != schema:  # another process added columns meanwhile
                rows = conform(rows.to_batches(), now.schema)
            added = [field for field in rows.schema if field.name not in now.schema.names]
            if added:
                # A commit of its own, which changes no row: it only adds nulls.
                self._table.add_columns(pa.schema(added))
            if now.count == 0 and self._place.is_locked:  # else another may add the same ids
                self._seen = SeenIds(now.version)
            if self._seen and not self._seen.may_have(rows["id"]):
                self._table.add(rows)
            else:
                merge = self._table.merge_insert("id")
                merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)
            if self._seen:
                self._seen.note(rows["id"])
            with stored_anyway(self.uri), lance_errors("LanceDB failed"):
                self._after_upsert()
        return int(rows.num_rows)

    def delete(self, ids: Iterable[str]) -> int:
        """Removes rows by id; see `VectorStore.delete`."""
        chosen = checked_ids(ids).to_pylist()
        if not chosen:
            return 0
        # One commit for all. Doubling quotes is all the escaping that a SQL string needs.
        listed = ", ".join("'" + one.replace("'", "''") + "'" for one in chosen)
        with self._writing():
            return int(self._table.delete(f"id IN ({listed})").num_deleted_rows)

    def search(self, queries: np.ndarray, k: int = 10, where: str | None = None) -> pa.Table:
        """The k best rows for each query; see `VectorStore.search`."""
        units = scoring.unit_queries(queries, self.provenance.dim)
        count = scoring.require_k(k)
        with self._mutex:
            now = self._now()
            if now.index and where is None and 0 < count <= _LARGEST_SHARE * now.count:
                hits = self._by_index(now, now.index, units, count)
                if hits is not None:
                    return hits
            if now.count > CACHE_ROWS:
                with lance_errors(f"cannot read {self.uri}"):
                    return search_stream(self._stream(now, where), now.schema, units, count)
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

    def optimize(self) -> None:
        """Compacts the table's files, brings the index up to date, and removes old versions."""
        with self._writing():
            self._optimize()

    def tags(self) -> dict[str, int]:
        """Name → version of each tag."""
        with lance_errors(f"cannot read {self.uri}"):
            self._place.checks.tags()
            return lance_versions.tags(self._table)

    def tag(self, name: str) -> None:
        """Keeps the present version; see `Versioned.tag`."""
        with self._writing():
            lance_versions.add_tag(self._table, name, self.uri)

    def untag(self, name: str) -> None:
        """Lets go of what a tag keeps; see `Versioned.untag`."""
        with self._writing():
            lance_versions.require_known(self._table, name, self.uri)
            self._place.checks.forget_tag(name)
            self._table.tags.delete(name)

    def as_of(self, version: str) -> Self:
        """The version of a tag or number, to be read only; see `Versioned.as_of`."""
        with lance_errors(f"cannot read {self.uri}"):
            self._place.checks.tags()
            number = lance_versions.number_of(self._table, version, self.uri)
            table = self._place.table()
            table.checkout(number)
        return type(self)(self._place, table, version)

    def restore(self, version: str) -> None:
        """Makes a version the newest again; see `Versioned.restore`."""
        with self._writing():
            self._seen = None
            self._place.checks.tags()
            self._table.restore(lance_versions.number_of(self._table, version, self.uri))
            self.provenance = self._place.provenance(self._table)

    def replace(self, batches: Iterable[pa.RecordBatch], provenance: Provenance) -> int:
        """Puts rows of another model in place of all; see `Versioned.replace`."""
        with self._writing():
            self._seen = None
            rows = lance_versions.uniform(batches, provenance.dim)
            self._open_table = self._place.overwrite(rows, provenance)
            self.provenance = provenance
            return len(self)

    def info(self) -> StoreInfo:
        """What is in the store."""
        now = self._now()
        with lance_errors(f"cannot read {self.uri}"):
            size = self._place.bytes(self._table)
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

    def close(self) -> None:
        """Frees the memory; the store is not usable afterwards."""
        self._open_table = self._state = None

    @contextmanager
    def _writing(self) -> Iterator[_State]:
        """Holds the lock, and gives the newest version."""
        if self._version is not None:
            raise StoreError(f"{self.uri} can be read only; restore it first")
        before: list[int] = []
        with self._mutex, self._place.writing(lambda: self._undo(*before)):
            now = self._now()
            before.append(now.version)
            self._check(now)
            if self._seen and self._seen.version != now.version:
                self._seen = None
            yield now
            if self._seen:
                self._seen.version = int(self._table.version)

    def _undo(self, version: int) -> bool:
        """Goes back to a version, if another is the newest; whether there was something to undo."""
        self._table.checkout_latest()
        if self._table.version == version:
            return False  # a tag, perhaps
        self._table.restore(version)
        self.provenance = self._place.provenance(self._table)
        return True

    def _check(self, now: _State) -> None:
        """Verifies all rows before some are read, unless there are too many to be held."""
        if now.count <= CACHE_ROWS:
            self._place.checks.large()

    @property
    def _table(self) -> Any:
        if self._open_table is None:
            raise StoreError(f"{self.uri} is closed; open it again")
        return self._open_table

    def _now(self) -> _State:
        """The newest version, with what is held of it."""
        with self._mutex, lance_errors(f"cannot read {self.uri}"):
            stamp = self._place.stamp() if self._version is None else frozenset()
            if self._state and stamp is not None and self._state.stamp == stamp:
                return self._state
            if self._version is None:
                self._table.checkout_latest()
            version = int(self._table.version)
            if self._state is None or self._state.version != version:
                version = self._checked(version)
                require_same_model(self._place.provenance(self._table), self.provenance, self.uri)
                schema = plain_schema(self._table.schema)
                index = lance_index.known(self._table.schema)
                self._state = _State(version, schema, int(self._table.count_rows()), index)
            self._state = replace(self._state, stamp=stamp)
            return self._state

    def _checked(self, version: int) -> int:
        """Verifies what says which rows there are; returns the newest version, if it is there.

        Raises:
            StoreCorruptError: a newer one was there before.
        """
        self._place.checks.small()
        known = self._place.checks.version()
        if self._version is None and version < known:
            self._table.checkout_latest()  # another process may have been faster
            version = int(self._table.version)
            if version < known:
                raise StoreCorruptError(
                    f"{self.uri}: version {known} is gone, {version} is the newest that is there; "
                    "restore the table from a backup"
                )
        return version

    def _held(self, now: _State, *, vectors: bool) -> Rows:
        """All rows of a small table, from memory where they are there already."""
        if now.rows is None or (vectors and not now.has_vectors):
            stream = self._stream(now, None, now.schema.names if vectors else ["id"])
            parts = [part for rows in stream for part in rows.parts]
            now = replace(now, rows=lance_rows.in_one_part(now.schema, parts), has_vectors=vectors)
            self._state = now
        assert now.rows is not None
        return now.rows

    def _stream(
        self, now: _State, where: str | None, columns: Sequence[str] | None = None
    ) -> Iterator[Rows]:
        self._place.checks.large()
        return lance_rows.stream(self._table, now.schema, self.uri, where, columns)

    def _by_index(self, now: _State, index: AnnIndex, units: np.ndarray, k: int) -> pa.Table | None:
        """The k best rows that the index finds; None where it finds fewer than there are."""
        self._check(now)
        with lance_errors(f"cannot read {self.uri}"):
            rows, pairs = lance_index.nearest(self._table, index, units, k, now.schema, self.uri)
        hits = scoring.hit_table(rows, units, pairs, k)
        return hits if len(hits) == k * len(units) else None

    def _after_upsert(self) -> None:
        now = self._now()
        if lance_index.is_due(self._table, now.index, now.count, CACHE_ROWS):
            self._optimize()

    def _optimize(self) -> None:
        self._table.optimize(cleanup_older_than=lance_versions.keep(self._table))
        now = self._now()

        def kth_best(queries: np.ndarray, k: int) -> np.ndarray:
            hits = search_stream(self._stream(now, None), now.schema, queries, k)
            last: np.ndarray = hits.filter(pc.equal(hits["rank"], k))["score"].to_numpy()
            return last

        lance_index.renew(
            self._table, now.index, now.count, now.schema, self.uri, kth_best, self._goal
        )
