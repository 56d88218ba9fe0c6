"""ANN recall measured on a store's own rows, for an index to be tuned by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

K = 10
SAMPLE = 100
_SEED = 20_211
# How far the queries that measure recall lie from rows, in lengths of a vector: a row itself is
# too easy, and a text lies farther from the images it describes than those from each other.
_NOISE = (0.0, 0.5, 2.0)
_ROUNDING = 1e-6


def sample(count: int) -> np.ndarray:
    """Up to SAMPLE distinct positions below `count`, int64, the same for the same count."""
    random = np.random.default_rng(_SEED)
    return random.choice(count, size=min(SAMPLE, count), replace=False)


def queries_near(rows: np.ndarray) -> np.ndarray:
    """float32 (n, dim) unit rows, each moved a little or more → float32 (n, dim) unit queries."""
    noise = np.random.default_rng(_SEED + 1).standard_normal(rows.shape)
    noise *= np.resize(_NOISE, len(noise))[:, None] / np.linalg.norm(noise, axis=1)[:, None]
    moved = rows + noise
    unit: np.ndarray = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    return unit


def recall(found: Sequence[np.ndarray], kth: np.ndarray, k: int) -> float:
    """Share of the k best that was found, ties at the k-th place counted as it.

    Args:
        found: for each query the exact similarities of what an index found, at most k of them
            counted.
        kth: (q,), the exact similarity of each query's k-th best row.
        k: how many were asked for.
    """
    good = [
        min(k, int(np.count_nonzero(one >= limit - _ROUNDING)))
        for one, limit in zip(found, kth, strict=True)
    ]
    return sum(good) / (k * len(good))
