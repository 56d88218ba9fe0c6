"""`lancedb:PATH[?recall=…&nprobes=…&refine=…][#table]`: a LanceDB table, here or far away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.errors import StoreError
from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import StoreURI
from rsicd_embed.stores.columns import without_columns
from rsicd_embed.stores.lancedb import lance_index, lance_reader, lance_versions
from rsicd_embed.stores.lancedb.lance_ids import SeenIds
from rsicd_embed.stores.lancedb.lance_reader import LanceReader, TableState
from rsicd_embed.stores.lancedb.lance_table import LanceLocation, lance_errors
from rsicd_embed.stores.opening import stored_anyway
from rsicd_embed.stores.rows import checked_ids, conform
from rsicd_embed.stores.streaming import search_stream


class LanceStore(LanceReader):
    """A VectorStore on a LanceDB table; see `VectorStore` for what its methods promise."""

    def __init__(self, location: LanceLocation, table: Any, version: str | None = None) -> None:
        super().__init__(location, table, version)
        self._seen: SeenIds | None = None

    @classmethod
    def open(cls, uri: StoreURI, provenance: Provenance | None, *, create: bool) -> Self:
        """Opens the table at `uri`; see `StoreType.open`."""
        lance_index.IndexSettings.of(uri)  # before anything is made
        location = LanceLocation.of(uri)
        return cls(location, location.open(provenance, create=create))

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
            if now.count == 0 and self._location.is_locked:  # else another may add the same ids
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

    def drop_columns(self, names: Sequence[str]) -> None:
        """Removes columns; see `VectorStore.drop_columns`."""
        with self._writing() as now:
            without_columns(now.schema, names)
            self._table.drop_columns(list(dict.fromkeys(names)))

    def optimize(self) -> None:
        """Compacts the table's files, brings the index up to date, and removes old versions."""
        with self._writing():
            self._optimize()

    def tags(self) -> dict[str, int]:
        """Name → version of each tag."""
        with lance_errors(f"cannot read {self.uri}"):
            self._location.checks.tags()
            return lance_versions.tags(self._table)

    def tag(self, name: str) -> None:
        """Keeps the present version; see `Versioned.tag`."""
        with self._writing():
            lance_versions.add_tag(self._table, name, self.uri)

    def untag(self, name: str) -> None:
        """Lets go of what a tag keeps; see `Versioned.untag`."""
        with self._writing():
            lance_versions.require_known(self._table, name, self.uri)
            self._location.checks.forget_tag(name)
            self._table.tags.delete(name)

    def as_of(self, version: str) -> Self:
        """The version of a tag or number, to be read only; see `Versioned.as_of`."""
        with lance_errors(f"cannot read {self.uri}"):
            self._location.checks.tags()
            number = lance_versions.number_of(self._table, version, self.uri)
            table = self._location.table()
            table.checkout(number)
        return type(self)(self._location, table, version)

    def restore(self, version: str) -> None:
        """Makes a version the newest again; see `Versioned.restore`."""
        with self._writing():
            self._seen = None
            self._location.checks.tags()
            self._table.restore(lance_versions.number_of(self._table, version, self.uri))
            self.provenance = self._location.provenance(self._table)

    def replace(self, batches: Iterable[pa.RecordBatch], provenance: Provenance) -> int:
        """Puts rows of another model in place of all; see `Versioned.replace`."""
        with self._writing():
            self._seen = None
            rows = lance_versions.uniform(batches, provenance.dim)
            self._open_table = self._location.overwrite(rows, provenance)
            self.provenance = provenance
            return len(self)

    @contextmanager
    def _writing(self) -> Iterator[TableState]:
        """Holds the lock, and gives the newest version."""
        if self._version is not None:
            raise StoreError(f"{self.uri} can be read only; restore it first")
        before: list[int] = []
        with self._mutex, self._location.writing(lambda: self._undo(*before)):
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
        self.provenance = self._location.provenance(self._table)
        return True

    def _after_upsert(self) -> None:
        now = self._now()
        if lance_index.is_due(self._table, now.index, now.count, lance_reader.CACHE_ROWS):
            self._optimize()

    def _optimize(self) -> None:
        self._table.optimize(cleanup_older_than=lance_versions.keep(self._table))
        now = self._now()

        def kth_best(queries: np.ndarray, k: int) -> np.ndarray:
            hits = search_stream(self._stream(now, None), now.schema, queries, k)
            last: np.ndarray = hits.filter(pc.equal(hits["rank"], k))["score"].to_numpy()
            return last

        lance_index.renew(
            self._table,
            self._searched,
            now.index,
            now.count,
            now.schema,
            self.uri,
            kth_best,
            self._how.goal,
        )
