"""The workload that all contenders share: rows, and queries near to and far from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rsicd_embed.bench.ann.vectors import VectorSource, unit
from rsicd_embed.errors import BenchError
from rsicd_embed.records import row_schema, vector_array

HELD_OUT, MOVED, FAR, GIVEN = "held out", "moved", "far", "given"
# Length of the noise added to a row to get a query; rows are unit vectors. A text lies further from
# the images it describes than these from each other.
_NOISE = {MOVED: 0.5, FAR: 2.0}
_MAX_HELD_OUT = 0.1
PART = "part"
PARTS = 1000


@dataclass(frozen=True)
class Workload:
    """Rows in a file, which each process maps or reads itself, and queries.

    Attributes:
        path: a .npy file, float32 (rows, dim) of unit norm.
        rows, dim: its shape.
        queries: float32 (q, dim) of unit norm.
        kinds: kind of each query: `HELD_OUT`, `MOVED`, `FAR` or `GIVEN`.
        seed: random seed.
        neighbours: int (q, any), the source's own ground truth; None if it has none.
    """

    path: Path
    rows: int
    dim: int
    queries: np.ndarray
    kinds: tuple[str, ...]
    seed: int
    neighbours: np.ndarray | None = None

    @property
    def base(self) -> np.ndarray:
        """The rows, memory-mapped."""
        matrix: np.ndarray = np.load(self.path, mmap_mode="r")
        return matrix

    @property
    def schema(self) -> pa.Schema:
        """Schema of the rows in a store."""
        return row_schema(self.dim, pa.schema([pa.field(PART, pa.int32())]))

    def parts(self) -> np.ndarray:
        """int32 (rows,): the random thousandth of the rows that each row belongs to."""
        order = np.random.default_rng([self.seed, 3]).permutation(self.rows)
        return (order * PARTS // self.rows).astype(np.int32)

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Yields batches of at most `rows` rows for a store; nothing stays mapped."""
        parts, mapped = self.parts(), np.load(self.path, mmap_mode="r")
        offset, schema = mapped.offset, self.schema
        del mapped
        for start in range(0, self.rows, rows):
            count = min(rows, self.rows - start)
            at = offset + 4 * start * self.dim
            flat = np.fromfile(self.path, np.float32, count * self.dim, offset=at)
            ids = [f"{row:09}" for row in range(start, start + count)]
            columns = {
                "id": pa.array(ids),
                "vector": vector_array(flat.reshape(count, self.dim)),
                "uri": pa.array([f"tiles/{id_}.jpg" for id_ in ids]),
                "sha256": pa.nulls(count, pa.string()),
                "width": pa.array(np.full(count, 224, np.int32)),
                "height": pa.array(np.full(count, 224, np.int32)),
                PART: pa.array(parts[start : start + count]),
            }
            yield pa.record_batch([columns[name] for name in schema.names], schema=schema)


def threshold(percent: float) -> int:
    """The value of `PART` below which this percentage of the rows lies.

    Raises:
        BenchError: the percentage is not from 0.1 to 100.

    Example:
        >>> threshold(10)
        100
    """
    if not 100 / PARTS <= percent <= 100:
        raise BenchError(f"expected a selectivity from 0.1 to 100 percent, found {percent:g}")
    return round(percent * PARTS / 100)


def prepare(source: VectorSource, folder: Path, queries: int, k: int, seed: int = 0) -> Workload:
    """Writes the rows into `folder` and creates the queries, or samples the source's own.

    A third of the queries, but at most a tenth of the rows, are held-out rows. The others are rows
    with noise, half of them with strong noise.

    Raises:
        BenchError: the vectors are invalid, or fewer than k rows are left.
    """
    has_queries = source.queries is not None
    held_out = 0 if has_queries else min(queries // 3, int(_MAX_HELD_OUT * source.rows))
    rows = source.rows - held_out
    if rows < max(k, 1) or source.dim < 1:
        suffix = f", with {held_out} held out as queries" if held_out else ""
        raise BenchError(
            f"{source.name}: expected more than {max(k, 1) - 1} rows, found {rows} of length "
            f"{source.dim}{suffix}; use a smaller k"
        )
    random = np.random.default_rng([seed, 2])
    is_held_out = np.zeros(source.rows, bool)
    is_held_out[random.choice(source.rows, held_out, replace=False)] = True
    path = folder / "rows.npy"
    base = np.lib.format.open_memmap(path, "w+", np.float32, (rows, source.dim))
    removed, first, at = [], 0, 0
    for block in source.units():
        mask = is_held_out[first : first + len(block)]
        stay = block[~mask]
        base[at : at + len(stay)] = stay
        removed.append(block[mask])
        first, at = first + len(block), at + len(stay)
    base.flush()
    if source.queries is not None:
        return _with_own_queries(source, source.queries, queries, path, random, seed)
    by_kind: dict[str, np.ndarray] = {HELD_OUT: np.concatenate(removed)}
    left = queries - held_out
    for kind, count in ((MOVED, left - left // 2), (FAR, left // 2)):
        near = base[np.sort(random.choice(rows, count, replace=count > rows))]
        by_kind[kind] = _moved(near, _NOISE[kind], random)
    kinds = [kind for kind, vectors in by_kind.items() for _ in vectors]
    order = random.permutation(len(kinds))
    matrix = np.ascontiguousarray(np.concatenate(list(by_kind.values()))[order])
    return Workload(path, rows, source.dim, matrix, tuple(kinds[i] for i in order), seed)


def _with_own_queries(
    source: VectorSource,
    every: np.ndarray,
    queries: int,
    path: Path,
    random: np.random.Generator,
    seed: int,
) -> Workload:
    """A workload with a random sample of the source's own queries."""
    if every.ndim != 2 or every.shape[1] != source.dim or not len(every):
        raise BenchError(
            f"{source.name}: expected queries of length {source.dim}, found {every.shape}"
        )
    chosen = np.sort(random.permutation(len(every))[:queries])
    units = unit(every[chosen], f"{source.name}, queries")
    neighbours = None if source.neighbours is None else source.neighbours[chosen]
    kinds = (GIVEN,) * len(chosen)
    return Workload(path, source.rows, source.dim, units, kinds, seed, neighbours)


def _moved(rows: np.ndarray, length: float, random: np.random.Generator) -> np.ndarray:
    """Unit vectors near unit vectors: each plus noise of this length."""
    noise = random.standard_normal(rows.shape)
    moved = rows + noise * (length / np.linalg.norm(noise, axis=1, keepdims=True))
    units: np.ndarray = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    return units
