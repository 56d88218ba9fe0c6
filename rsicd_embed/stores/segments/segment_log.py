"""A folder of segments: each change adds files, then renames a new manifest into place.

    PATH/segment_manifest.json          which files make up the newest state, with their SHA-256
    PATH/vectors-….npy          a segment, rows that were written together: their vectors
    PATH/rows-….arrow           … and their other columns; both are memory-mapped
    PATH/codes-….npy            int8 codes of its vectors, for a large segment
    PATH/dead-….u32             positions of a segment's rows that were replaced or deleted
    PATH/graph-….hnsw           a nearest-neighbour graph over one segment
    PATH/owners-….u32           the graph's node of each row, where equal rows share nodes
    PATH/tag-….json             a manifest of before that the newest keeps, with its files
    PATH/.lock                  held by the process that writes

Files never change once a manifest names them, so a reader keeps a consistent state while others
write; those that no manifest names any more are removed by the writer that made them obsolete,
or, after a crash, by the next one.
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
from rsicd_embed.records import VECTOR, Provenance
from rsicd_embed.stores import opening
from rsicd_embed.stores.base import StoreURI
from rsicd_embed.stores.cached_file import CachedFile
from rsicd_embed.stores.quantised import QuantisedVectors
from rsicd_embed.stores.row_view import Rows, RowView
from rsicd_embed.stores.rows import with_attributes
from rsicd_embed.stores.segments import segment_files, segment_manifest, segment_tags
from rsicd_embed.stores.segments.segment_files import Piece, Segment
from rsicd_embed.stores.segments.segment_manifest import Manifest, SegmentEntry

_PREFIXES = (
    "vectors-",
    "rows-",
    "codes-",
    "dead-",
    "graph-",
    "owners-",
    segment_tags.PREFIX,
    files.TEMPORARY,
)
_DAMAGED = "restore the folder from a backup, or delete it and ingest again"


@dataclass(frozen=True)
class Snapshot:
    """One state of a folder.

    Attributes:
        raw: the manifest's content, which tells it from other states.
        manifest: that, understood.
        segments: the older first.
        rows: of all segments, each as one part.
    """

    raw: bytes
    manifest: Manifest
    segments: tuple[Segment, ...]
    rows: Rows


class SegmentLog:
    """Reads the newest state of a folder of segments, and replaces it by the next one."""

    def __init__(self, folder: Path, kind: str, tag: str | None = None) -> None:
        self.folder = folder
        self.tag = tag  # the state to read, None for the newest
        self._kind = kind
        self._path = segment_tags.path_of(folder, tag) if tag else folder / segment_manifest.FILE
        self._mutex = threading.RLock()
        self._snapshot: Snapshot | None = None
        self._reading: CachedFile | None = None  # the manifest of that
        self._parts: dict[str, RowView] = {}  # by the name of their attributes' file
        self._codes: dict[str, QuantisedVectors] = {}
        self._dead: dict[str, np.ndarray] = {}

    @classmethod
    def open(
        cls, uri: StoreURI, kind: str, provenance: Provenance | None, *, create: bool
    ) -> SegmentLog:
        """Opens the folder at `uri`, or makes it; see `StoreType.open` for what it raises."""
        folder = opening.local_folder(uri)
        log = cls(folder, kind)
        with files.storage_errors(f"cannot read {folder}"):
            exists = log._path.exists()
            if not exists and folder.exists() and (found := opening.strangers(folder)):
                raise StoreError(
                    f"{uri}: {folder} is not a store of kind {kind!r} "
                    f"(it holds {opening.listing(found)}); name a new or an empty folder"
                )
        if not exists:
            if not create or provenance is None:
                raise opening.not_found(uri)
            log._create(provenance)
        opening.require_provenance(log.read().manifest.provenance, provenance, str(uri))
        return log

    def read(self) -> Snapshot:
        """The newest state; the one read last where nothing has changed since.

        Raises:
            StoreCorruptError: a file is missing, or is not what was written.
        """
        with self._mutex:
            if self._snapshot and self._reading and self._reading.is_newest(self._path):
                return self._snapshot
            with files.storage_errors(f"cannot read {self.folder}"):
                return self._read()

    def _read(self) -> Snapshot:
        self._reading = None
        reading = self._manifest()
        snapshot = self._snapshot
        while snapshot is None or snapshot.raw != reading.content:
            try:
                snapshot = self._load(reading.content)
            except FileNotFoundError as error:
                # A writer may have replaced the state, and removed its files, meanwhile.
                newer = self._manifest()
                if newer.content == reading.content:
                    raise StoreCorruptError(f"{error.filename} is gone; {_DAMAGED}") from None
                reading = newer
        self._snapshot, self._reading = snapshot, reading
        return snapshot

    @contextmanager
    def writing(self) -> Iterator[Snapshot]:
        """Holds the lock, and gives the newest state to build the next one on.

        Raises:
            StoreLockedError: another process is writing.
            StoreError: the folder cannot be written to; its state is what it was.
        """
        if self.tag:
            raise StoreError(f"{self.folder}: tag {self.tag!r} can be read only; restore it first")
        lock = FileLock(self.folder / ".lock", timeout=opening.LOCK_TIMEOUT_S)
        with files.storage_errors(f"cannot write to {self.folder}, which stays as it was"):
            try:
                lock.acquire()
            except Timeout:
                raise StoreLockedError(
                    f"{self.folder} is being written to by another process "
                    f"(waited {opening.LOCK_TIMEOUT_S:g} s); try again when it is done"
                ) from None
            try:
                self._sweep()
                yield self.read()
            finally:
                self._sweep()
                lock.release()

    def commit(self, new: Manifest) -> Snapshot:
        """Makes `new`, whose files are there, the newest state; only while `writing`."""
        files.sync_folder(self.folder)
        content = segment_manifest.encode(new)
        files.replace_file(self._path, lambda path: path.write_bytes(content))
        return self.read()

    def add_rows(self, pieces: Sequence[Piece], schema: pa.Schema) -> SegmentEntry:
        """Writes a segment of at least one row, which counts once a manifest names it."""
        dim = schema.field(VECTOR).type.list_size
        vectors = self.add_file(
            "vectors", "npy", lambda path: segment_files.write_vectors(path, pieces, dim)
        )
        attributes = self.add_file(
            "rows", "arrow", lambda path: segment_files.write_attributes(path, pieces, schema)
        )
        part = segment_files.mapped(self.folder / vectors.name, self.folder / attributes.name)
        self._parts[attributes.name] = part
        return SegmentEntry(vectors, attributes, len(part))

    def without_columns(self, segment: Segment, schema: pa.Schema) -> SegmentEntry:
        """Writes a segment's attributes again, with no columns but those of `schema`."""
        everything = replace(segment, part=replace(segment.part, live=None))
        attributes = self.add_file(
            "rows",
            "arrow",
            lambda path: segment_files.write_attributes(path, [everything], schema),
        )
        return replace(segment.entry, attributes=attributes)

    def add_codes(self, segment: Segment) -> SegmentEntry:
        """Writes int8 codes of a segment's vectors, which make searches of it faster."""
        codes = self.add_file("codes", "npy", lambda path: segment_files.write_codes(path, segment))
        return replace(segment.entry, codes=codes)

    def add_numbers(self, prefix: str, numbers: np.ndarray) -> files.FileEntry:
        """Writes row or node numbers, below 2**32."""
        content = numbers.astype("<u4").tobytes()
        return self.add_file(prefix, "u32", lambda path: path.write_bytes(content))

    def add_file(
        self, prefix: str, suffix: str, write: Callable[[Path], object]
    ) -> files.FileEntry:
        """Writes a file of a new name, which counts once a manifest names it."""
        name = f"{prefix}-{secrets.token_hex(8)}.{suffix}"
        return files.write_file(self.folder / name, write)

    def at(self, tag: str) -> SegmentLog:
        """What a tag keeps, to be read only.

        Raises:
            StoreError: there is no such tag.
        """
        entry = self.require_tag(tag)
        with files.storage_errors(f"cannot read {self.folder}"):
            segment_tags.read(self.folder, tag, entry, self._kind)
        return SegmentLog(self.folder, self._kind, tag)

    def require_tag(self, tag: str) -> files.FileEntry:
        """The file of a tag; StoreError where there is none."""
        found = segment_tags.entries(self.read().manifest)
        if tag not in found:
            raise StoreError(opening.no_version(self.folder, tag, list(found)))
        return found[tag]

    def kept(self) -> dict[str, Manifest]:
        """The states that tags keep.

        Raises:
            StoreCorruptError: one cannot be read.
        """
        with files.storage_errors(f"cannot read {self.folder}"):
            found = segment_tags.entries(self.read().manifest)
            return {
                tag: segment_tags.read(self.folder, tag, entry, self._kind)
                for tag, entry in found.items()
            }

    def close(self) -> None:
        """Lets go of the files; what reads from them keeps them open as long as it lives."""
        with self._mutex:
            self._snapshot = self._reading = None
            self._parts.clear()
            self._codes.clear()
            self._dead.clear()

    def _create(self, provenance: Provenance) -> None:
        made: list[Path] = []
        try:
            with files.storage_errors(f"cannot make a store in {self.folder}"):
                made = files.make_folder(self.folder)
                with FileLock(self.folder / ".lock", timeout=opening.LOCK_TIMEOUT_S):
                    if not self._path.exists():  # else another process was faster
                        first = Manifest(self._kind, 0, provenance, pa.schema([]))
                        self.commit(first)
                for folder in made:
                    files.sync_folder(folder.parent)
        except BaseException:
            if made and not self._path.exists():
                with suppress(OSError):
                    (self.folder / ".lock").unlink()
                files.remove_folders(made)
            raise

    def _manifest(self) -> CachedFile:
        try:
            return CachedFile.of(self._path)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreCorruptError(
                f"{self._path} is gone: the store was moved or deleted; open it again"
            ) from None

    def _load(self, raw: bytes) -> Snapshot:
        found = segment_manifest.decode(raw, self._path, self._kind, self.tag)
        schema = with_attributes(found.provenance.dim, found.attributes)
        segments = tuple(self._segment(entry, schema) for entry in found.segments)
        named = {entry.name for entry in found.files}
        self._parts = {name: one for name, one in self._parts.items() if name in named}
        self._codes = {name: one for name, one in self._codes.items() if name in named}
        self._dead = {name: one for name, one in self._dead.items() if name in named}
        return Snapshot(raw, found, segments, Rows(schema, tuple(one.part for one in segments)))

    def _segment(self, entry: SegmentEntry, schema: pa.Schema) -> Segment:
        part = self._parts.get(entry.attributes.name)
        if part is None:
            vectors = files.verify(self.folder, entry.vectors, _DAMAGED)
            attributes = files.verify(self.folder, entry.attributes, _DAMAGED)
            part = self._parts[attributes.name] = segment_files.mapped(vectors, attributes)
        codes = live = None
        if entry.codes:
            codes = self._codes.get(entry.codes.name)
            if codes is None:
                path = files.verify(self.folder, entry.codes, _DAMAGED)
                codes = self._codes[path.name] = segment_files.mapped_codes(path)
        if entry.tombstones:
            dead = self._dead.get(entry.tombstones.name)
            if dead is None:
                path = files.verify(self.folder, entry.tombstones, _DAMAGED)
                dead = self._dead[path.name] = np.fromfile(path, dtype="<u4")
            live = np.ones(len(part), dtype=bool)
            live[dead] = False
        attributes = segment_files.fitted(part.attributes, schema)
        return Segment(self.folder, entry, RowView(part.matrix, attributes, live, codes))

    def _sweep(self) -> None:
        """Removes our files that the manifest does not name; only while locked."""
        with suppress(OSError, StoreError):
            newest = segment_manifest.decode(self._manifest().content, self._path, self._kind)
            states = [newest, *self.kept().values()]
            named = {entry.name for state in states for entry in state.files}
            named |= {entry.name for entry in newest.tags}
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if entry.name.startswith(_PREFIXES) and entry.name not in named:
                        with suppress(OSError):
                            Path(entry.path).unlink()
