"""Files of vectors: NumPy matrices, Parquet files, and HDF5 as ann-benchmarks has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from rsicd_embed.bench.ann import hdf5
from rsicd_embed.bench.ann.vectors import BLOCK_ROWS, VectorSource, as_matrix
from rsicd_embed.errors import BenchError, one_line
from rsicd_embed.records import VECTOR

SUFFIXES = (".npy", ".parquet", *hdf5.SUFFIXES)


def from_file(path: Path) -> VectorSource:
    """A .npy matrix, the column `vector` (or the only one of lists) of a Parquet file, or an HDF5.

    What an HDF5 must hold, and gives, is told by `hdf5.from_hdf5`.

    Raises:
        BenchError: there is no such file, or it holds something else.
    """
    name = path.name
    if path.suffix not in SUFFIXES or not path.is_file():
        found = "no such file" if not path.is_file() else f"a file that ends in {path.suffix!r}"
        raise BenchError(
            f"{path}: expected a file of vectors ({', '.join(SUFFIXES)}), found {found}"
        )
    if path.suffix in hdf5.SUFFIXES:
        return hdf5.from_hdf5(path)
    try:
        return _npy(path, name) if path.suffix == ".npy" else _parquet(path, name)
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        raise BenchError(
            f"{path}: expected a file of vectors; it cannot be read: {one_line(error)}"
        ) from None


def _npy(path: Path, name: str) -> VectorSource:
    matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        shape, kind = getattr(matrix, "shape", "?"), getattr(matrix, "dtype", "?")
        raise BenchError(f"{path}: expected numbers of shape (n, dim), found {kind} {shape}")
    rows, dim = matrix.shape

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, rows, BLOCK_ROWS):
            yield matrix[start : start + BLOCK_ROWS]

    return VectorSource(name, rows, dim, blocks)


def _parquet(path: Path, name: str) -> VectorSource:
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
    dim = as_matrix(first.column(0), str(path)).shape[1] if first is not None else 0

    def blocks() -> Iterator[np.ndarray]:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BLOCK_ROWS, columns=lists):
                yield as_matrix(batch.column(0), str(path))

    return VectorSource(name, rows, dim, blocks)


def _is_lists(kind: Any) -> bool:
    listed = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    return bool(listed) and bool(pt.is_floating(kind.value_type) or pt.is_integer(kind.value_type))
