"""What a folder of segments says about itself: manifest.json, with a checksum of its own."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsicd_embed.errors import StoreCorruptError, StoreError
from rsicd_embed.files import FileEntry
from rsicd_embed.records import Provenance

FILE = "manifest.json"
FORMAT = "rsicd-embed segments"
VERSION = 2


@dataclass(frozen=True)
class SegmentEntry:
    """Rows written together, and which of them have died since.

    Attributes:
        vectors: float32 (rows, dim) as an .npy file.
        attributes: the other columns as an Arrow IPC file.
        rows: in the files, dead ones included.
        dead: how many are dead.
        tombstones: positions of the dead rows, little-endian uint32; None where all are live.
        codes: int8 codes of the vectors; None where there are none, as in smaller segments.
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
    """A nearest-neighbour graph over the rows of one segment.

    Attributes:
        file: the graph as the library saved it.
        segment: name of the segment's vectors.
        rows: in the segment.
        owners: the node of each row, little-endian uint32; None where row i is node i.
        neighbours, ef_construction: what it was built with.
        ef_search: how many nodes a search keeps in view.
        ann_recall: overlap@10 with exact search, measured when it was built, in [0, 1].
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
        """What to verify before the graph is loaded."""
        return [self.file, self.owners] if self.owners else [self.file]


@dataclass(frozen=True)
class Manifest:
    """One state of a store.

    Attributes:
        kind: which store it is, for example "exact".
        generation: counts the changes.
        provenance: what made the vectors.
        attributes: the columns beyond the six fixed ones.
        segments: the older first.
        graph: where one was built.
        tags: the files of the states that are kept, which the newest alone knows.
        tag: under which name this state is kept; None for the newest.
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
        """Every file of this state but the manifest."""
        files = [file for segment in self.segments for file in segment.files]
        return files + (self.graph.files if self.graph else [])


def encode(manifest: Manifest) -> bytes:
    """The content of manifest.json."""
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
    whole = {"format": FORMAT, "version": VERSION, "sha256": _checksum(body), "body": body}
    return json.dumps(whole, indent=1).encode()


def decode(raw: bytes, path: Path, kind: str, tag: str | None = None) -> Manifest:
    """Reads manifest.json, or what keeps the state of `tag`.

    Raises:
        StoreError: it is that of another kind of store.
        StoreCorruptError: it is none, is damaged, or is of a later version.
    """
    remedy = "restore the folder from a backup, or delete it and ingest again"
    try:
        whole = json.loads(raw)
        if whole["format"] != FORMAT:
            raise ValueError("another format")
        version = whole["version"]
    except (ValueError, KeyError, TypeError):
        raise StoreCorruptError(
            f"{path} is damaged or not a manifest of rsicd-embed; {remedy}"
        ) from None
    if version != VERSION:
        raise StoreCorruptError(
            f"{path}: expected format version {VERSION}, found {version!r}; "
            "read it with the rsicd-embed that wrote it, or ingest again into a new folder"
        )
    try:
        body = whole["body"]
        if _checksum(body) != whole["sha256"]:
            raise ValueError("checksum")
        manifest = _manifest(body)
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise StoreCorruptError(
            f"{path} is damaged: its checksum is not that of its content; {remedy}"
        ) from None
    if manifest.tag != tag:
        raise StoreCorruptError(f"{path} is damaged: it holds another state; {remedy}")
    if manifest.kind != kind:
        raise StoreError(
            f"{path.parent} is a store of kind {manifest.kind!r}, not {kind!r}; "
            f"open it as {manifest.kind}:{path.parent}"
        )
    return manifest


def _manifest(body: dict[str, Any]) -> Manifest:
    buffer = pa.py_buffer(base64.b64decode(body["attributes"]))
    graph = body["graph"]
    return Manifest(
        kind=body["kind"],
        generation=body["generation"],
        provenance=Provenance(**body["provenance"]),
        attributes=pa.ipc.read_schema(buffer),
        segments=tuple(
            SegmentEntry(
                FileEntry(**segment["vectors"]),
                FileEntry(**segment["attributes"]),
                segment["rows"],
                segment["dead"],
                _optional(segment["tombstones"]),
                _optional(segment.get("codes")),
            )
            for segment in body["segments"]
        ),
        graph=_graph(graph) if graph else None,
        tags=tuple(FileEntry(**one) for one in body.get("tags", ())),
        tag=body.get("tag"),
    )


def _graph(entry: dict[str, Any]) -> GraphEntry:
    owners = _optional(entry["owners"])
    return GraphEntry(**{**entry, "file": FileEntry(**entry["file"]), "owners": owners})


def _optional(entry: dict[str, Any] | None) -> FileEntry | None:
    return FileEntry(**entry) if entry else None


def _checksum(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
