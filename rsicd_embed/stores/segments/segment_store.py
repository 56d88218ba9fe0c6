"""What the stores on a folder of segments share: all but how they search."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import pyarrow as pa

from rsicd_embed.errors import StoreError, StoreURIError
from rsicd_embed.records import Provenance, require_same_model
from rsicd_embed.stores import changes
from rsicd_embed.stores.base import StoreInfo, StoreURI, require_new_tag
from rsicd_embed.stores.columns import without_columns
from rsicd_embed.stores.opening import stored_anyway
from rsicd_embed.stores.row_store import RowStore
from rsicd_embed.stores.row_view import Rows
from rsicd_embed.stores.rows import checked_ids, conform
from rsicd_embed.stores.segments import segment_tags
from rsicd_embed.stores.segments.segment_log import SegmentLog, Snapshot
from rsicd_embed.stores.segments.segment_manifest import Manifest


class SegmentStore(RowStore):
    """A VectorStore on a folder of segments; see `VectorStore` for what its methods promise."""

    kind: ClassVar[str]

    def __init__(self, uri: StoreURI, log: SegmentLog) -> None:
        self.uri = str(uri) + (f" as of {log.tag}" if log.tag else "")
        self._parsed = uri
        self.provenance: Provenance = log.read().manifest.provenance
        self._open_log: SegmentLog | None = log

    @classmethod
    def open(cls, uri: StoreURI, provenance: Provenance | None, *, create: bool) -> Self:
        """Opens the store at `uri`; see `StoreType.open`."""
        if uri.table != "images":
            raise StoreURIError(
                f"{uri}: {cls.kind} stores have no tables; use {uri.scheme}:{uri.location}"
            )
        cls.settings(uri)  # before anything is made
        return cls(uri, SegmentLog.open(uri, cls.kind, provenance, create=create))

    @classmethod
    def settings(cls, uri: StoreURI) -> Any:
        """What the options of a URI say; StoreURIError for one that is not known."""
        return uri.numbers()

    def rows(self) -> Rows:
        """The newest rows."""
        return self._now().rows

    def upsert(self, batches: Iterable[pa.RecordBatch]) -> int:
        """Inserts rows, replacing those with the same id; see `VectorStore.upsert`."""
        schema = self._now().rows.schema
        table = conform(batches, schema)  # before locking: making the batches may take long
        if not table.num_rows:
            return 0
        with self._writing() as now:
            if now.rows.schema != schema:  # another process added columns meanwhile
                table = conform(table.to_batches(), now.rows.schema)
            after = changes.upsert(self._log, now, table, self._kept(now.manifest))
            with stored_anyway(self.uri):
                self._after_upsert(after)
        return int(table.num_rows)

    def delete(self, ids: Iterable[str]) -> int:
        """Removes rows by id; see `VectorStore.delete`."""
        chosen = checked_ids(ids)
        if not len(chosen):
            return 0
        with self._writing() as now:
            return changes.delete(self._log, now, chosen, self._kept(now.manifest))

    def drop_columns(self, names: Sequence[str]) -> None:
        """Removes columns; see `VectorStore.drop_columns`."""
        with self._writing() as now:
            changes.drop_columns(self._log, now, without_columns(now.rows.schema, names))

    def optimize(self) -> None:
        """Merges all segments into one without dead rows."""
        with self._writing() as now:
            changes.merge_all(self._log, now)

    def tags(self) -> dict[str, int]:
        """Name → number of the state, of each tag."""
        return {name: state.generation for name, state in self._log.kept().items()}

    def tag(self, name: str) -> None:
        """Keeps the present state; see `Versioned.tag`."""
        with self._log.writing() as now:
            require_new_tag(name, segment_tags.entries(now.manifest), self.uri)
            self._log.commit(segment_tags.added(self._log.folder, name, now.manifest))

    def untag(self, name: str) -> None:
        """Lets go of what a tag keeps; see `Versioned.untag`."""
        with self._log.writing() as now:
            self._log.require_tag(name)
            self._log.commit(segment_tags.removed(name, now.manifest))

    def as_of(self, version: str) -> Self:
        """What a tag keeps, to be read only; see `Versioned.as_of`."""
        return type(self)(self._parsed, self._log.at(version))

    def restore(self, version: str) -> None:
        """Makes what a tag keeps the newest state; see `Versioned.restore`."""
        with self._log.writing() as now:
            kept = self._log.at(version).read().manifest
            newest = now.manifest
            self._log.commit(
                dataclasses.replace(
                    kept, generation=newest.generation + 1, tags=newest.tags, tag=None
                )
            )
            self.provenance = kept.provenance

    def replace(self, batches: Iterable[pa.RecordBatch], provenance: Provenance) -> int:
        """Puts rows of another model in place of all; see `Versioned.replace`."""
        with self._log.writing() as now:
            count = changes.replace_all(self._log, now, batches, provenance)
            self.provenance = provenance
            return count

    def info(self) -> StoreInfo:
        """What is in the store."""
        now = self._now()
        index, recall = self._index(now)
        size = len(now.raw) + sum(entry.bytes for entry in now.manifest.files)
        return StoreInfo.of(
            self.provenance,
            now.rows.schema,
            len(now.rows),
            index=index,
            ann_recall=recall,
            bytes=size,
        )

    def close(self) -> None:
        """Lets go of the files; the store is not usable afterwards."""
        if self._open_log is not None:
            self._open_log.close()
            self._open_log = None

    @property
    def _log(self) -> SegmentLog:
        if self._open_log is None:
            raise StoreError(f"{self.uri} is closed; open it again")
        return self._open_log

    def _now(self) -> Snapshot:
        return self._of_same_model(self._log.read())

    @contextmanager
    def _writing(self) -> Iterator[Snapshot]:
        """Holds the lock, and gives the newest state, if it is still of the same model."""
        with self._log.writing() as now:
            yield self._of_same_model(now)

    def _of_same_model(self, now: Snapshot) -> Snapshot:
        require_same_model(now.manifest.provenance, self.provenance, self.uri)
        return now

    def _kept(self, manifest: Manifest) -> int:
        """How many of the first segments must not be merged."""
        return 0

    def _after_upsert(self, now: Snapshot) -> None:
        """What is due after an upsert is committed, while the folder is still locked."""

    def _index(self, now: Snapshot) -> tuple[str, float | None]:
        """`StoreInfo.index` and `StoreInfo.ann_recall`."""
        return "exact scan", 1.0
