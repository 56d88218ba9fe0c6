"""Ingest of images into a store: resumable, and embeds only new and changed images."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from rsicd_embed.arguments import require_items, require_object
from rsicd_embed.datasets import classes
from rsicd_embed.datasets.base import ETAG, Example, Skipped, Source, why_missing
from rsicd_embed.datasets.sources import resolve
from rsicd_embed.embedder.base import Embedder, engine_of, require_embedder
from rsicd_embed.errors import ImageError, RemoteAccessError, RemoteError
from rsicd_embed.images import (
    STRETCH_RULE,
    Picture,
    SceneWindow,
    TableCell,
    TarMember,
    read_bytes,
    read_picture,
)
from rsicd_embed.indexing.reconcile import (
    KnownRows,
    MovedRows,
    keep_stored,
    update_attributes,
    vanished,
)
from rsicd_embed.indexing.writer import Displaced, Loaded, Stages, Writer
from rsicd_embed.parallel import batched, cpu_count, ordered_map
from rsicd_embed.remote import THREADS, Reservation, fetch, is_remote
from rsicd_embed.stores.base import VectorStore, require_store

Progress = Callable[[int], None]

# Images whose rows are looked up together, in one pass over the store's ids.
LOOKUP_ROWS = 65_536


@dataclass
class Summary:
    """Result of an ingest or import.

    Attributes:
        embedded: number of images that were new or whose bytes had changed.
        updated: number of images whose attributes or path had changed, but not their bytes.
        unchanged: number of images or imported rows that the store already had.
        imported: number of rows from files that were new or differed from the store's.
        removed: number of rows whose image no longer exists (`prune`).
        skipped: images that could not be read, with reasons.
        blank: number of tiles of scenes that were left out, as too few of their pixels have data.
        stretched: number of embedded images of more than 8 bits per sample, or of signed or float
            type, which were scaled to 8 bits (see `images.STRETCH_RULE`).
        displaced: existing images whose row was replaced by another image with the same id.
        unread: number of image files in unsupported formats, by suffix.
        notes: messages for the user about how the sources were read, one line each.
        seconds: wall time.
        stages: busy seconds by stage, summed over threads (see `writer.Stages`).
        engine: engine and precision that embedded the images, if the embedder reports them.
    """

    embedded: int = 0
    updated: int = 0
    unchanged: int = 0
    imported: int = 0
    removed: int = 0
    blank: int = 0
    stretched: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    displaced: list[Displaced] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    engine: str | None = None

    @property
    def images_per_s(self) -> float:
        """Number of images embedded per second."""
        return self.embedded / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """The JSON document for `--json`."""
        rule = {"stretch_rule": STRETCH_RULE} if self.stretched else {}
        return (
            asdict(self)
            | rule
            | {
                "seconds": round(self.seconds, 3),
                "images_per_s": round(self.images_per_s, 1),
                "stages": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            }
        )


def ingest(
    sources: Sequence[Source],
    embedder: Embedder,
    store: VectorStore,
    *,
    strict: bool = False,
    prune: bool = False,
    column_types: Mapping[str, str] | None = None,
    progress: Progress = lambda done: None,
) -> Summary:
    """Embeds new and changed images of `sources` into `store`, and updates attributes.

    Rows are committed every few seconds, so an interrupted ingest can be repeated and continues
    where it stopped.

    Args:
        sources: returned by `rsicd_embed.open_sources`.
        embedder: the embedder with which the store was opened.
        store: the store to update.
        strict: fail on the first unreadable image; images embedded before it are kept.
        prune: remove rows whose uri is below a source's folder, whose file no longer exists, and
            whose id is in no source.
        column_types: column name → type to read it as; see `rsicd_embed.open_sources`. Columns of
            the store keep their types.
        progress: called with the number of images processed since the last call.

    Raises:
        DatasetError: a value does not have the declared type.
        ImageError: an image is unreadable, if `strict`.
        StoreError: rows or values do not fit the store.
        ArgumentError: an argument has the wrong type, such as a path for `sources`.
    """
    require_items(sources, "sources")
    for source in sources:
        require_object(source, ("examples",), "a source", "rsicd_embed.open_sources")
    require_embedder(embedder)
    require_store(store)
    started = time.perf_counter()
    sources = [classes.give_way(source, store.schema, "the store") for source in sources]
    sources = resolve(sources, column_types, store.schema)
    notes = [note for source in sources for note in source.notes]
    summary, stages = Summary(notes=notes, engine=engine_of(embedder)), Stages()
    moved = MovedRows()
    for source in sources:
        _ingest_one(
            source, embedder, store, moved, summary, stages, strict=strict, progress=progress
        )
    summary.notes += moved.notes(sources)
    if prune:
        summary.removed = store.delete(vanished(store, sources))
    if summary.embedded or summary.updated or summary.removed:
        with stages("index"):
            store.optimize()
    summary.seconds = time.perf_counter() - started
    summary.stages = stages.seconds()
    return summary


def _ingest_one(
    source: Source,
    embedder: Embedder,
    store: VectorStore,
    moved: MovedRows,
    summary: Summary,
    stages: Stages,
    *,
    strict: bool,
    progress: Progress,
) -> None:
    """Ingests one source by batches, so that memory does not depend on the number of images."""
    writer = Writer(store, embedder, source.schema, stages)
    loader = _Loader(source, embedder, stages)
    summary.skipped += source.skipped
    for suffix, count in source.unread.items():
        summary.unread[suffix] = summary.unread.get(suffix, 0) + count
    if strict and source.skipped:
        raise ImageError(f"{source.skipped[0].uri}: {source.skipped[0].reason}")
    is_new = not len(store)  # ids are distinct, so nothing is found later either
    try:
        for batch in batched(source.examples, LOOKUP_ROWS):
            known = KnownRows(None if is_new else store, batch, source.schema.names)
            moved.add(known)
            examples = keep_stored(batch, known, source.inferred)
            threads = THREADS if any(is_remote(example.file) for example in examples) else None
            outcomes = ordered_map(
                partial(loader.load, known=known),
                examples,
                ahead=4 * embedder.batch_size,
                threads=threads,
            )
            same = []
            for outcome in outcomes:
                if isinstance(outcome, Loaded):
                    writer.add(outcome)
                    summary.embedded += 1
                    summary.stretched += outcome.stretched
                elif outcome is None:
                    summary.blank += 1
                elif isinstance(outcome, Skipped):
                    summary.skipped.append(outcome)
                    if strict:
                        raise ImageError(f"{outcome.uri}: {outcome.reason}")
                else:
                    same.append(outcome)
                progress(1)
            updated = update_attributes(store, source.schema, same, known)
            summary.updated += updated
            summary.unchanged += len(same) - updated
    finally:
        writer.flush()
        summary.displaced += writer.displaced


class _Loader:
    """Reads and preprocesses images on threads."""

    def __init__(self, source: Source, embedder: Embedder, stages: Stages) -> None:
        self._source, self._embedder, self._stages = source, embedder, stages
        # More threads than processors wait for remote images; only as many decode them.
        self._processors = threading.BoundedSemaphore(cpu_count())

    def load(self, example: Example, known: KnownRows) -> Loaded | Example | Skipped | None:
        """Reads an image; returns the example if the store has the same bytes, and None for a tile
        with too little data.

        Raises:
            RemoteAccessError: a bucket or the credentials are refused, so all images would be.
        """
        try:
            if SceneWindow.parse(example.file):
                return self._load_window(example, known)
            with Reservation() as reservation:
                with self._stages("read"):
                    read = self._read(example, known, reservation)
                if isinstance(read, Example):
                    return read
                example, data = read
                sha256 = hashlib.sha256(data).hexdigest()
                if known.sha256(example.id) == sha256:
                    return example
                with self._processors:
                    with self._stages("decode"):
                        picture = read_picture(data)
                    return self._loaded(example, known, picture, sha256)
        except (ImageError, RemoteError) as error:
            if isinstance(error, RemoteAccessError):
                raise
            return Skipped(example.uri, str(error))

    def _load_window(self, example: Example, known: KnownRows) -> Loaded | Example | None:
        with self._processors, self._stages("decode"):
            picture = read_picture(example.file)
            sha256 = hashlib.sha256(picture.image.tobytes()).hexdigest()
        if picture.nodata > self._source.max_nodata:
            return None
        attributes = {**example.attributes, "nodata": round(picture.nodata, 4)}
        example = replace(example, attributes=attributes)
        if known.sha256(example.id) == sha256:
            return example
        return self._loaded(example, known, picture, sha256)

    def _loaded(self, example: Example, known: KnownRows, picture: Picture, sha256: str) -> Loaded:
        with self._stages("resize"):
            pixels = self._embedder.preprocess(picture.image)
        return Loaded(
            example,
            example.uri,
            sha256,
            pixels,
            *picture.image.size,
            stretched=picture.stretch is not None,
            replaces=known.is_known(example.id),
        )

    def _read(
        self, example: Example, known: KnownRows, reservation: Reservation
    ) -> Example | tuple[Example, bytes]:
        """Reads an image's bytes; returns the example if its ETag is the store's."""
        listed, stored = example.attributes.get(ETAG) or "", known.etag(example)
        if listed and listed == stored:
            return example
        if member := TarMember.parse(example.file):
            return example, member.read(etag=listed, reservation=reservation)
        if cell := TableCell.parse(example.file):
            return example, cell.read(etag=listed)
        if not is_remote(example.file):
            return example, _file_bytes(example)
        content = fetch(example.file, etag=listed, known=stored, reservation=reservation)
        etag = content.object.etag if content else stored
        if etag != listed:
            example = replace(example, attributes={**example.attributes, ETAG: etag or None})
        return (example, content.data) if content else example


def _file_bytes(example: Example) -> bytes:
    try:
        return read_bytes(example.path)
    except ImageError as error:
        reason = why_missing(example.file)
        raise (ImageError(f"no such file: {reason}") if reason else error) from None
