"""`manifest.json`: the files that make up one state of a segment store, with checksums."""

from __future__ import annotations

import base64
import hashlib
import json
import mmap
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsicd_embed.errors import StoreCorruptError, StoreError
from rsicd_embed.files import FileEntry
from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import require_tag

FILE = "manifest.json"
FORMAT = "rsicd-embed segments"
VERSION = 2
TAG_PREFIX = "tag-"
_TAG_SUFFIX = ".json"
_REMEDY = "restore the folder from a backup, or delete it and ingest again"


@dataclass(frozen=True)
class SegmentEntry:
    """The files of a segment: rows that were written together.

    Attributes:
        vectors: float32 (rows, dim) as an .npy file.
        attributes: the other columns as an Arrow IPC file.
        rows: number of rows in the files, dead rows included.
        dead: number of rows that were replaced or deleted since.
        tombstones: positions of the dead rows, little-endian uint32; None if all are live.
        codes: int8 codes of the vectors, for a large segment that was optimised.
    """

    vectors: FileEntry
    attributes: FileEntry
    rows: int
    dead: int = 0
    tombstones: FileEntry | None = None
    codes: FileEntry | None = None

    @property
    def files(self) -> list[FileEntry]:
        """All files of the segment."""
        optional = (self.tombstones, self.codes)
        return [self.vectors, self.attributes, *(file for file in optional if file)]


@dataclass(frozen=True)
class GraphEntry:
    """The files and parameters of a nearest-neighbour graph over the rows of one segment.

    Attributes:
        file: the graph as NMSLib saved it.
        segment: name of the segment's vector file.
        rows: number of rows in the segment.
        neighbours, ef_construction: build parameters.
        ef_search: number of candidates during a search.
        ann_recall: overlap@10 with exact search in [0, 1], measured after the build.
        owners: the node of each row, little-endian uint32; None if row i is node i.
    """

    file: FileEntry
    segment: str
    rows: int
    neighbours: int
    ef_construction: int
    ef_search: int
    ann_recall: float
    owners: FileEntry | None = None

    @property
    def files(self) -> list[FileEntry]:
        """The files to verify before the graph is loaded."""
        return [self.file, self.owners] if self.owners else [self.file]


@dataclass(frozen=True)
class Manifest:
    """One state of a store.

    Attributes:
        kind: kind of store, for example "exact".
        generation: number of changes so far.
        provenance: the model that made the vectors.
        attributes: the columns beyond the six fixed ones.
        segments: oldest first.
        graph: the graph over the first segment, if one was built.
        tags: manifests of the tagged states; only the newest manifest lists them.
        tag: the tag of this state; None for the newest.
    """

    kind: str
    generation: int
    provenance: Provenance
    attributes: pa.Schema
    segments: tuple[SegmentEntry, ...] = ()
    graph: GraphEntry | None = None
    tags: tuple[FileEntry, ...] = ()
    tag: str | None = None

    @property
    def files(self) -> list[FileEntry]:
        """All files of this state except the manifest itself."""
        files = [file for entry in self.segments for file in entry.files]
        return files + (self.graph.files if self.graph else [])

    @property
    def tag_files(self) -> dict[str, FileEntry]:
        """Tag name → its manifest file, sorted by name."""
        names = [file.name.removeprefix(TAG_PREFIX).removesuffix(_TAG_SUFFIX) for file in self.tags]
        return dict(sorted(zip(names, self.tags, strict=True)))


def tag_path(folder: Path, tag: str) -> Path:
    """Path of a tag's manifest; StoreError if the name is not valid for a tag."""
    return folder / f"{TAG_PREFIX}{require_tag(tag)}{_TAG_SUFFIX}"


def encode(manifest: Manifest) -> bytes:
    """Serialises a manifest as the content of manifest.json."""
    body = {
        "kind": manifest.kind,
        "generation": manifest.generation,
        "provenance": asdict(manifest.provenance),
        "attributes": base64.b64encode(manifest.attributes.serialize().to_pybytes()).decode(),
        "segments": [asdict(segment) for segment in manifest.segments],
        "graph": asdict(manifest.graph) if manifest.graph else None,
        "tags": [asdict(tag) for tag in manifest.tags],
        "tag": manifest.tag,
    }
    document = {"format": FORMAT, "version": VERSION, "sha256": _checksum(body), "body": body}
    return json.dumps(document, indent=1).encode()


def decode(raw: bytes, path: Path, kind: str, tag: str | None = None) -> Manifest:
    """Parses the content of manifest.json, or of the manifest of `tag`.

    Raises:
        StoreError: the manifest belongs to another kind of store.
        StoreCorruptError: it is damaged, not a manifest, or of another format version.
    """
    try:
        document = json.loads(raw)
        if document["format"] != FORMAT:
            raise ValueError("another format")
        version = document["version"]
    except (ValueError, KeyError, TypeError):
        raise StoreCorruptError(
            f"{path} is damaged or not a manifest of rsicd-embed; {_REMEDY}"
        ) from None
    if version != VERSION:
        raise StoreCorruptError(
            f"{path}: expected format version {VERSION}, found {version!r}; "
            "read it with the rsicd-embed that wrote it, or ingest again into a new folder"
        )
    try:
        body = document["body"]
        if _checksum(body) != document["sha256"]:
            raise ValueError("checksum")
        manifest = _manifest(body)
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise StoreCorruptError(
            f"{path} is damaged: its checksum does not match its content; {_REMEDY}"
        ) from None
    if manifest.tag != tag:
        raise StoreCorruptError(f"{path} is damaged: it describes another state; {_REMEDY}")
    if manifest.kind != kind:
        raise StoreError(
            f"{path.parent} is a store of kind {manifest.kind!r}, not {kind!r}; "
            f"open it as {manifest.kind}:{path.parent}"
        )
    return manifest


def _manifest(body: dict[str, Any]) -> Manifest:
    graph = body["graph"]
    return Manifest(
        kind=body["kind"],
        generation=body["generation"],
        provenance=Provenance(**body["provenance"]),
        attributes=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(body["attributes"]))),
        segments=tuple(
            SegmentEntry(**_with_files(entry, "vectors", "attributes", "tombstones", "codes"))
            for entry in body["segments"]
        ),
        graph=GraphEntry(**_with_files(graph, "file", "owners")) if graph else None,
        tags=tuple(FileEntry(**file) for file in body.get("tags", ())),
        tag=body.get("tag"),
    )


def _with_files(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    """The fields of an entry, those called `names` as files."""
    files = {name: FileEntry(**entry[name]) if entry.get(name) else None for name in names}
    return {**entry, **files}


def _checksum(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CachedFile:
    """The content of a file that is only ever replaced, to be read again once it has been.

    Attributes:
        content: all bytes of the file.
        stamp: device, inode, size and modification time; None if they cannot tell it is unchanged.
        mapping: keeps the file alive, so that its replacement cannot get the same inode.
    """

    content: bytes
    stamp: tuple[int, int, int, int] | None
    mapping: mmap.mmap | None

    @classmethod
    def read(cls, path: Path) -> CachedFile:
        """Reads a file, or raises OSError."""
        handle = os.open(path, os.O_RDONLY)
        try:
            status = os.fstat(handle)
            content = os.read(handle, status.st_size)
            # Windows cannot replace a file that is mapped.
            if os.name != "posix" or not content:
                return cls(content, None, None)
            mapping = mmap.mmap(handle, len(content), access=mmap.ACCESS_READ)
            return cls(content, _stamp(status), mapping)
        finally:
            os.close(handle)

    def is_current(self, path: Path) -> bool:
        """Whether `path` is certainly still the file that was read.

        This takes a fifth of the time of reading the file. On a network file system it is as
        up to date as the file attributes that the system caches.
        """
        if self.stamp is None:
            return False
        try:
            return _stamp(os.stat(path)) == self.stamp  # noqa: PTH116 (pathlib is slower)
        except OSError:
            return False


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
