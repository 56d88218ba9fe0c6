"""A folder of segments: each change adds files, then renames a new manifest into place.

    PATH/manifest.json          which files make up the newest state, with their SHA-256
    PATH/rows-….arrow           a segment: rows that were written together, memory-mapped
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from rsicd_embed import files
from rsicd_embed.errors import StoreCorruptError, StoreError, StoreLockedError
from rsicd_embed.records import VECTOR, Provenance, vector_matrix
from rsicd_embed.stores import manifest, opening, segment_tags
from rsicd_embed.stores.base import StoreURI
from rsicd_embed.stores.manifest import Manifest, SegmentEntry
from rsicd_embed.stores.parts import Part, Rows, without_vector
from rsicd_embed.stores.rows import with_attributes

_PREFIXES = ("rows-", "dead-", "graph-", "owners-", segment_tags.PREFIX, files.TEMPORARY)
_DAMAGED = "restore the folder from a backup, or delete it and ingest again"


@dataclass(frozen=True)
class Snapshot:
    """One state of a folder; `raw` is the manifest's content, which tells it from others."""

    raw: bytes
    manifest: Manifest
    rows: Rows


class SegmentLog:
    """Reads the newest state of a folder of segments, and replaces it by the next one."""

    def __init__(self, folder: Path, kind: str, tag: str | None = None) -> None:
        self.folder = folder
        self.tag = tag  # the state to read, None for the newest
        self._kind = kind
        self._path = segment_tags.path_of(folder, tag) if tag else folder / manifest.FILE
        self._mutex = threading.RLock()
        self._snapshot: Snapshot | None = None
        self._batches: dict[str, pa.RecordBatch] = {}
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
        with self._mutex, files.storage_errors(f"cannot read {self.folder}"):
            raw = self._raw()
            while self._snapshot is None or self._snapshot.raw != raw:
                try:
                    self._snapshot = self._load(raw)
                except FileNotFoundError as error:
                    # A writer may have replaced the state, and removed its files, meanwhile.
                    newer = self._raw()
                    if newer == raw:
                        raise StoreCorruptError(f"{error.filename} is gone; {_DAMAGED}") from None
                    raw = newer
            return self._snapshot

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
        content = manifest.encode(new)
        files.replace_file(self._path, lambda path: path.write_bytes(content))
        return self.read()

    def add_rows(self, table: pa.Table) -> SegmentEntry:
        """Writes a segment of at least one row, which counts once a manifest names it."""
        batches = table.combine_chunks().to_batches()
        if len(batches) != 1:
            raise StoreError("expected less than 2 GiB in a column; upsert in smaller calls")

        def write(path: Path) -> None:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_batch(batches[0])

        entry = self.add_file("rows", "arrow", write)
        self._batches[entry.name] = _mapped(self.folder / entry.name)
        return SegmentEntry(entry, table.num_rows)

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
            self._snapshot = None
            self._batches.clear()
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

    def _raw(self) -> bytes:
        try:
            return self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise StoreCorruptError(
                f"{self._path} is gone: the store was moved or deleted; open it again"
            ) from None

    def _load(self, raw: bytes) -> Snapshot:
        found = manifest.decode(raw, self._path, self._kind, self.tag)
        schema = with_attributes(found.provenance.dim, found.attributes)
        rows = Rows(schema, tuple(self._part(entry, schema) for entry in found.segments))
        named = {entry.name for entry in found.files}
        self._batches = {name: one for name, one in self._batches.items() if name in named}
        self._dead = {name: one for name, one in self._dead.items() if name in named}
        return Snapshot(raw, found, rows)

    def _part(self, entry: SegmentEntry, schema: pa.Schema) -> Part:
        batch = self._batches.get(entry.file.name)
        if batch is None:
            path = files.verify(self.folder, entry.file, _DAMAGED)
            batch = self._batches[entry.file.name] = _mapped(path)
        live = None
        if entry.tombstones:
            dead = self._dead.get(entry.tombstones.name)
            if dead is None:
                path = files.verify(self.folder, entry.tombstones, _DAMAGED)
                dead = self._dead[path.name] = np.fromfile(path, dtype="<u4")
            live = np.ones(len(batch), dtype=bool)
            live[dead] = False
        attributes = without_vector(schema)
        columns = [
            batch.column(field.name)
            if field.name in batch.schema.names
            else pa.nulls(len(batch), field.type)  # it was added after these rows
            for field in attributes
        ]
        return Part(
            vector_matrix(batch.column(VECTOR)),
            pa.record_batch(columns, schema=attributes),
            live,
        )

    def _sweep(self) -> None:
        """Removes our files that the manifest does not name; only while locked."""
        with suppress(OSError, StoreError):
            newest = manifest.decode(self._raw(), self._path, self._kind)
            states = [newest, *self.kept().values()]
            named = {entry.name for state in states for entry in state.files}
            named |= {entry.name for entry in newest.tags}
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if entry.name.startswith(_PREFIXES) and entry.name not in named:
                        with suppress(OSError):
                            Path(entry.path).unlink()


def _mapped(path: Path) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
