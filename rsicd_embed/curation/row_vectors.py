"""Vectors of rows that are named by their ids."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rsicd_embed.parallel import batched
from rsicd_embed.records import VECTOR, vector_matrix, with_ids
from rsicd_embed.stores.base import VectorStore

_IDS_AT_ONCE = 10_000


def row_vectors(store: VectorStore, ids: Iterable[str]) -> dict[str, np.ndarray]:
    """The float32 (dim,) vectors of rows by id; unknown ids are absent."""
    vectors: dict[str, np.ndarray] = {}
    for block in batched(ids, _IDS_AT_ONCE):
        with store.scan(["id", VECTOR], where=with_ids(block)) as reader:
            for batch in filter(len, reader):
                rows = zip(batch["id"].to_pylist(), vector_matrix(batch[VECTOR]), strict=True)
                vectors.update(rows)
    return vectors
