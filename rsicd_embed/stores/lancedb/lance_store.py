"""`lancedb:PATH[?recall=…&nprobes=…&refine=…][#table]`: a local or remote LanceDB table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Self

import pyarrow as pa

from rsicd_embed.errors import SchemaError, StoreError
from rsicd_embed.records import Provenance, row_schema, with_ids
from rsicd_embed.stores import opening, recall
from rsicd_embed.stores.base import require_new_tag
from rsicd_embed.stores.columns import with_columns, without_columns
from rsicd_embed.stores.lancedb import lance_index
from rsicd_embed.stores.lancedb.lance_columns import column_values, write_columns
from rsicd_embed.stores.lancedb.lance_index import AnnIndex, IndexSettings
from rsicd_embed.stores.lancedb.lance_reader import LanceReader, TableState
from rsicd_embed.stores.lancedb.lance_table import LanceLocation, lance_errors
from rsicd_embed.stores.rows import (
    SeenIds,
    as_batches,
    checked_ids,
    conform,
    conform_new,
    kept_columns,
    with_corrections,
    with_kept_values,
)
from rsicd_embed.stores.uri import StoreURI

# Old versions are removed at once unless something reads them; zero makes LanceDB warn of that.
_UNREAD_AGE = timedelta(milliseconds=1)
_READ_AGE = timedelta(hours=1)
_QUERIES = 600  # to measure the index


class LanceStore(LanceReader):
    """A VectorStore in a LanceDB table; see `VectorStore` for the contract of its methods."""

    def __init__(self, location: LanceLocation, table: Any, version: str | None = None) -> None:
        super().__init__(location, table, version)
        self._seen: SeenIds | None = None

    @classmethod
    def open(cls, uri: StoreURI, provenance: Provenance | None, *, create: bool) -> Self:
        """Opens the table at `uri`; see `StoreType.open`."""
        IndexSettings.of(uri)  # refuse invalid options before anything is created
        location = LanceLocation.of(uri)
        return cls(location, location.open(provenance, create=create))

    def upsert(self, batches: Iterable[pa.RecordBatch]) -> int:
        """Inserts rows, replacing those with the same id; see `VectorStore.upsert`."""
        return self._write(batches, lambda rows, schema: rows)

    def merge(self, batches: Iterable[pa.RecordBatch], keep: Collection[str] = ()) -> int:
        """Inserts rows, keeping values of those with the same id; see `RowMerger`."""
        given = as_batches(batches)

        def kept(rows: pa.Table, schema: pa.Schema) -> pa.Table:
            columns = kept_columns(given, schema, keep)
            if not columns:
                return rows
            with self.scan(["id", *columns], with_ids(rows["id"].to_pylist())) as stored:
                return with_corrections(with_kept_values(rows, stored), given)

        return self._write(given, kept)

    def _write(
        self,
        batches: Iterable[pa.RecordBatch],
        complete: Callable[[pa.Table, pa.Schema], pa.Table],
    ) -> int:
        """Upserts rows after `complete` has changed them, which is called during the lock.

        It is not called if all ids are new.
        """
        schema = self._now().schema
        rows = conform(batches, schema)  # before locking, since producing batches may take long
        if not rows.num_rows:
            return 0
        with self._writing() as now:
            if now.schema != schema:  # another process added columns in the meantime
                rows = conform(rows.to_batches(), now.schema)
            if now.count == 0 and self._location.is_locked:  # else others may add the same ids
                self._seen = SeenIds(now.version)
            is_new = self._seen is not None and not self._seen.may_have(rows["id"])
            if not is_new:
                rows = complete(rows, now.schema)
            added = [field for field in rows.schema if field.name not in now.schema.names]
            if added:
                # A separate commit, which only adds nulls.
                self._table.add_columns(pa.schema(added))
            if is_new:
                self._table.add(rows)  # takes a third of the time of a merge
            else:
                merge = self._table.merge_insert("id")
                merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)
            if self._seen:
                self._seen.add(rows["id"])
        return int(rows.num_rows)

    def delete(self, ids: Iterable[str]) -> int:
        """Removes rows by id; see `VectorStore.delete`."""
        removed = checked_ids(ids).to_pylist()
        if not removed:
            return 0
        with self._writing():  # one commit for all ids
            return int(self._table.delete(with_ids(removed)).num_deleted_rows)

    def delete_where(self, where: str) -> list[str]:
        """Removes rows by condition; see `ConditionalDeleter`."""
        with self._writing():
            with self.scan(["id"], where) as reader:
                removed = list(reader.read_all()["id"].to_pylist())
            if removed:
                self._table.delete(with_ids(removed))
        return removed

    def drop_columns(self, names: Sequence[str]) -> None:
        """Removes columns; see `VectorStore.drop_columns`."""
        with self._writing() as now:
            without_columns(now.schema, names)
            self._table.drop_columns(list(dict.fromkeys(names)))

    def rewrite_attributes(
        self,
        rewrite: Callable[[pa.RecordBatch], pa.RecordBatch],
        columns: pa.Schema,
        where: str | None = None,
    ) -> None:
        """Adds or replaces columns; see `AttributeWriter`. The vector index stays valid."""
        with self._writing() as now:
            with_columns(now.schema, columns)
            with self.scan(where=where) as reader:
                values = column_values(reader, rewrite, columns)
            write_columns(self._location, self._table, values)

    def optimize(self) -> None:
        """Compacts the table's files, updates the index, and removes old versions.

        The table is not locked while a new index is measured, which takes longest.
        """
        with self._mutex, ExitStack() as measuring:
            with self._writing():
                before, built = self._optimize()
                if built is not None:
                    measuring.enter_context(self._leases.lease())
            if built is None:
                return
            measured = self._measured(built)
            with self._writing() as now:
                if now.index == before:  # else another process was faster
                    lance_index.store(self._table, measured)

    def tags(self) -> dict[str, int]:
        """Tag name → its version."""
        with lance_errors(f"cannot read {self.uri}"):
            self._location.checksums.verify_tags()
            return _tags(self._table)

    def tag(self, name: str) -> None:
        """Tags the current version; see `Versioned.tag`."""
        with self._writing():
            self._add_tag(name)

    def untag(self, name: str) -> None:
        """Deletes a tag; see `Versioned.untag`."""
        with self._writing():
            if name not in (tags := _tags(self._table)):
                raise StoreError(opening.no_version(self.uri, name, sorted(tags)))
            self._location.checksums.forget_tag(name)
            self._table.tags.delete(name)

    def as_of(self, version: str) -> Self:
        """Opens the version of a tag or number read-only; see `Versioned.as_of`."""
        with lance_errors(f"cannot read {self.uri}"):
            self._location.checksums.verify_tags()
            number = self._version_number(version)
            table = self._location.reopen()
            table.checkout(number)
        return type(self)(self._location, table, version)

    def restore(self, version: str, tag_left: str | None = None) -> None:
        """Makes a version the newest again; see `Versioned.restore`."""
        with self._writing():
            self._seen = None
            self._location.checksums.verify_tags()
            number = self._version_number(version)
            if tag_left is not None:
                self._add_tag(tag_left)
            self._table.restore(number)
            self.provenance = self._location.provenance(self._table)

    def replace(self, batches: Iterable[pa.RecordBatch], provenance: Provenance) -> int:
        """Replaces all rows with rows of another model; see `Versioned.replace`."""
        with self._writing():
            self._seen = None
            rows = _uniform(batches, provenance.dim)
            self._open_table = self._location.overwrite(rows, provenance)
            self.provenance = provenance
            return len(self)

    @contextmanager
    def _writing(self) -> Iterator[TableState]:
        """Locks the table and yields its newest version."""
        if self._version is not None:
            raise StoreError(f"{self.uri} is read only; restore it first")
        before: list[int] = []
        with self._mutex, self._location.writing(lambda: self._undo(*before)):
            now = self._now()
            before.append(now.version)
            self._verify(now)
            if self._seen and self._seen.version != now.version:
                self._seen = None
            yield now
            if self._seen:
                self._seen.version = int(self._table.version)

    def _undo(self, version: int) -> bool:
        """Restores a version unless it is still the newest; returns whether it was restored."""
        self._table.checkout_latest()
        if self._table.version == version:
            return False  # perhaps only a tag was written
        self._table.restore(version)
        self.provenance = self._location.provenance(self._table)
        return True

    def _add_tag(self, name: str) -> None:
        require_new_tag(name, _tags(self._table), self.uri)
        self._table.tags.create(name, self._table.version)

    def _version_number(self, version: str) -> int:
        """The number of a tagged or numbered version; StoreError if the table does not have it."""
        tags = _tags(self._table)
        number = tags.get(version, int(version) if version.isdecimal() else -1)
        if all(int(known["version"]) != number for known in self._table.list_versions()):
            raise StoreError(opening.no_version(self.uri, version, sorted(tags)))
        return number

    def _optimize(self) -> tuple[AnnIndex | None, AnnIndex | None]:
        """Returns the index as it was stored, and the one to be measured; None without them."""
        if not self._location.checksums.is_index_whole():
            lance_index.drop(self._table)
        self._table.optimize(cleanup_older_than=self._kept_age())
        now = self._now()
        built = lance_index.build(self._table, now.index, now.count)
        if built is not None:
            self._large(self._now())  # of the version to measure
        return now.index, built

    def _measured(self, index: AnnIndex) -> AnnIndex:
        """Measures the index at the version that is open, even if others write newer ones."""
        assert self._state is not None
        large = self._large(self._state)
        queries = recall.queries_near(large.vectors(recall.sample(index.rows, _QUERIES)))
        return lance_index.measure(
            replace(index, goal=self._settings.goal),
            queries,
            large.nearness(queries),
            large.kth_scores,
            large.search_index,
        )

    def _kept_age(self) -> timedelta:
        """The age up to which versions are kept: LanceDB refuses to remove a tagged one."""
        least = _READ_AGE if self._leases.any() else _UNREAD_AGE
        tagged = set(_tags(self._table).values())
        versions = self._table.list_versions()
        times = [entry["timestamp"] for entry in versions if int(entry["version"]) in tagged]
        if not times:
            return least
        oldest = min(times)
        age: timedelta = datetime.now(oldest.tzinfo) - oldest
        return max(least, age + timedelta(minutes=1))


def _tags(table: Any) -> dict[str, int]:
    return {name: int(tag["version"]) for name, tag in table.tags.list().items()}


def _uniform(batches: Iterable[pa.RecordBatch], dim: int) -> pa.RecordBatchReader:
    """Checks rows, all of which must have the columns of the first batch."""
    rest, seen = iter(batches), SeenIds()
    schema = row_schema(dim)
    first = next(rest, None)
    head = conform_new([first], schema, seen) if first is not None else schema.empty_table()

    def checked() -> Iterator[pa.RecordBatch]:
        yield from head.to_batches()
        for batch in rest:
            rows = conform_new([batch], head.schema, seen)
            if others := rows.schema.names[len(head.schema) :]:
                raise SchemaError(
                    f"expected the columns of the first batch in all, found also "
                    f"{', '.join(others)}; add them to the first, with nulls"
                )
            yield from rows.to_batches()

    return pa.RecordBatchReader.from_batches(head.schema, checked())
