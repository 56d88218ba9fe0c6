"""The base class of stores on a folder of segments: everything except how they search."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.errors import StoreURIError
from rsicd_embed.records import Provenance, require_same_model, row_schema, with_ids
from rsicd_embed.stores import opening
from rsicd_embed.stores.base import StoreInfo
from rsicd_embed.stores.columns import with_columns, without_columns
from rsicd_embed.stores.row_store import RowStore
from rsicd_embed.stores.row_view import Rows, scan
from rsicd_embed.stores.rows import (
    SeenIds,
    as_batches,
    attributes_of,
    checked_ids,
    conform,
    conform_new,
    kept_columns,
    with_corrections,
    with_kept_values,
)
from rsicd_embed.stores.segments.segment_files import (
    NewRows,
    Piece,
    Rewrite,
    RewrittenSegment,
    Segment,
    rewritten,
)
from rsicd_embed.stores.segments.segment_log import SegmentLog, Snapshot
from rsicd_embed.stores.segments.segment_manifest import Manifest, SegmentEntry
from rsicd_embed.stores.uri import StoreURI

CODED_ROWS = 100_000  # fewer are scanned in a few milliseconds without codes
_SEGMENT_ROWS = 50_000  # rows per segment that `replace` writes
_UPSERTED_ROWS = 100  # up to so many are rewritten without the rest of their segments


class SegmentStore(RowStore):
    """A VectorStore on a folder of segments; see `VectorStore` for the contract of its methods."""

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
        cls.settings(uri)  # before anything is created
        return cls(uri, SegmentLog.open(uri, cls.kind, provenance, create=create))

    @classmethod
    def settings(cls, uri: StoreURI) -> Any:
        """Parses the options of a URI; StoreURIError for an unknown one."""
        return uri.numbers()

    def rows(self) -> Rows:
        """The newest rows."""
        return self._now().rows

    def upsert(self, batches: Iterable[pa.RecordBatch]) -> int:
        """Inserts rows, replacing those with the same id; see `VectorStore.upsert`."""
        return self._write(batches, lambda rows, now: rows)

    def merge(self, batches: Iterable[pa.RecordBatch], keep: Collection[str] = ()) -> int:
        """Inserts rows, keeping values of those with the same id; see `RowMerger`."""
        given = as_batches(batches)

        def kept(rows: pa.Table, now: Rows) -> pa.Table:
            columns = kept_columns(given, now.schema, keep)
            if not columns:
                return rows
            with scan(now, ["id", *columns], with_ids(rows["id"].to_pylist())) as stored:
                return with_corrections(with_kept_values(rows, stored), given)

        return self._write(given, kept)

    def _write(
        self,
        batches: Iterable[pa.RecordBatch],
        complete: Callable[[pa.Table, Rows], pa.Table],
    ) -> int:
        """Upserts rows after `complete` has changed them, which is called during the lock."""
        schema = self._now().rows.schema
        table = conform(batches, schema)  # before locking, since producing batches may take long
        if not table.num_rows:
            return 0
        with self._writing() as now:
            if now.rows.schema != schema:  # another process added columns in the meantime
                table = conform(table.to_batches(), now.rows.schema)
            self._commit_upsert(now, complete(table, now.rows))
        with opening.index_warning(self.uri):
            self._after_upsert()
        return int(table.num_rows)

    def delete(self, ids: Iterable[str]) -> int:
        """Removes rows by id; see `VectorStore.delete`."""
        removed = checked_ids(ids)
        if not len(removed):
            return 0
        with self._writing() as now:
            return self._delete(now, removed)

    def delete_where(self, where: str) -> list[str]:
        """Removes rows by condition; see `ConditionalDeleter`."""
        with self._writing() as now:
            with scan(now.rows, ["id"], where) as reader:
                removed = reader.read_all()["id"]
            self._delete(now, removed)
        return list(removed.to_pylist())

    def drop_columns(self, names: Sequence[str]) -> None:
        """Removes columns; see `VectorStore.drop_columns`. The graph stays valid."""
        with self._writing() as now:
            schema = without_columns(now.rows.schema, names)
            self._commit_attributes(now, lambda batch: batch, schema, None)

    def rewrite_attributes(
        self, rewrite: Rewrite, columns: pa.Schema, where: str | None = None
    ) -> None:
        """Adds or replaces columns; see `AttributeWriter`. The graph stays valid."""
        with self._writing() as now:
            schema = with_columns(now.rows.schema, columns)
            masks = None if where is None else now.rows.masks(where)
            chosen = sum(int(np.count_nonzero(mask)) for mask in masks or () if mask is not None)
            if 0 < chosen <= _UPSERTED_ROWS:
                with scan(now.rows, None, where) as reader:
                    rows = [rewritten(batch, rewrite) for batch in reader]
                self._commit_upsert(now, conform(rows, schema))
            else:
                self._commit_attributes(now, rewrite, schema, masks)

    def optimize(self) -> None:
        """Merges all segments into one without dead rows, and codes its vectors."""
        with self._writing() as now:
            self._merge_all(now)

    def tags(self) -> dict[str, int]:
        """Tag name → number of its state."""
        return {name: state.generation for name, state in self._log.tagged().items()}

    def tag(self, name: str) -> None:
        """Tags the current state; see `Versioned.tag`."""
        self._log.add_tag(name)

    def untag(self, name: str) -> None:
        """Deletes a tag; see `Versioned.untag`."""
        self._log.remove_tag(name)

    def as_of(self, version: str) -> Self:
        """Opens a tagged state read-only; see `Versioned.as_of`."""
        return type(self)(self._parsed, self._log.at(version))

    def restore(self, version: str, tag_left: str | None = None) -> None:
        """Makes a tagged state the newest; see `Versioned.restore`."""
        with self._log.writing() as now:
            state, newest = self._log.at(version).read().manifest, now.manifest
            if tag_left is not None:
                newest = self._log.with_tag(newest, tag_left)
            generation = newest.generation + 1
            self._log.commit(replace(state, generation=generation, tags=newest.tags, tag=None))
            self.provenance = state.provenance

    def replace(self, batches: Iterable[pa.RecordBatch], provenance: Provenance) -> int:
        """Replaces all rows with rows of another model; see `Versioned.replace`."""
        with self._log.writing() as now:
            segments: list[SegmentEntry] = []
            schema, seen = row_schema(provenance.dim), SeenIds()
            pending: list[pa.RecordBatch] = []
            for batch in chain(batches, [None]):
                if batch is not None:
                    pending.append(batch)
                if pending and (batch is None or sum(map(len, pending)) >= _SEGMENT_ROWS):
                    rows = conform_new(pending, schema, seen)
                    schema, pending = rows.schema, []
                    segments.append(self._log.add_rows([NewRows(rows)], schema))
            manifest = replace(now.manifest, provenance=provenance)
            self._commit(replace(now, manifest=manifest), segments, schema)
            self.provenance = provenance
            return sum(segment.rows for segment in segments)

    def info(self) -> StoreInfo:
        """Describes the store."""
        now = self._now()
        index, recall = self._index(now)
        size = len(now.raw) + sum(entry.bytes for entry in now.manifest.files)
        schema, rows = now.rows.schema, len(now.rows)
        return StoreInfo.of(
            self.provenance, schema, rows, index=index, ann_recall=recall, bytes=size
        )

    def close(self) -> None:
        """Releases the files; the store cannot be used afterwards."""
        if self._open_log is not None:
            self._open_log.close()
            self._open_log = None

    @property
    def _log(self) -> SegmentLog:
        if self._open_log is None:
            raise opening.closed(self.uri)
        return self._open_log

    def _now(self) -> Snapshot:
        return self._of_same_model(self._log.read())

    @contextmanager
    def _writing(self) -> Iterator[Snapshot]:
        """Locks the folder and yields its newest state; FingerprintError if the model changed."""
        with self._log.writing() as now:
            yield self._of_same_model(now)

    def _of_same_model(self, now: Snapshot) -> Snapshot:
        require_same_model(now.manifest.provenance, self.provenance, self.uri)
        return now

    def _fixed(self, manifest: Manifest) -> int:
        """Number of leading segments that must not be merged or rewritten."""
        return 0

    def _after_upsert(self) -> None:
        """Called after an upsert is committed and the folder is unlocked."""

    def _index(self, now: Snapshot) -> tuple[str, float | None]:
        """`StoreInfo.index` and `StoreInfo.ann_recall`."""
        return "exact scan", 1.0

    def _delete(self, now: Snapshot, ids: pa.Array | pa.ChunkedArray) -> int:
        """Removes rows of the locked store; returns their number."""
        staged, count = _without_ids(now, ids)
        if count:
            schema = now.rows.schema
            self._commit(now, self._written(staged, schema, self._fixed(now.manifest)), schema)
        return count

    def _commit_upsert(self, now: Snapshot, table: pa.Table) -> None:
        """Adds the rows of `table`, at least one and each id once, replacing equal ids."""
        fixed = self._fixed(now.manifest)
        staged, _ = _without_ids(now, table["id"])
        # Merging a segment at most twice as long as what follows leaves O(log n) segments after n
        # upserts, and writes each row O(log n) times.
        pieces: list[Piece] = [NewRows(table)]
        rows = table.num_rows
        while len(staged) > fixed and staged[-1].segment.live_rows <= 2 * rows:
            pieces.insert(0, staged.pop().segment)
            rows += pieces[0].live_rows
        segments = self._written(staged, table.schema, fixed)
        segments.append(self._log.add_rows(pieces, table.schema))
        self._commit(now, segments, table.schema)

    def _commit_attributes(
        self,
        now: Snapshot,
        rewrite: Rewrite,
        columns: pa.Schema,
        masks: list[np.ndarray | None] | None,
    ) -> None:
        """Rewrites the attributes of all segments, whose vectors, codes and graph stay.

        With `masks` of live rows, one per segment, only theirs, and no segment without such rows.
        """
        schema = now.rows.schema
        segments = []
        for index, item in enumerate(now.segments):
            chosen = item.part.live if masks is None else masks[index]
            if masks is not None and chosen is not None and not chosen.any():
                segments.append(item.entry)
                continue
            piece = RewrittenSegment(item, schema, rewrite, chosen)
            segments.append(self._log.with_attributes(item, piece, columns))
        self._commit(now, segments, columns)

    def _merge_all(self, now: Snapshot) -> Snapshot:
        """Leaves one segment without dead rows, or none, and codes its vectors if they are many."""
        segments, schema = now.segments, now.rows.schema
        if len(segments) > 1 or any(segment.part.live is not None for segment in segments):
            live = [segment for segment in segments if segment.live_rows]
            merged = [self._log.add_rows(live, schema)] if live else []
            now = self._commit(now, merged, schema)
        if len(now.rows) >= CODED_ROWS and now.segments[0].entry.codes is None:
            now = self._commit(now, [self._log.add_codes(now.segments[0])], schema)
        return now

    def _written(self, staged: list[_Staged], schema: pa.Schema, fixed: int) -> list[SegmentEntry]:
        """Writes the tombstones of changed segments, or their live rows if most rows are dead."""
        entries = []
        for index, item in enumerate(staged):
            segment, part = item.segment, item.segment.part
            if part.live_rows == 0:
                continue
            if item.changed and index >= fixed and 2 * part.live_rows < len(part):
                entries.append(self._log.add_rows([segment], schema))
            elif item.changed and part.live is not None:
                dead = np.flatnonzero(~part.live)
                tombstones = self._log.add_numbers("dead", dead)
                entries.append(replace(segment.entry, dead=len(dead), tombstones=tombstones))
            else:
                entries.append(segment.entry)
        return entries

    def _commit(self, now: Snapshot, segments: list[SegmentEntry], schema: pa.Schema) -> Snapshot:
        """Commits the state after `now`, with these segments and columns."""
        graph = now.manifest.graph
        if graph and graph.segment not in {segment.vectors.name for segment in segments}:
            graph = None
        return self._log.commit(
            replace(
                now.manifest,
                generation=now.manifest.generation + 1,
                attributes=attributes_of(schema),
                segments=tuple(segments),
                graph=graph,
            )
        )


@dataclass(frozen=True)
class _Staged:
    """A segment of the next state; `changed` if some of its rows have newly died."""

    segment: Segment
    changed: bool


def _without_ids(now: Snapshot, ids: pa.Array | pa.ChunkedArray) -> tuple[list[_Staged], int]:
    """Marks the rows of `ids` dead; returns the segments and the number of rows that died."""
    staged, total = [], 0
    for segment in now.segments:
        part = segment.part
        dying = pc.is_in(part.attributes["id"], value_set=ids).to_numpy()
        if part.live is not None:
            dying &= part.live
        count = int(np.count_nonzero(dying))
        if count:
            live = ~dying if part.live is None else part.live & ~dying
            segment = replace(segment, part=replace(part, live=live))
        staged.append(_Staged(segment, changed=count > 0))
        total += count
    return staged, total
