"""Where the vectors of a benchmark come from: a file, a store, or nowhere, which is generated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rsicd_embed.errors import BenchError
from rsicd_embed.records import VECTOR
from rsicd_embed.stores.base import open_store

KINDS = ("clustered", "uniform")
BLOCK_ROWS = 16_384
# Length of what is added to a cluster's centre, a unit vector: two rows of a cluster have a cosine
# of about 0.6, two of different ones of about 0.
_SCATTER = 0.8


@dataclass(frozen=True)
class VectorSource:
    """Vectors, some thousand at a time, as they are.

    Attributes:
        name: for the record and for errors.
        rows, dim: how many there are, and their length.
        blocks: gives float or int (n, dim) arrays from the beginning.
        queries: float or int (q, dim) to search with; None to make some.
        neighbours: int (q, any), the rows that the source itself calls nearest to each, best first.
    """

    name: str
    rows: int
    dim: int
    blocks: Callable[[], Iterator[np.ndarray]]
    queries: np.ndarray | None = None
    neighbours: np.ndarray | None = None

    def units(self) -> Iterator[np.ndarray]:
        """float32 (n, dim) blocks of unit norm.

        Raises:
            BenchError: a row that is not finite, or zero; or other rows than there should be.
        """
        first = 0
        for block in self.blocks():
            if block.ndim != 2 or block.shape[1] != self.dim:
                raise BenchError(
                    f"{self.name}: expected vectors of length {self.dim}, found {block.shape[1:]} "
                    f"from row {first} on"
                )
            yield unit(block, self.name, first)
            first += len(block)
        if first != self.rows:
            raise BenchError(f"{self.name}: expected {self.rows} rows, found {first}")


def unit(block: np.ndarray, name: str, first: int = 0) -> np.ndarray:
    """Numbers (n, dim) → float32 of unit norm; `name` and the number of the first are for errors.

    Raises:
        BenchError: a row that is not finite, or zero.
    """
    wide = block.astype(np.float64)
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        raise BenchError(
            f"{name}: expected finite vectors that are not zero, found norm "
            f"{norms[bad[0]]} at row {first + bad[0]}; remove that row"
        )
    units: np.ndarray = (wide / norms[:, None]).astype(np.float32)
    return units


def generated(rows: int, dim: int, kind: str = "clustered", seed: int = 0) -> VectorSource:
    """The same vectors for the same arguments, on every machine up to rounding.

    `uniform` directions have no structure at all: the hardest case, harder than any embeddings.
    `clustered` ones lie about as many centres as the square root of `rows`.

    Example:
        >>> generated(5, 3, "uniform").rows
        5
    """
    if kind not in KINDS:
        raise BenchError(f"expected vectors that are {' or '.join(KINDS)}, found {kind!r}")

    def blocks() -> Iterator[np.ndarray]:
        centres = np.random.default_rng([seed, 0]).standard_normal((max(1, math.isqrt(rows)), dim))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        for start in range(0, rows, BLOCK_ROWS):
            draw = np.random.default_rng([seed, 1, start])
            block = draw.standard_normal((min(BLOCK_ROWS, rows - start), dim))
            if kind == "clustered":
                block *= _SCATTER / math.sqrt(dim)
                block += centres[draw.integers(0, len(centres), len(block))]
            yield block

    return VectorSource(kind, rows, dim, blocks)


def from_store(uri: str) -> VectorSource:
    """The vectors of a store, without its other columns.

    Raises:
        StoreError: there is no such store.
    """
    with open_store(uri, create=False) as store:
        rows, dim = len(store), store.provenance.dim

    def blocks() -> Iterator[np.ndarray]:
        with open_store(uri, create=False) as store:
            for batch in store.scan([VECTOR]):
                yield as_matrix(batch.column(0), uri)

    return VectorSource(uri, rows, dim, blocks)


def as_matrix(column: pa.Array, where: str) -> np.ndarray:
    """Lists of numbers of one length → (n, dim)."""
    values = column.flatten()
    lengths = column.value_lengths().unique().to_pylist()
    if column.null_count or values.null_count or len(lengths) > 1:
        raise BenchError(f"{where}: expected vectors of one length, found lengths {lengths[:5]}")
    matrix: np.ndarray = values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return matrix
