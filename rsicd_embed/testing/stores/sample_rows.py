"""Sample rows for testing stores, and helpers to read them back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.records import Provenance, vector_array
from rsicd_embed.stores.base import VectorStore, open_store

DIM = 8
"""Dimension of the sample vectors."""
MADE_BY = Provenance("small", f"weights:aaa/tokenizer:t/dim:{DIM}", DIM)
"""Provenance of the sample vectors."""


def unit(n: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """float32 (n, dim) random unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((n, dim))
    units: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units.astype(np.float32)


def batch(ids: list[str], vectors: np.ndarray | None = None, **columns: object) -> pa.RecordBatch:
    """A batch of rows; unless given, the vectors depend only on the number of ids."""
    vectors = unit(len(ids)) if vectors is None else vectors
    return pa.record_batch(
        {"id": pa.array(ids, pa.string()), "vector": vector_array(vectors)}
        | {
            name: values if isinstance(values, pa.Array) else pa.array(values)
            for name, values in columns.items()
        }
    )


def stored(store: VectorStore) -> dict[str, dict[str, Any]]:
    """All rows by id, with vectors as bytes."""
    rows = store.scan().read_all().to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {
        row["id"]: row | {"vector": np.array(row["vector"], np.float32).tobytes()} for row in rows
    }


def matches(store: VectorStore, where: str) -> set[str]:
    """Ids of the rows that match a condition; search and scan must agree."""
    hits = store.search(unit(1)[0], k=10_000, where=where)
    scanned = store.scan(["id"], where).read_all()
    assert set(hits["id"].to_pylist()) == set(scanned["id"].to_pylist())
    return set(hits["id"].to_pylist())


def now_and_reopened(store: VectorStore) -> Iterator[VectorStore]:
    """Yields the store, then the same store reopened."""
    yield store
    store.close()
    with open_store(store.uri) as again:
        yield again
