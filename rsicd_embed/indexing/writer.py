"""Embeds images in batches and commits rows at intervals."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.indexing.image_workers import ImageWorkers, Loaded
from rsicd_embed.indexing.reconcile import merge_rows, stored_rows
from rsicd_embed.indexing.stages import Stages
from rsicd_embed.indexing.vanished_rows import is_another
from rsicd_embed.records import FIXED_COLUMNS, VECTOR, row_schema, vector_array
from rsicd_embed.stores.base import VectorStore

# Limits of the work that an interrupted run has to repeat.
COMMIT_S = 10.0
COMMIT_ROWS = 8192


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
        workers: ImageWorkers,
        attributes: pa.Schema,
        inferred: Sequence[str],
        stages: Stages,
    ) -> None:
        """Checks that the columns fit the store, whose values of inferred ones are kept."""
        self._store = store
        self._replaced: set[str] = set()
        self._stages = stages
        self._workers = workers
        self._inferred = inferred
        self._schema = row_schema(workers.provenance.dim, attributes)
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
        if len(self._waiting) < self._workers.batch_size:
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
                vectors = self._workers.vectors(images)
            self._batches.append(_rows(images, vectors, self._schema))

    def _commit(self) -> None:
        batches, self._batches = self._batches, []
        if batches:
            with self._stages("write"):
                displaced = [image for batch in batches for image in self._displaced(batch)]
                merge_rows(self._store, batches, self._inferred)
                self.displaced += displaced
                self._replaced.clear()
        self._committed = time.perf_counter()

    def _displaced(self, batch: pa.RecordBatch) -> list[Displaced]:
        """The images whose rows a batch replaces by those of others."""
        if not any(id_ in self._replaced for id_ in batch["id"].to_pylist()):
            return []
        stored = stored_rows(self._store, batch["id"], ["uri"])
        uris = (batch["id"].to_pylist(), stored["uri"].to_pylist(), batch["uri"].to_pylist())
        return [
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
