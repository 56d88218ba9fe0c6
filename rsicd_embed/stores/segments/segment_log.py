"""A folder of segments. Each change adds files, then renames a new manifest into place.

    PATH/manifest.json          the files of the newest state, with their SHA-256
    PATH/vectors-….npy          a segment (rows that were written together): its vectors
    PATH/rows-….arrow           … and its other columns; both are memory-mapped
    PATH/codes-….npy            int8 codes of its vectors, if it is large
    PATH/dead-….u32             positions of a segment's rows that were replaced or deleted
    PATH/graph-….hnsw           a nearest-neighbour graph over one segment
    PATH/owners-….u32           the graph node of each row, if equal rows share nodes
    PATH/tag-….json             the manifest of a tagged state
    PATH/.lock                  locked by the process that writes

Files listed in a manifest never change, so readers keep a consistent state during writes. Files
that no manifest lists are removed by the writer that made them obsolete, or, after a crash, by the
next one.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from rsicd_embed import files
from rsicd_embed.errors import StoreCorruptError, StoreError, StoreLockedError
from rsicd_embed.records import VECTOR, Provenance, row_schema
from rsicd_embed.stores import opening
from rsicd_embed.stores.base import require_new_tag
from rsicd_embed.stores.quantised import QuantisedVectors
from rsicd_embed.stores.row_view import Rows, RowView
from rsicd_embed.stores.segments import segment_files, segment_manifest
from rsicd_embed.stores.segments.segment_files import Piece, Segment
from rsicd_embed.stores.segments.segment_manifest import CachedFile, Manifest, SegmentEntry
from rsicd_embed.stores.uri import StoreURI

_PREFIXES = (
    "vectors-",
    "rows-",
    "codes-",
    "dead-",
    "graph-",
    "owners-",
    segment_manifest.TAG_PREFIX,
    files.TEMPORARY,
)
_REMEDY = "restore the folder from a backup, or delete it and ingest again"
_TAG_REMEDY = "untag it, or restore its file from a backup"


@dataclass(frozen=True)
class Snapshot:
    """One state of a folder.

    Attributes:
        raw: content of the manifest, which identifies the state.
        manifest: the parsed manifest.
        segments: oldest first.
        rows: the rows of all segments, one part per segment.
    """

    raw: bytes
    manifest: Manifest
    segments: tuple[Segment, ...]
    rows: Rows


class SegmentLog:
    """Reads the newest state of a folder of segments, and commits the next one."""

    def __init__(self, folder: Path, kind: str, tag: str | None = None) -> None:
        self.folder = folder
        self.tag = tag  # the state to read; None for the newest
        self._kind = kind
        self._path = segment_manifest.tag_path(folder, tag) if tag else folder / "manifest.json"
        self._mutex = threading.RLock()
        self._snapshot: Snapshot | None = None
        self._manifest: CachedFile | None = None  # the manifest of that snapshot
        self._parts: dict[str, RowView] = {}  # by name of the attributes file
        self._codes: dict[str, QuantisedVectors] = {}  # by name of their file
        self._dead: dict[str, np.ndarray] = {}  # by name of the tombstone file

    @classmethod
    def open(
        cls, uri: StoreURI, kind: str, provenance: Provenance | None, *, create: bool
    ) -> SegmentLog:
        """Opens or creates the folder at `uri`; see `StoreType.open` for the errors."""
        folder = opening.local_folder(uri)
        log = cls(folder, kind)
        with files.storage_errors(f"cannot read {folder}"):
            exists = log._path.exists()
            if not exists and folder.exists() and (names := opening.foreign_files(folder)):
                raise opening.not_this_kind(uri, folder, f"a store of kind {kind!r}", names)
        if not exists:
            if not create or provenance is None:
                raise opening.not_found(uri)
            log._create(provenance)
        opening.require_provenance(log.read().manifest.provenance, provenance, str(uri))
        return log

    def read(self) -> Snapshot:
        """Returns the newest state, from memory if the manifest has not been replaced.

        Raises:
            StoreCorruptError: a file is missing or damaged.
        """
        with self._mutex:
            if self._snapshot and self._manifest and self._manifest.is_current(self._path):
                return self._snapshot
            with files.storage_errors(f"cannot read {self.folder}"):
                return self._read()

    def _read(self) -> Snapshot:
        self._manifest = None
        manifest = self._read_manifest()
        snapshot = self._snapshot
        while snapshot is None or snapshot.raw != manifest.content:
            try:
                snapshot = self._load(manifest.content)
            except FileNotFoundError as error:
                # A writer may have replaced the state and removed its files in the meantime.
                newer = self._read_manifest()
                if newer.content == manifest.content:
                    raise StoreCorruptError(f"{error.filename} is gone; {_REMEDY}") from None
                manifest = newer
        self._snapshot, self._manifest = snapshot, manifest
        return snapshot

    @contextmanager
    def writing(self) -> Iterator[Snapshot]:
        """Locks the folder and yields the newest state, on which the next one is built.

        Raises:
            StoreLockedError: another process is writing.
            StoreError: the folder cannot be written to; its state is unchanged.
        """
        if self.tag:
            raise StoreError(f"{self.folder}: tag {self.tag!r} is read only; restore it first")
        lock = FileLock(self.folder / ".lock", timeout=opening.LOCK_TIMEOUT_S)
        with files.storage_errors(f"cannot write to {self.folder}, which stays as it was"):
            try:
                lock.acquire()
            except Timeout:
                raise StoreLockedError(opening.locked(self.folder)) from None
            try:
                self._sweep()
                yield self.read()
            finally:
                self._sweep()
                lock.release()

    def commit(self, manifest: Manifest) -> Snapshot:
        """Makes `manifest`, whose files exist, the newest state; only while `writing`."""
        files.sync_folder(self.folder)
        content = segment_manifest.encode(manifest)
        files.replace_file(self._path, lambda path: path.write_bytes(content))
        return self.read()

    def add_rows(self, pieces: Sequence[Piece], schema: pa.Schema) -> SegmentEntry:
        """Writes a segment of at least one row."""
        dim = schema.field(VECTOR).type.list_size
        vectors = self.add_file(
            "vectors", "npy", lambda path: segment_files.write_vectors(path, pieces, dim)
        )
        attributes = self._add_attributes(pieces, schema)
        part = segment_files.mapped(self.folder / vectors.name, self.folder / attributes.name)
        self._parts[attributes.name] = part
        return SegmentEntry(vectors, attributes, len(part))

    def with_attributes(
        self, segment: Segment, attributes: Piece, schema: pa.Schema
    ) -> SegmentEntry:
        """Replaces a segment's attributes by those of as many rows, dead ones included."""
        return replace(segment.entry, attributes=self._add_attributes([attributes], schema))

    def _add_attributes(self, pieces: Sequence[Piece], schema: pa.Schema) -> files.FileEntry:
        return self.add_file(
            "rows", "arrow", lambda path: segment_files.write_attributes(path, pieces, schema)
        )

    def add_codes(self, segment: Segment) -> SegmentEntry:
        """Writes int8 codes of a segment's vectors, which make it faster to search."""
        codes = self.add_file("codes", "npy", lambda path: segment_files.write_codes(path, segment))
        return replace(segment.entry, codes=codes)

    def add_numbers(self, prefix: str, numbers: np.ndarray) -> files.FileEntry:
        """Writes row or node numbers, all below 2**32."""
        content = numbers.astype("<u4").tobytes()
        return self.add_file(prefix, "u32", lambda path: path.write_bytes(content))

    def add_file(
        self, prefix: str, suffix: str, write: Callable[[Path], object]
    ) -> files.FileEntry:
        """Writes a file under a new name; it becomes part of the store once a manifest lists it."""
        name = f"{prefix}-{secrets.token_hex(8)}.{suffix}"
        return files.write_file(self.folder / name, write)

    def at(self, tag: str) -> SegmentLog:
        """Opens a tagged state read-only; StoreError if there is no such tag."""
        entry = self._tag_file(tag)
        with files.storage_errors(f"cannot read {self.folder}"):
            self._read_tag(tag, entry)
        return SegmentLog(self.folder, self._kind, tag)

    def tagged(self) -> dict[str, Manifest]:
        """Tag name → its state; StoreCorruptError if one cannot be read."""
        with files.storage_errors(f"cannot read {self.folder}"):
            tags = self.read().manifest.tag_files
            return {tag: self._read_tag(tag, entry) for tag, entry in tags.items()}

    def add_tag(self, tag: str) -> None:
        """Tags the newest state; see `Versioned.tag`."""
        with self.writing() as now:
            self.commit(self.with_tag(now.manifest, tag))

    def with_tag(self, manifest: Manifest, tag: str) -> Manifest:
        """Adds a tag of the newest state to its manifest, which is to be committed."""
        require_new_tag(tag, manifest.tag_files, str(self.folder))
        content = segment_manifest.encode(replace(manifest, tag=tag, tags=()))
        path = segment_manifest.tag_path(self.folder, tag)
        entry = files.write_file(path, lambda aside: aside.write_bytes(content))
        return replace(manifest, tags=(*manifest.tags, entry))

    def remove_tag(self, tag: str) -> None:
        """Deletes a tag; see `Versioned.untag`."""
        with self.writing() as now:
            entry = self._tag_file(tag)
            tags = tuple(file for file in now.manifest.tags if file != entry)
            self.commit(replace(now.manifest, tags=tags))

    def close(self) -> None:
        """Releases the files; data already returned keeps its own files open."""
        with self._mutex:
            self._snapshot = self._manifest = None
            self._parts.clear()
            self._codes.clear()
            self._dead.clear()

    def _tag_file(self, tag: str) -> files.FileEntry:
        tags = self.read().manifest.tag_files
        if tag not in tags:
            raise StoreError(opening.no_version(self.folder, tag, list(tags)))
        return tags[tag]

    def _read_tag(self, tag: str, entry: files.FileEntry) -> Manifest:
        try:
            path = files.verify(self.folder, entry, _TAG_REMEDY)
            return segment_manifest.decode(path.read_bytes(), path, self._kind, tag)
        except FileNotFoundError as error:
            raise StoreCorruptError(f"{error.filename} is gone; {_TAG_REMEDY}") from None

    def _create(self, provenance: Provenance) -> None:
        created: list[Path] = []
        try:
            with files.storage_errors(f"cannot create a store in {self.folder}"):
                created = files.make_folder(self.folder)
                with FileLock(self.folder / ".lock", timeout=opening.LOCK_TIMEOUT_S):
                    if not self._path.exists():  # else another process was faster
                        self.commit(Manifest(self._kind, 0, provenance, pa.schema([])))
                for folder in created:
                    files.sync_folder(folder.parent)
        except BaseException:
            if created and not self._path.exists():
                with suppress(OSError):
                    (self.folder / ".lock").unlink()
                files.remove_folders(created)
            raise

    def _read_manifest(self) -> CachedFile:
        try:
            return CachedFile.read(self._path)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreCorruptError(
                f"{self._path} is gone: the store was moved or deleted; open it again"
            ) from None

    def _load(self, raw: bytes) -> Snapshot:
        manifest = segment_manifest.decode(raw, self._path, self._kind, self.tag)
        schema = row_schema(manifest.provenance.dim, manifest.attributes)
        segments = tuple(self._segment(entry, schema) for entry in manifest.segments)
        names = {entry.name for entry in manifest.files}
        self._parts = {name: part for name, part in self._parts.items() if name in names}
        self._codes = {name: codes for name, codes in self._codes.items() if name in names}
        self._dead = {name: dead for name, dead in self._dead.items() if name in names}
        rows = Rows(schema, tuple(segment.part for segment in segments))
        return Snapshot(raw, manifest, segments, rows)

    def _segment(self, entry: SegmentEntry, schema: pa.Schema) -> Segment:
        part = self._parts.get(entry.attributes.name)
        if part is None:
            vectors = files.verify(self.folder, entry.vectors, _REMEDY)
            attributes = files.verify(self.folder, entry.attributes, _REMEDY)
            part = self._parts[attributes.name] = segment_files.mapped(vectors, attributes)
        codes = live = None
        if entry.codes:
            codes = self._codes.get(entry.codes.name)
            if codes is None:
                path = files.verify(self.folder, entry.codes, _REMEDY)
                codes = self._codes[path.name] = segment_files.mapped_codes(path)
        if entry.tombstones:
            dead = self._dead.get(entry.tombstones.name)
            if dead is None:
                path = files.verify(self.folder, entry.tombstones, _REMEDY)
                dead = self._dead[path.name] = np.fromfile(path, dtype="<u4")
            live = np.ones(len(part), dtype=bool)
            live[dead] = False
        attributes = segment_files.fitted(part.attributes, schema)
        return Segment(self.folder, entry, RowView(part.matrix, attributes, live, codes))

    def _sweep(self) -> None:
        """Removes store files that no manifest lists; only while locked."""
        with suppress(OSError, StoreError):
            content = self._read_manifest().content
            newest = segment_manifest.decode(content, self._path, self._kind)
            states = [newest, *self.tagged().values()]
            names = {entry.name for state in states for entry in state.files}
            names |= {entry.name for entry in newest.tags}
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if entry.name.startswith(_PREFIXES) and entry.name not in names:
                        with suppress(OSError):
                            Path(entry.path).unlink()
