"""Ingest: images of a source → an embedder → a store. Resumable; embeds only what changed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rsicd_embed.arguments import require_items, require_object
from rsicd_embed.datasets import classes
from rsicd_embed.datasets.base import Example, Skipped, Source, why_missing
from rsicd_embed.datasets.sources import resolve
from rsicd_embed.embedder.base import Embedder, require_embedder
from rsicd_embed.errors import ImageError
from rsicd_embed.images import STRETCH_RULE, read_bytes, read_picture
from rsicd_embed.indexing.reconcile import (
    keep_stored,
    known_rows,
    under_other_ids,
    update_attributes,
    vanished,
)
from rsicd_embed.indexing.writer import Displaced, Loaded, Stages, Writer
from rsicd_embed.parallel import ordered_map
from rsicd_embed.stores.base import VectorStore, require_store

Progress = Callable[[int], None]


@dataclass
class Summary:
    """What an ingest did.

    Attributes:
        embedded: images that were new or whose bytes had changed.
        updated: images whose attributes or place had changed, not their bytes; vectors were kept.
        unchanged: images, or rows of files, that were in the store as they are.
        imported: rows from files of rows that were new, or not in the store as they are.
        removed: rows whose image has vanished (`prune`).
        skipped: images that could not be read.
        stretched: embedded images of more than 8 bits per sample, or of signed or float type, which
            were scaled to 8 bits (`images.STRETCH_RULE` says how).
        displaced: images that are still there, and whose row another one with the same id took.
        unread: number of files by suffix that look like pictures and are of formats not read.
        notes: what else a person should know about how the sources were read, one line each.
        seconds: wall time.
        stages: busy seconds by stage, summed over threads (`stages.Stages`).
    """

    embedded: int = 0
    updated: int = 0
    unchanged: int = 0
    imported: int = 0
    removed: int = 0
    stretched: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    displaced: list[Displaced] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def images_per_s(self) -> float:
        """Embedded images a second."""
        return self.embedded / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
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
    """Brings `store` up to date with `sources`.

    Rows are committed every few seconds: an interrupted run goes on where it stopped.

    Args:
        sources: in which an id is always the same image (`datasets.sources.open_sources`).
        embedder: the one the store was opened with.
        store: where rows go.
        strict: an unreadable image ends the run; what was embedded before it is kept.
        prune: removes rows whose uri lies in a source's folder, whose image file is gone, and
            whose id no source has.
        column_types: column name → type to read it as, see `datasets.sources.open_sources`; the
            store's own columns keep their types.
        progress: called with the number of images dealt with since the last call.

    Raises:
        DatasetError: a value is not of the declared type.
        ImageError: an unreadable image, if `strict`.
        StoreError: the store refuses the rows, or a value does not fit its column.
        ArgumentError: a path for the sources, a URI for the store, and the like.
    """
    require_items(sources, "sources")
    for source in sources:
        require_object(source, ("examples",), "a source", "rsicd_embed.open_sources")
    require_embedder(embedder)
    require_store(store)
    started = time.perf_counter()
    sources = [classes.give_way(source, store.schema, "the store") for source in sources]
    sources = resolve(sources, column_types, store.schema)
    summary, stages = Summary(notes=[note for source in sources for note in source.notes]), Stages()
    known = known_rows(store)
    summary.notes += under_other_ids(store, sources, known)
    for left, source in zip(reversed(range(len(sources))), sources, strict=True):
        new = _ingest_one(
            source, embedder, store, known, summary, stages, strict=strict, progress=progress
        )
        if left:  # another source may have the same images
            known |= new
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
    known: dict[str, str],
    summary: Summary,
    stages: Stages,
    *,
    strict: bool,
    progress: Progress,
) -> dict[str, str]:
    """Returns id → sha256 of what was embedded."""

    def load(example: Example) -> Loaded | Example | Skipped:
        """Runs on threads; an Example comes back where the store has these very bytes."""
        uri = example.uri
        try:
            with stages("read"):
                data = _image_bytes(example)
                sha256 = hashlib.sha256(data).hexdigest()
            if known.get(example.id) == sha256:
                return example
            with stages("decode"):
                picture = read_picture(data)
            with stages("resize"):
                pixels = embedder.preprocess(picture.image)
            width, height = picture.image.size
            stretched = picture.stretch is not None
            return Loaded(example, uri, sha256, pixels, width, height, stretched)
        except ImageError as error:
            return Skipped(uri, str(error))

    source = keep_stored(store, source)
    writer = Writer(store, embedder, source.schema, known, stages)
    summary.skipped += source.skipped
    for suffix, count in source.unread.items():
        summary.unread[suffix] = summary.unread.get(suffix, 0) + count
    if strict and source.skipped:
        raise ImageError(f"{source.skipped[0].uri}: {source.skipped[0].reason}")
    same: dict[str, Example] = {}
    new: dict[str, str] = {}
    try:
        for outcome in ordered_map(load, source.examples, ahead=4 * embedder.batch_size):
            if isinstance(outcome, Loaded):
                writer.add(outcome)
                summary.embedded += 1
                summary.stretched += outcome.stretched
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
        summary.displaced += writer.displaced
    updated = update_attributes(store, source.schema, same)
    summary.updated += updated
    summary.unchanged += len(same) - updated
    return new


def _image_bytes(example: Example) -> bytes:
    try:
        return read_bytes(example.path)
    except ImageError as error:
        reason = why_missing(example.file)
        raise (ImageError(f"no such file: {reason}") if reason else error) from None
