"""Embeds images in batches, commits rows at intervals, and measures the stages of an ingest."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.indexing.reconcile import is_another, stored_rows
from rsicd_embed.parallel import cpu_count
from rsicd_embed.records import FIXED_COLUMNS, VECTOR, row_schema, vector_array
from rsicd_embed.stores.base import VectorStore

# Stages that run on all threads; the others run on one.
THREADED = ("read", "decode", "resize")


class Stages:
    """Measures the busy seconds of stages, summed over threads.

    The stages of an ingest are read (file and hash), decode (to RGB), resize
    (`Embedder.preprocess`), embed, write (upserts) and index (`VectorStore.optimize`).
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._mutex = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Times a block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            with self._mutex:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Busy seconds by stage."""
        with self._mutex:
            return dict(self._seconds)


def elapsed_s(stages: dict[str, float]) -> dict[str, float]:
    """The time each group of stages would take alone; the largest is the bottleneck.

    The threaded stages share their threads, and are counted together as "read+decode+resize".
    """
    threaded = sum(stages.get(name, 0.0) for name in THREADED) / cpu_count()
    alone = {name: seconds for name, seconds in stages.items() if name not in THREADED}
    return {"+".join(THREADED): threaded, **alone}


# Limits of the work that an interrupted run has to repeat.
COMMIT_S = 10.0
COMMIT_ROWS = 8192


@dataclass(frozen=True)
class Loaded:
    """An image ready to be embedded, with preprocessed pixels.

    Attributes:
        stretched: whether its samples were scaled to 8 bits (see `images.Picture.stretch`).
        replaces: whether the store has a row with this id.
    """

    example: Example
    uri: str
    sha256: str
    pixels: np.ndarray
    width: int
    height: int
    stretched: bool = False
    replaces: bool = False


@dataclass(frozen=True)
class Displaced:
    """An image whose row was replaced by another image with the same id."""

    id: str
    uri: str
    by: str


class Writer:
    """Embeds images in batches and commits rows at intervals.

    Attributes:
        displaced: existing images whose rows were replaced by others.
    """

    def __init__(
        self,
        store: VectorStore,
        embedder: Embedder,
        attributes: pa.Schema,
        stages: Stages,
    ) -> None:
        """Checks that the columns fit the store."""
        self._store = store
        self._replaced: set[str] = set()
        self._stages = stages
        self._embedder = embedder
        self._schema = row_schema(embedder.dim, attributes)
        store.upsert([pa.RecordBatch.from_pylist([], self._schema)])
        self._waiting: list[Loaded] = []
        self._batches: list[pa.RecordBatch] = []
        self.displaced: list[Displaced] = []
        self._committed = time.perf_counter()

    def add(self, loaded: Loaded) -> None:
        """Adds an image; embeds a full batch, and commits if the interval has passed."""
        self._waiting.append(loaded)
        if loaded.replaces:
            self._replaced.add(loaded.example.id)
        if len(self._waiting) < self._embedder.batch_size:
            return
        self._embed()
        rows = sum(batch.num_rows for batch in self._batches)
        if rows >= COMMIT_ROWS or time.perf_counter() - self._committed >= COMMIT_S:
            self._commit()

    def flush(self) -> None:
        """Embeds and commits all pending images, also after an interruption."""
        self._embed()
        self._commit()

    def _embed(self) -> None:
        images, self._waiting = self._waiting, []
        if images:
            with self._stages("embed"):
                vectors = self._embedder.embed_pixels(np.stack([image.pixels for image in images]))
            self._batches.append(_rows(images, vectors, self._schema))

    def _commit(self) -> None:
        batches, self._batches = self._batches, []
        if batches:
            with self._stages("write"):
                completed = [self._completed(batch) for batch in batches]
                self._store.upsert([batch for batch, _ in completed])
                for _, displaced in completed:
                    self.displaced += displaced
                self._replaced.clear()
        self._committed = time.perf_counter()

    def _completed(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[Displaced]]:
        """Adds columns that the store has for these images but the source lacks.

        Returns:
            The batch, and the images whose rows it replaces.
        """
        if not any(id_ in self._replaced for id_ in batch["id"].to_pylist()):
            return batch, []
        lacking = [name for name in self._store.schema.names if name not in batch.schema.names]
        stored = stored_rows(self._store, batch["id"], ["uri", *lacking])
        for name in lacking:
            batch = batch.append_column(name, stored[name])
        uris = (batch["id"].to_pylist(), stored["uri"].to_pylist(), batch["uri"].to_pylist())
        return batch, [
            Displaced(id_, old, new)
            for id_, old, new in zip(*uris, strict=True)
            if old and old != new and is_another(old, new)
        ]


def _rows(images: Sequence[Loaded], vectors: np.ndarray, schema: pa.Schema) -> pa.RecordBatch:
    columns: dict[str, Any] = {
        "id": [image.example.id for image in images],
        VECTOR: vector_array(vectors),
        "uri": [image.uri for image in images],
        "sha256": [image.sha256 for image in images],
        "width": [image.width for image in images],
        "height": [image.height for image in images],
    }
    for name in schema.names[len(FIXED_COLUMNS) :]:
        columns[name] = [image.example.attributes.get(name) for image in images]
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, schema.field(name).type)
        for name, column in columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
