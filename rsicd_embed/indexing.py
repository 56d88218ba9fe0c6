"""Ingest: images of a source → an embedder → a store. Resumable; embeds only what changed."""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.datasets.base import Example, Skipped, Source, plain_path
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.embedder.images import read_bytes, read_rgb
from rsicd_embed.errors import ImageError
from rsicd_embed.parallel import ordered_map
from rsicd_embed.records import FIXED_COLUMNS, VECTOR, row_schema, vector_array
from rsicd_embed.stores.base import VectorStore

# What an interrupted run may have to do again: few enough seconds, enough rows for a commit.
_COMMIT_S = 10.0
_COMMIT_ROWS = 8192

Progress = Callable[[int], None]


@dataclass
class Summary:
    """What an ingest did.

    Attributes:
        embedded: images that were new or whose bytes had changed.
        updated: images whose attributes or place had changed, not their bytes; vectors were kept.
        unchanged: images that were in the store as they are.
        removed: rows whose image has vanished (`prune`).
        skipped: images that could not be read.
        seconds: wall time.
    """

    embedded: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def images_per_s(self) -> float:
        """Embedded images a second."""
        return self.embedded / self.seconds if self.seconds else 0.0


def ingest(
    sources: Sequence[Source],
    embedder: Embedder,
    store: VectorStore,
    *,
    strict: bool = False,
    prune: bool = False,
    progress: Progress = lambda done: None,
) -> Summary:
    """Brings `store` up to date with `sources`.

    Rows are committed every few seconds: an interrupted run goes on where it stopped.

    Args:
        sources: with ids that do not meet (`datasets.sources.open_sources`).
        embedder: the one the store was opened with.
        store: where rows go.
        strict: an unreadable image ends the run; what was embedded before it is kept.
        prune: removes rows whose uri lies in a source's folder, whose image file is gone, and
            whose id no source has.
        progress: called with the number of images dealt with since the last call.

    Raises:
        ImageError: an unreadable image, if `strict`.
        StoreError: the store refuses the rows.
    """
    started = time.perf_counter()
    summary = Summary()
    known = _known_rows(store)
    for source in sources:
        _ingest_one(source, embedder, store, known, summary, strict=strict, progress=progress)
    if prune:
        summary.removed = store.delete(_vanished(store, sources))
    if summary.embedded or summary.updated or summary.removed:
        store.optimize()
    summary.seconds = time.perf_counter() - started
    return summary


@dataclass(frozen=True)
class _Loaded:
    example: Example
    uri: str
    sha256: str
    pixels: np.ndarray
    width: int
    height: int


def _ingest_one(
    source: Source,
    embedder: Embedder,
    store: VectorStore,
    known: dict[str, str],
    summary: Summary,
    *,
    strict: bool,
    progress: Progress,
) -> None:
    def load(example: Example) -> _Loaded | Example | Skipped:
        """Runs on threads; an Example comes back where the store has these very bytes."""
        uri = example.uri
        try:
            data = _image_bytes(example.path)
            sha256 = hashlib.sha256(data).hexdigest()
            if known.get(example.id) == sha256:
                return example
            image = read_rgb(data)
            return _Loaded(
                example, uri, sha256, embedder.preprocess(image), image.width, image.height
            )
        except ImageError as error:
            return Skipped(uri, str(error))

    writer = _Writer(store, embedder, source.schema)
    summary.skipped += source.skipped
    if strict and source.skipped:
        raise ImageError(f"{source.skipped[0].uri}: {source.skipped[0].reason}")
    same: dict[str, Example] = {}
    new: dict[str, str] = {}
    try:
        for outcome in ordered_map(load, source.examples, ahead=4 * embedder.batch_size):
            if isinstance(outcome, _Loaded):
                writer.add(outcome)
                summary.embedded += 1
                new[outcome.example.id] = outcome.sha256
            elif isinstance(outcome, Skipped):
                summary.skipped.append(outcome)
                if strict:
                    raise ImageError(f"{outcome.uri}: {outcome.reason}")
            else:
                same[outcome.id] = outcome
            progress(1)
    finally:
        writer.flush()
    known.update(new)
    updated = _update_attributes(store, source.schema, same)
    summary.updated += updated
    summary.unchanged += len(same) - updated


def _image_bytes(path: Path) -> bytes:
    with suppress(OSError, ValueError):  # which reading it tells
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise ImageError("not a regular file")
    return read_bytes(path)


class _Writer:
    """Embeds by batches and commits by time."""

    def __init__(self, store: VectorStore, embedder: Embedder, attributes: pa.Schema) -> None:
        self._store = store
        self._embedder = embedder
        self._schema = row_schema(embedder.dim, attributes)
        # Columns that do not fit are refused here, before anything is embedded.
        store.upsert([pa.RecordBatch.from_pylist([], self._schema)])
        self._waiting: list[_Loaded] = []
        self._batches: list[pa.RecordBatch] = []
        self._committed = time.perf_counter()

    def add(self, loaded: _Loaded) -> None:
        self._waiting.append(loaded)
        if len(self._waiting) < self._embedder.batch_size:
            return
        self._embed()
        rows = sum(batch.num_rows for batch in self._batches)
        if rows >= _COMMIT_ROWS or time.perf_counter() - self._committed >= _COMMIT_S:
            self._commit()

    def flush(self) -> None:
        """Embeds and commits what waits, after an interruption too: the work is done already."""
        self._embed()
        self._commit()

    def _embed(self) -> None:
        some, self._waiting = self._waiting, []
        if some:
            vectors = self._embedder.embed_pixels(np.stack([one.pixels for one in some]))
            self._batches.append(_rows(some, vectors, self._schema))

    def _commit(self) -> None:
        batches, self._batches = self._batches, []
        if batches:
            self._store.upsert(batches)
        self._committed = time.perf_counter()


def _rows(some: Sequence[_Loaded], vectors: np.ndarray, schema: pa.Schema) -> pa.RecordBatch:
    columns: dict[str, Any] = {
        "id": [one.example.id for one in some],
        VECTOR: vector_array(vectors),
        "uri": [one.uri for one in some],
        "sha256": [one.sha256 for one in some],
        "width": [one.width for one in some],
        "height": [one.height for one in some],
    }
    for name in schema.names[len(FIXED_COLUMNS) :]:
        columns[name] = [one.example.attributes.get(name) for one in some]
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, schema.field(name).type)
        for name, column in columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _known_rows(store: VectorStore) -> dict[str, str]:
    """id → sha256 of every row."""
    known: dict[str, str] = {}
    for batch in store.scan(["id", "sha256"]):
        known.update(zip(batch["id"].to_pylist(), batch["sha256"].to_pylist(), strict=True))
    return known


def _update_attributes(store: VectorStore, schema: pa.Schema, same: Mapping[str, Example]) -> int:
    """Writes new attributes and uris to rows whose image is the same; returns how many."""
    if not same:
        return 0
    held = store.schema.names
    names = [name for name in schema.names if name in held]
    lacking = [name for name in schema.names if name not in held]
    changed: set[str] = {
        id_
        for id_, example in same.items()
        if any(example.attributes.get(name) not in (None, []) for name in lacking)
    }
    for batch in store.scan(["id", "uri", *names]):
        for row in batch.to_pylist():
            example = same.get(row["id"])
            if example and (
                row["uri"] != example.uri
                or any(not _equal(row[name], example.attributes.get(name)) for name in names)
            ):
                changed.add(row["id"])
    if changed:
        store.upsert(_renewed(store, schema, {id_: same[id_] for id_ in changed}))
    return len(changed)


def _equal(one: Any, other: Any) -> bool:
    """Equality for which NaN equals NaN."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other or (one != one and other != other))


def _renewed(
    store: VectorStore, schema: pa.Schema, examples: Mapping[str, Example]
) -> Iterator[pa.RecordBatch]:
    wanted = pa.array(list(examples), pa.string())
    for batch in store.scan():
        rows = batch.filter(pc.is_in(batch["id"], wanted))
        if not rows.num_rows:
            continue
        ours = [examples[id_] for id_ in rows["id"].to_pylist()]
        columns = dict(zip(rows.schema.names, rows.columns, strict=True))
        columns["uri"] = pa.array([example.uri for example in ours])
        for one in schema:
            columns[one.name] = pa.array([e.attributes.get(one.name) for e in ours], one.type)
        yield pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def _vanished(store: VectorStore, sources: Sequence[Source]) -> list[str]:
    roots = tuple(plain_path(source.root) for source in sources)
    present = {example.id for source in sources for example in source.examples}
    gone = []
    for batch in store.scan(["id", "uri"]):
        for id_, uri in zip(batch["id"].to_pylist(), batch["uri"].to_pylist(), strict=True):
            if id_ in present or not uri:
                continue
            path = Path(uri)
            if any(path.is_relative_to(root) for root in roots) and _is_gone(path):
                gone.append(id_)
    return gone


def _is_gone(path: Path) -> bool:
    """Whether there is surely no file; one that may not be looked at is not gone."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
