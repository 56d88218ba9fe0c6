"""Ingest of images into a store: resumable, and embeds only new and changed images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rsicd_embed.arguments import require_items, require_object
from rsicd_embed.datasets import classes
from rsicd_embed.datasets.base import Skipped, Source
from rsicd_embed.datasets.sources import resolve
from rsicd_embed.embedder.base import Embedder, require_embedder
from rsicd_embed.errors import ImageError
from rsicd_embed.images import STRETCH_RULE
from rsicd_embed.indexing.image_workers import ImageWorkers, Loaded, LocalWorkers
from rsicd_embed.indexing.reconcile import (
    KnownRows,
    computed_columns,
    corrected_columns,
    keep_stored,
    update_attributes,
)
from rsicd_embed.indexing.stages import Stages
from rsicd_embed.indexing.vanished_rows import MovedRows, remove_vanished
from rsicd_embed.indexing.writer import Displaced, Writer
from rsicd_embed.parallel import batched
from rsicd_embed.records import corrected_name
from rsicd_embed.stores.base import VectorStore, require_store

Progress = Callable[[int], None]

# Images whose rows are looked up together, in one pass over the store's ids.
LOOKUP_ROWS = 65_536


@dataclass
class Summary:
    """Result of an ingest or import.

    Attributes:
        embedded: number of images that were new or whose bytes had changed.
        changed: number of those whose bytes had changed.
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
        stages: busy seconds by stage, summed over threads (see `stages.Stages`).
        engine: engine and precision that embedded the images, if the embedder reports them.
    """

    embedded: int = 0
    changed: int = 0
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
            whose id is in no source; and those of tiles with too few pixels with data by now.
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
    return ingest_with(
        sources,
        LocalWorkers(embedder),
        store,
        strict=strict,
        prune=prune,
        column_types=column_types,
        progress=progress,
    )


def ingest_with(
    sources: Sequence[Source],
    workers: ImageWorkers,
    store: VectorStore,
    *,
    strict: bool = False,
    prune: bool = False,
    column_types: Mapping[str, str] | None = None,
    progress: Progress = lambda done: None,
) -> Summary:
    """Does what `ingest` does, with any workers; this process alone writes to the store."""
    started = time.perf_counter()
    sources = [classes.give_way(source, store.schema, "the store") for source in sources]
    sources = resolve(sources, column_types, store.schema)
    notes = [note for source in sources for note in source.notes]
    summary, stages = Summary(notes=notes, engine=workers.engine), Stages()
    moved = MovedRows()
    blank: list[str] = []
    for source in sources:
        blank += _ingest_one(
            source, workers, store, moved, summary, stages, strict=strict, progress=progress
        )
    summary.notes += moved.notes(sources)
    given = {name for source in sources for name in {*source.schema.names} - {*source.inferred}}
    computed = [name for name in computed_columns(store.schema) if name not in given]
    if summary.changed and computed:
        summary.notes.append(
            f"{summary.changed:,} changed images keep what was computed from their earlier "
            f"contents, in the columns {', '.join(computed)}; compute these again with --overwrite"
        )
    if prune:
        summary.removed = remove_vanished(store, sources, blank)
    elif blank:
        summary.notes.append(
            f"{len(blank):,} tiles have too few pixels with data now, such as {blank[0]!r}; the "
            "store still has them as they were; --prune removes them"
        )
    if summary.embedded or summary.updated or summary.removed:
        with stages("index"):
            store.optimize()
    summary.seconds = time.perf_counter() - started
    summary.stages = stages.seconds()
    return summary


def _ingest_one(
    source: Source,
    workers: ImageWorkers,
    store: VectorStore,
    moved: MovedRows,
    summary: Summary,
    stages: Stages,
    *,
    strict: bool,
    progress: Progress,
) -> list[str]:
    """Ingests one source by batches, so that memory does not depend on the number of images.

    Returns:
        Ids of rows whose tile is left out now.
    """
    blank: list[str] = []
    writer = Writer(store, workers, source.schema, source.inferred, stages)
    summary.skipped += source.skipped
    for suffix, count in source.unread.items():
        summary.unread[suffix] = summary.unread.get(suffix, 0) + count
    if strict and source.skipped:
        raise ImageError(f"{source.skipped[0].uri}: {source.skipped[0].reason}")
    is_new = not len(store)  # ids are distinct, so nothing is found later either
    try:
        for batch in batched(source.examples, LOOKUP_ROWS):
            corrected = corrected_columns(store.schema, source.schema)
            columns = [*source.schema.names, *map(corrected_name, corrected)]
            known = KnownRows(None if is_new else store, batch, columns)
            moved.add(known)
            examples = keep_stored(batch, known, source.inferred, corrected)
            same = []
            outcomes = workers.outcomes(examples, known, source.max_nodata, stages)
            for example, outcome in zip(examples, outcomes, strict=True):
                if isinstance(outcome, Loaded):
                    writer.add(outcome)
                    summary.embedded += 1
                    summary.changed += outcome.replaces
                    summary.stretched += outcome.stretched
                elif outcome is None:
                    summary.blank += 1
                    blank += [example.id] if known.is_known(example.id) else []
                elif isinstance(outcome, Skipped):
                    summary.skipped.append(outcome)
                    if strict:
                        raise ImageError(f"{outcome.uri}: {outcome.reason}")
                else:
                    same.append(outcome)
                progress(1)
            updated = update_attributes(store, source.schema, same, known, source.inferred)
            summary.updated += updated
            summary.unchanged += len(same) - updated
    finally:
        writer.flush()
        summary.displaced += writer.displaced
    return blank
