"""An int8 copy of unit vectors that narrows an exact search to a few candidates.

Memory bandwidth limits a scan of float32 vectors, and int8 codes are a quarter of the bytes. Each
code comes with a bound on its error, so every row that may be among the k best is kept; scored
again in full precision, the candidates give the same hits as a scan of the vectors themselves.

Vectors are centred on their mean and rotated before they are rounded: CLIP vectors share a large
common component, and a few of their dimensions are much larger than the others. Both would widen
the bounds, and with them the number of candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np

# A float32 matrix product is faster for more queries, or fewer rows.
MOST_QUERIES = 8
LEAST_ROWS = 20_000
_LEVELS = 127
# Rounding of the float32 rotation and products, for up to 4,096 dimensions.
_ROUNDING = 2e-5


@dataclass(frozen=True)
class QuantisedVectors:
    """int8 codes of n vectors, and the data for bounds of their similarity to a query.

    Vector i differs from `mean + scales[i] * codes[i]`, rotated back, by a vector of length
    `errors[i]`.

    Attributes:
        codes: int8 (n, dim).
        scales: float32 (n,).
        errors: float32 (n,).
        mean: float32 (dim,).
    """

    codes: np.ndarray
    scales: np.ndarray
    errors: np.ndarray
    mean: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)


class QuantisedQueries:
    """Queries prepared for their products with the codes of vectors that share a mean.

    Each query becomes the sum of two int8 vectors. The second is the rounding error of the
    first, so the error of a query is negligible beside that of a row.
    """

    def __init__(self, queries: np.ndarray, mean: np.ndarray) -> None:
        """`queries` is float64 (q, dim), of unit length; `mean` float32 (dim,)."""
        import numkong

        rotated = queries.astype(np.float32) @ _rotation(queries.shape[1])
        coarse, coarse_scales, _ = _codes(rotated)
        fine, fine_scales, errors = _codes(rotated - coarse_scales[:, None] * coarse)
        self._dots = numkong.dots_packed
        self._packed = numkong.dots_pack(np.concatenate([coarse, fine]))
        # Adds the two products of each query: float32 (2 q, q).
        self._scales = np.concatenate([np.diag(coarse_scales), np.diag(fine_scales)])
        # |q·x - approximation| ≤ |q| |error of x| + |error of q| |code of x|, the last below 2.
        self._slack = 2 * errors + np.float32(_ROUNDING)
        self._offsets = (queries @ mean.astype(np.float64)).astype(np.float32) + self._slack

    def upper_bounds(
        self, vectors: QuantisedVectors, rows: slice | np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Bounds of the similarities of some rows.

        Returns:
            float32 (q, m) that no similarity exceeds, and by how much it may be below.
        """
        codes, scales, errors = vectors.codes[rows], vectors.scales[rows], vectors.errors[rows]
        if not len(codes):
            return np.empty((len(self._offsets), 0), np.float32), 0.0
        products = np.asarray(self._dots(codes, self._packed)).astype(np.float32)
        bounds: np.ndarray = (products @ self._scales).T
        bounds *= scales
        bounds += errors
        bounds += self._offsets[:, None]
        return bounds, 2 * float(errors.max() + self._slack.max())


def mean_of(vectors: np.ndarray) -> np.ndarray:
    """float32 (dim,): the mean of float32 (n, dim) vectors, or of a sample of them."""
    mean: np.ndarray = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def quantise(vectors: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scales and errors of float32 (n, dim) vectors; see `QuantisedVectors`."""
    return _codes((vectors - mean) @ _rotation(vectors.shape[1]))


def _codes(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 (n, dim) codes of float32 (n, dim), their float32 (n,) scales and errors."""
    scales = np.maximum(np.abs(vectors).max(axis=1), np.float32(1e-30)) / np.float32(_LEVELS)
    codes = np.rint(vectors / scales[:, None])
    rest = vectors - codes * scales[:, None]
    return codes.astype(np.int8), scales, np.sqrt(np.vecdot(rest, rest))


@lru_cache(maxsize=4)
def _rotation(dim: int) -> np.ndarray:
    """float32 (dim, dim): random signs, then a cosine transform; the same on every machine."""
    row, column = np.mgrid[:dim, :dim]
    cosine = np.sqrt(2 / dim) * np.cos(np.pi * (column + 0.5) * row / dim)
    cosine[0] /= np.sqrt(2)
    digests = b"".join(sha256(b"%d" % block).digest() for block in range(-(-dim // 32)))
    signs = np.where(np.frombuffer(digests, np.uint8)[:dim] & 1, 1.0, -1.0)
    return np.ascontiguousarray((cosine * signs).T.astype(np.float32))
