"""ANN recall, measured on a store's own rows to tune an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

K = 10
SAMPLE = 100
_SEED = 20_211
# Distances of the measured queries from rows, in vector lengths. A row itself is too easy, and a
# text is farther from the images it describes than those are from each other.
_NOISE = (0.0, 0.5, 2.0)
_ROUNDING = 1e-6


def sample(count: int, size: int = SAMPLE) -> np.ndarray:
    """Up to `size` distinct positions below `count` as int64, always the same for a count."""
    random = np.random.default_rng(_SEED)
    return random.choice(count, size=min(size, count), replace=False)


def queries_near(rows: np.ndarray) -> np.ndarray:
    """Adds noise to float32 (n, dim) unit rows → float32 (n, dim) unit queries."""
    noise = np.random.default_rng(_SEED + 1).standard_normal(rows.shape)
    noise *= np.resize(_NOISE, len(noise))[:, None] / np.linalg.norm(noise, axis=1)[:, None]
    moved = rows + noise
    units: np.ndarray = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    return units


def recalls(similarities: Sequence[np.ndarray], kth: np.ndarray, k: int) -> np.ndarray:
    """ANN recall@k of each query, float64 (q,) in [0, 1]; rows that tie with the k-th best count.

    Args:
        similarities: for each query the exact similarities of its approximate hits.
        kth: (q,), the exact similarity of each query's k-th best row.
        k: number of hits wanted per query.
    """
    return _hit_counts(similarities, kth, k) / k


def recall(similarities: Sequence[np.ndarray], kth: np.ndarray, k: int) -> float:
    """ANN recall@k, the mean of `recalls`."""
    counts = _hit_counts(similarities, kth, k)
    return int(counts.sum()) / (k * len(counts))


def _hit_counts(similarities: Sequence[np.ndarray], kth: np.ndarray, k: int) -> np.ndarray:
    return np.array(
        [
            min(k, int(np.count_nonzero(values >= limit - _ROUNDING)))
            for values, limit in zip(similarities, kth, strict=True)
        ]
    )
