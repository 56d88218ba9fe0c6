"""Where the vectors of a benchmark come from: a file, a store, or nowhere, which is generated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from rsicd_embed.errors import BenchError
from rsicd_embed.records import VECTOR
from rsicd_embed.stores.base import open_store

KINDS = ("clustered", "uniform")
SUFFIXES = (".npy", ".parquet")
_BLOCK_ROWS = 16_384
# Length of what is added to a cluster's centre, a unit vector: two rows of a cluster have a cosine
# of about 0.6, two of different ones of about 0.
_SCATTER = 0.8


@dataclass(frozen=True)
class Source:
    """Vectors, some thousand at a time, as they are.

    Attributes:
        name: for the record and for errors.
        rows, dim: how many there are, and their length.
        blocks: gives float or int (n, dim) arrays from the beginning.
    """

    name: str
    rows: int
    dim: int
    blocks: Callable[[], Iterator[np.ndarray]]

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
            wide = block.astype(np.float64)
            norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
            bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
            if bad.size:
                raise BenchError(
                    f"{self.name}: expected finite vectors that are not zero, found norm "
                    f"{norms[bad[0]]} at row {first + bad[0]}; remove that row"
                )
            yield (wide / norms[:, None]).astype(np.float32)
            first += len(block)
        if first != self.rows:
            raise BenchError(f"{self.name}: expected {self.rows} rows, found {first}")


def generated(rows: int, dim: int, kind: str = "clustered", seed: int = 0) -> Source:
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
        for start in range(0, rows, _BLOCK_ROWS):
            draw = np.random.default_rng([seed, 1, start])
            block = draw.standard_normal((min(_BLOCK_ROWS, rows - start), dim))
            if kind == "clustered":
                block *= _SCATTER / math.sqrt(dim)
                block += centres[draw.integers(0, len(centres), len(block))]
            yield block

    return Source(kind, rows, dim, blocks)


def from_file(path: Path) -> Source:
    """A .npy matrix, or the column `vector` (or the only column of lists) of a Parquet file.

    Raises:
        BenchError: there is no such file, or it holds something else.
    """
    name = path.name
    if path.suffix not in SUFFIXES or not path.is_file():
        found = "no such file" if not path.is_file() else f"a file that ends in {path.suffix!r}"
        raise BenchError(f"{path}: expected a file of vectors, .npy or .parquet, found {found}")
    try:
        return _npy(path, name) if path.suffix == ".npy" else _parquet(path, name)
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise BenchError(f"{path}: expected a file of vectors; it cannot be read: {text}") from None


def from_store(uri: str) -> Source:
    """The vectors of a store, without its other columns.

    Raises:
        StoreError: there is no such store.
    """
    with open_store(uri, create=False) as store:
        rows, dim = len(store), store.provenance.dim

    def blocks() -> Iterator[np.ndarray]:
        with open_store(uri, create=False) as store:
            for batch in store.scan([VECTOR]):
                yield _matrix(batch.column(0), uri)

    return Source(uri, rows, dim, blocks)


def _npy(path: Path, name: str) -> Source:
    matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        shape, kind = getattr(matrix, "shape", "?"), getattr(matrix, "dtype", "?")
        raise BenchError(f"{path}: expected numbers of shape (n, dim), found {kind} {shape}")
    rows, dim = matrix.shape

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, rows, _BLOCK_ROWS):
            yield matrix[start : start + _BLOCK_ROWS]

    return Source(name, rows, dim, blocks)


def _parquet(path: Path, name: str) -> Source:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        rows, schema = file.metadata.num_rows, file.schema_arrow
        lists = [field.name for field in schema if _is_lists(field.type)]
        if VECTOR in lists:
            lists = [VECTOR]
        if len(lists) != 1:
            raise BenchError(
                f"{path}: expected a column {VECTOR!r} of lists of numbers, "
                f"found columns {', '.join(schema.names) or 'none'}"
            )
        first = next(iter(file.iter_batches(1, columns=lists)), None)
    dim = _matrix(first.column(0), str(path)).shape[1] if first is not None else 0

    def blocks() -> Iterator[np.ndarray]:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BLOCK_ROWS, columns=lists):
                yield _matrix(batch.column(0), str(path))

    return Source(name, rows, dim, blocks)


def _is_lists(kind: Any) -> bool:
    listed = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    return bool(listed) and bool(pt.is_floating(kind.value_type) or pt.is_integer(kind.value_type))


def _matrix(column: pa.Array, where: str) -> np.ndarray:
    """Lists of numbers of one length → (n, dim)."""
    values = column.flatten()
    lengths = column.value_lengths().unique().to_pylist()
    if column.null_count or values.null_count or len(lengths) > 1:
        raise BenchError(f"{where}: expected vectors of one length, found lengths {lengths[:5]}")
    matrix: np.ndarray = values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return matrix
