"""What an ingest has read → vectors → rows in the store, by batches and by time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.indexing.reconcile import held_rows, is_another
from rsicd_embed.parallel import cpu_count
from rsicd_embed.records import FIXED_COLUMNS, VECTOR, row_schema, vector_array
from rsicd_embed.stores.base import VectorStore

# Stages that run on all threads at once; the others have one thread.
THREADED = ("read", "decode", "resize")


class Stages:
    """Busy seconds by stage, summed over threads.

    read: the file, and its hash; decode: to RGB; resize: what `Embedder.preprocess` does; embed:
    the model; write: upserts; index: `VectorStore.optimize`.
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
    """What each group of stages would take if the others took no time; the largest limits.

    The threaded stages share their threads, so they count together, as "read+decode+resize".
    """
    threaded = sum(stages.get(name, 0.0) for name in THREADED) / cpu_count()
    alone = {name: seconds for name, seconds in stages.items() if name not in THREADED}
    return {"+".join(THREADED): threaded, **alone}


# What an interrupted run may have to do again: few enough seconds, enough rows for a commit.
COMMIT_S = 10.0
COMMIT_ROWS = 8192


@dataclass(frozen=True)
class Loaded:
    """An image that is to be embedded: its pixels as the embedder wants them.

    Attributes:
        stretched: whether its samples were scaled to 8 bits (`images.Picture.stretch`).
    """

    example: Example
    uri: str
    sha256: str
    pixels: np.ndarray
    width: int
    height: int
    stretched: bool = False


@dataclass(frozen=True)
class Displaced:
    """An image whose row another one took, since both have the same id."""

    id: str
    uri: str
    by: str


class Writer:
    """Embeds by batches and commits by time.

    Attributes:
        displaced: images that are still there, and whose rows others took.
    """

    def __init__(
        self,
        store: VectorStore,
        embedder: Embedder,
        attributes: pa.Schema,
        known: Mapping[str, str],
        stages: Stages,
    ) -> None:
        """Refuses columns that do not fit before anything is embedded; `known`: the store's ids."""
        self._store = store
        self._known = known
        self._stages = stages
        self._embedder = embedder
        self._schema = row_schema(embedder.dim, attributes)
        store.upsert([pa.RecordBatch.from_pylist([], self._schema)])
        self._waiting: list[Loaded] = []
        self._batches: list[pa.RecordBatch] = []
        self.displaced: list[Displaced] = []
        self._committed = time.perf_counter()

    def add(self, loaded: Loaded) -> None:
        """Takes an image; embeds once a batch is full, commits once it has been a while."""
        self._waiting.append(loaded)
        if len(self._waiting) < self._embedder.batch_size:
            return
        self._embed()
        rows = sum(batch.num_rows for batch in self._batches)
        if rows >= COMMIT_ROWS or time.perf_counter() - self._committed >= COMMIT_S:
            self._commit()

    def flush(self) -> None:
        """Embeds and commits what waits, after an interruption too: the work is done already."""
        self._embed()
        self._commit()

    def _embed(self) -> None:
        some, self._waiting = self._waiting, []
        if some:
            with self._stages("embed"):
                vectors = self._embedder.embed_pixels(np.stack([one.pixels for one in some]))
            self._batches.append(_rows(some, vectors, self._schema))

    def _commit(self) -> None:
        batches, self._batches = self._batches, []
        if batches:
            with self._stages("write"):
                completed = [self._completed(batch) for batch in batches]
                self._store.upsert([batch for batch, _ in completed])
                self.displaced += [one for _, some in completed for one in some]
        self._committed = time.perf_counter()

    def _completed(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[Displaced]]:
        """Adds what the store has of these images and this source says nothing of.

        Returns:
            the batch, and the images whose rows it takes.
        """
        if not any(id_ in self._known for id_ in batch["id"].to_pylist()):
            return batch, []
        lacking = [name for name in self._store.schema.names if name not in batch.schema.names]
        held = held_rows(self._store, batch["id"], ["uri", *lacking])
        for name in lacking:
            batch = batch.append_column(name, held[name])
        return batch, _displaced(batch, held["uri"])


def _displaced(batch: pa.RecordBatch, held: pa.Array) -> list[Displaced]:
    places = zip(batch["id"].to_pylist(), held.to_pylist(), batch["uri"].to_pylist(), strict=True)
    return [
        Displaced(id_, old, new)
        for id_, old, new in places
        if old and old != new and is_another(old, new)
    ]


def _rows(some: Sequence[Loaded], vectors: np.ndarray, schema: pa.Schema) -> pa.RecordBatch:
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
