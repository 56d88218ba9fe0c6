"""Vectors, queries and neighbours in the HDF5 layout of ann-benchmarks.

`train` and `test` are matrices of vectors and queries, `neighbors` the rows nearest to each query,
the attribute `distance` the measure. (https://github.com/erikbern/ann-benchmarks)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsicd_embed.bench.ann.vectors import BLOCK_ROWS, VectorSource
from rsicd_embed.errors import BenchError, one_line

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".hdf5", ".h5")
MEASURES = ("angular", "cosine")


def from_hdf5(path: Path) -> VectorSource:
    """The vectors, with the file's own queries and what it calls their neighbours.

    Raises:
        BenchError: there is no such file, it is not laid out so, or its measure is another.
    """
    if not path.is_file():
        raise BenchError(f"{path}: expected an HDF5 file of vectors, found no such file")
    try:
        import h5py
    except ImportError:
        raise BenchError(f"{path} needs h5py: pip install 'rsicd-embed[bench]'") from None
    try:
        with h5py.File(path) as file:
            return _source(path, file)
    except OSError as error:
        raise BenchError(
            f"{path}: expected an HDF5 file; it cannot be read: {one_line(error)}"
        ) from None


def _source(path: Path, file: h5py.File) -> VectorSource:
    measure = file.attrs.get("distance")
    measure = measure.decode() if isinstance(measure, bytes) else measure
    if measure not in MEASURES:
        raise BenchError(
            f"{path}: expected the attribute distance to be {' or '.join(MEASURES)}, which is how "
            f"stores compare, found {measure!r}; take a file of that measure"
        )
    train, test = _matrix(path, file, "train"), _matrix(path, file, "test")
    if train.shape[1] != test.shape[1]:
        raise BenchError(
            f"{path}: expected queries (test) of the vectors' length {train.shape[1]}, "
            f"found {test.shape[1]}"
        )
    queries = np.asarray(test[:])
    neighbours = _neighbours(path, file, len(queries)) if "neighbors" in file else None
    rows, dim = train.shape

    def blocks() -> Iterator[np.ndarray]:
        import h5py

        with h5py.File(path) as again:
            for start in range(0, rows, BLOCK_ROWS):
                yield again["train"][start : start + BLOCK_ROWS]

    return VectorSource(path.name, rows, dim, blocks, queries, neighbours)


def _matrix(path: Path, file: h5py.File, name: str) -> Any:
    found = file.get(name)
    shape, kind = getattr(found, "shape", None), getattr(found, "dtype", None)
    if kind is None or len(shape or ()) != 2 or not all(shape or ()) or kind.kind not in "fiu":
        told = "none" if found is None else f"{kind} {shape}"
        raise BenchError(f"{path}: expected {name!r} to be numbers of shape (n, dim), found {told}")
    return found


def _neighbours(path: Path, file: h5py.File, queries: int) -> np.ndarray:
    found = _matrix(path, file, "neighbors")
    if len(found) != queries:
        raise BenchError(
            f"{path}: expected neighbors of {queries} queries, found {len(found)}; "
            "the file is not whole"
        )
    return np.asarray(found[:], np.int64)
