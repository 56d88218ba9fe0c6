"""Sources of vectors for benchmarks: generated ones, stores, and files (NumPy, Parquet, HDF5).

HDF5 files have the layout of ann-benchmarks (https://github.com/erikbern/ann-benchmarks): `train`
and `test` are matrices of vectors and queries, `neighbors` the rows nearest to each query, the
attribute `distance` the metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rsicd_embed.errors import BenchError, one_line
from rsicd_embed.records import VECTOR, is_number_list
from rsicd_embed.stores.base import open_store

if TYPE_CHECKING:
    import h5py

KINDS = ("clustered", "uniform")
# Length of the noise added to a cluster's centre, a unit vector: two rows of one cluster have a
# cosine of about 0.6, rows of different clusters of about 0.
_SCATTER = 0.8
_VARIATION = 0.4  # size of a copy's change, relative to the difference of two vectors
_BLOCK_ROWS = 16_384
_HDF5_SUFFIXES = (".hdf5", ".h5")
_SUFFIXES = (".npy", ".parquet", *_HDF5_SUFFIXES)
_METRICS = ("angular", "cosine")


@dataclass(frozen=True)
class VectorSource:
    """Vectors, read in blocks.

    Attributes:
        name: for the record and for errors.
        rows, dim: number and length of the vectors.
        blocks: iterates over real (n, dim) arrays.
        queries: real (q, dim), the queries of the source; None to generate some.
        neighbours: int (q, any), the source's own ground truth for its queries, best first.
    """

    name: str
    rows: int
    dim: int
    blocks: Callable[[], Iterator[np.ndarray]]
    queries: np.ndarray | None = None
    neighbours: np.ndarray | None = None

    def units(self) -> Iterator[np.ndarray]:
        """Yields float32 (n, dim) blocks of unit norm.

        Raises:
            BenchError: a row is not finite or is zero, or the number or length of rows is wrong.
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
    """Real (n, dim) → float32 of unit norm.

    Args:
        block: the vectors.
        name: their source, for errors.
        first: row number of the first, for errors.

    Raises:
        BenchError: a row is not finite or is zero.
    """
    wide = block.astype(np.float64)
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        raise BenchError(
            f"{name}: expected finite, non-zero vectors, found norm {norms[bad[0]]} at row "
            f"{first + bad[0]}; remove that row"
        )
    units: np.ndarray = (wide / norms[:, None]).astype(np.float32)
    return units


def generated(rows: int, dim: int, kind: str = "clustered", seed: int = 0) -> VectorSource:
    """Random vectors, the same for the same seed.

    `uniform` vectors have random directions, the hard case for an index, unlike embeddings.
    `clustered` vectors lie around about √rows centres.

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
            random = np.random.default_rng([seed, 1, start])
            block = random.standard_normal((min(_BLOCK_ROWS, rows - start), dim))
            if kind == "clustered":
                block *= _SCATTER / math.sqrt(dim)
                block += centres[random.integers(0, len(centres), len(block))]
            yield block

    return VectorSource(kind, rows, dim, blocks)


def enlarged(source: VectorSource, rows: int, seed: int = 0) -> VectorSource:
    """A source with varied copies of its vectors after them, up to a number of rows.

    A copy is moved by a part of the difference of two other vectors, so that copies vary in the
    directions in which the vectors do.

    Raises:
        BenchError: the source has more rows, or is empty.
    """
    if not 0 < source.rows <= rows:
        raise BenchError(f"{source.name}: expected 1 to {rows} vectors, found {source.rows}")

    def blocks() -> Iterator[np.ndarray]:
        units = np.concatenate(list(source.units()))
        yield units
        for start in range(source.rows, rows, _BLOCK_ROWS):
            random = np.random.default_rng([seed, 4, start])
            drawn = random.integers(0, len(units), (3, min(_BLOCK_ROWS, rows - start)))
            origin, first, second = units[drawn]
            yield origin + np.float32(_VARIATION) * (first - second)

    name = f"{source.name} and {rows - source.rows} varied copies"
    return replace(source, name=name, rows=rows, blocks=blocks, neighbours=None)


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
                yield _matrix(batch.column(0), uri)

    return VectorSource(uri, rows, dim, blocks)


def from_file(path: Path) -> VectorSource:
    """A .npy matrix, a Parquet file's column `vector` (or its only list column), or an HDF5 file.

    Raises:
        BenchError: there is no such file, or it has another layout or metric.
    """
    if path.suffix not in _SUFFIXES or not path.is_file():
        problem = "no such file" if not path.is_file() else f"a file that ends in {path.suffix!r}"
        raise BenchError(
            f"{path}: expected a file of vectors ({', '.join(_SUFFIXES)}), found {problem}"
        )
    if path.suffix in _HDF5_SUFFIXES:
        return _from_hdf5(path)
    try:
        return _from_npy(path) if path.suffix == ".npy" else _from_parquet(path)
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        raise BenchError(
            f"{path}: expected a file of vectors; it cannot be read: {one_line(error)}"
        ) from None


def _from_npy(path: Path) -> VectorSource:
    matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        shape, kind = getattr(matrix, "shape", "?"), getattr(matrix, "dtype", "?")
        raise BenchError(f"{path}: expected numbers of shape (n, dim), found {kind} {shape}")
    rows, dim = matrix.shape

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, rows, _BLOCK_ROWS):
            yield matrix[start : start + _BLOCK_ROWS]

    return VectorSource(path.name, rows, dim, blocks)


def _from_parquet(path: Path) -> VectorSource:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        rows, schema = file.metadata.num_rows, file.schema_arrow
        columns = [field.name for field in schema if is_number_list(field.type)]
        if VECTOR in columns:
            columns = [VECTOR]
        if len(columns) != 1:
            raise BenchError(
                f"{path}: expected a column {VECTOR!r} of lists of numbers, "
                f"found columns {', '.join(schema.names) or 'none'}"
            )
        first = next(iter(file.iter_batches(1, columns=columns)), None)
    dim = _matrix(first.column(0), str(path)).shape[1] if first is not None else 0

    def blocks() -> Iterator[np.ndarray]:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(_BLOCK_ROWS, columns=columns):
                yield _matrix(batch.column(0), str(path))

    return VectorSource(path.name, rows, dim, blocks)


def _matrix(column: pa.Array, source: str) -> np.ndarray:
    """Lists of numbers of equal length → (n, dim)."""
    values = column.flatten()
    lengths = column.value_lengths().unique().to_pylist()
    if column.null_count or values.null_count or len(lengths) > 1:
        raise BenchError(f"{source}: expected vectors of one length, found lengths {lengths[:5]}")
    matrix: np.ndarray = values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return matrix


def _from_hdf5(path: Path) -> VectorSource:
    try:
        import h5py
    except ImportError:
        raise BenchError(f"{path} needs h5py: pip install 'rsicd-embed[bench]'") from None
    try:
        with h5py.File(path) as file:
            return _hdf5_source(path, file)
    except OSError as error:
        raise BenchError(
            f"{path}: expected an HDF5 file; it cannot be read: {one_line(error)}"
        ) from None


def _hdf5_source(path: Path, file: h5py.File) -> VectorSource:
    metric = file.attrs.get("distance")
    metric = metric.decode() if isinstance(metric, bytes) else metric
    if metric not in _METRICS:
        raise BenchError(
            f"{path}: expected the attribute distance to be {' or '.join(_METRICS)}, the metric of "
            f"the stores, found {metric!r}; use a file with that metric"
        )
    train, test = _hdf5_matrix(path, file, "train"), _hdf5_matrix(path, file, "test")
    rows, dim = train.shape
    if test.shape[1] != dim:
        raise BenchError(
            f"{path}: expected queries (test) of the vectors' length {dim}, found {test.shape[1]}"
        )
    neighbours = None
    if "neighbors" in file:
        stored = _hdf5_matrix(path, file, "neighbors")
        if len(stored) != len(test):
            raise BenchError(
                f"{path}: expected neighbors of {len(test)} queries, found {len(stored)}; "
                "the file is incomplete"
            )
        neighbours = np.asarray(stored[:], np.int64)

    def blocks() -> Iterator[np.ndarray]:
        import h5py

        with h5py.File(path) as reopened:
            for start in range(0, rows, _BLOCK_ROWS):
                yield reopened["train"][start : start + _BLOCK_ROWS]

    return VectorSource(path.name, rows, dim, blocks, np.asarray(test[:]), neighbours)


def _hdf5_matrix(path: Path, file: h5py.File, name: str) -> Any:
    matrix = file.get(name)
    shape, kind = getattr(matrix, "shape", None), getattr(matrix, "dtype", None)
    if kind is None or len(shape or ()) != 2 or not all(shape or ()) or kind.kind not in "fiu":
        content = "none" if matrix is None else f"{kind} {shape}"
        raise BenchError(
            f"{path}: expected {name!r} to be numbers of shape (n, dim), found {content}"
        )
    return matrix
