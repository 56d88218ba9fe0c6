"""What every contender gets: the same rows, and queries that lie near to them and far off."""

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
# How far a query lies from a row, in lengths of a vector. A text lies farther from the images that
# it describes than those from each other.
_NOISE = {MOVED: 0.5, FAR: 2.0}
_MOST_HELD_OUT = 0.1
PART = "part"
PARTS = 1000


@dataclass(frozen=True)
class Workload:
    """Rows in a file, so that each process reads its own; and queries.

    Attributes:
        path: of a .npy, float32 (rows, dim) of unit norm.
        rows, dim: of these.
        queries: float32 (q, dim) of unit norm.
        kinds: of each query, `HELD_OUT`, `MOVED`, `FAR` or `GIVEN`.
        seed: of what is drawn.
        neighbours: int (q, any), the rows that the source calls nearest; None where it says none.
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
        """The rows, mapped."""
        matrix: np.ndarray = np.load(self.path, mmap_mode="r")
        return matrix

    @property
    def schema(self) -> pa.Schema:
        """Of the rows in a store."""
        return row_schema(self.dim, pa.schema([pa.field(PART, pa.int32())]))

    def parts(self) -> np.ndarray:
        """int32 (rows,): which thousandth of the rows each belongs to, drawn."""
        order = np.random.default_rng([self.seed, 3]).permutation(self.rows)
        return (order * PARTS // self.rows).astype(np.int32)

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """The rows for a store, so many at a time; nothing stays mapped."""
        parts, mapped = self.parts(), np.load(self.path, mmap_mode="r")
        offset, schema = mapped.offset, self.schema
        del mapped
        for start in range(0, self.rows, rows):
            count = min(rows, self.rows - start)
            at = offset + 4 * start * self.dim
            flat = np.fromfile(self.path, np.float32, count * self.dim, offset=at)
            ids = [f"{one:09}" for one in range(start, start + count)]
            columns = {
                "id": pa.array(ids),
                "vector": vector_array(flat.reshape(count, self.dim)),
                "uri": pa.array([f"tiles/{one}.jpg" for one in ids]),
                "sha256": pa.nulls(count, pa.string()),
                "width": pa.array(np.full(count, 224, np.int32)),
                "height": pa.array(np.full(count, 224, np.int32)),
                PART: pa.array(parts[start : start + count]),
            }
            yield pa.record_batch([columns[name] for name in schema.names], schema=schema)


def threshold(percent: float) -> int:
    """The least `part` that a filter for so many percent of the rows leaves out.

    Raises:
        BenchError: not from 0.1 to 100.

    Example:
        >>> threshold(10)
        100
    """
    if not 100 / PARTS <= percent <= 100:
        raise BenchError(f"expected a selectivity from 0.1 to 100 percent, found {percent:g}")
    return round(percent * PARTS / 100)


def prepare(source: VectorSource, folder: Path, queries: int, k: int, seed: int = 0) -> Workload:
    """Writes the rows into `folder`, and makes the queries, or draws of those that are given.

    A third of the queries, but no more than a tenth of the rows, are rows that are held out; the
    others are rows that are moved, half of them far.

    Raises:
        BenchError: the vectors are not usable, or fewer than k are left.
    """
    given = source.queries is not None
    held = 0 if given else min(queries // 3, int(_MOST_HELD_OUT * source.rows))
    rows = source.rows - held
    if rows < max(k, 1) or source.dim < 1:
        raise BenchError(
            f"{source.name}: expected more than {max(k, 1) - 1} rows, found {rows} of length "
            f"{source.dim}{f', with {held} held out as queries' if held else ''}; take a smaller k"
        )
    draw = np.random.default_rng([seed, 2])
    out = np.zeros(source.rows, bool)
    out[draw.choice(source.rows, held, replace=False)] = True
    path = folder / "rows.npy"
    base = np.lib.format.open_memmap(path, "w+", np.float32, (rows, source.dim))
    kept, first, at = [], 0, 0
    for block in source.units():
        chosen = out[first : first + len(block)]
        stay = block[~chosen]
        base[at : at + len(stay)] = stay
        kept.append(block[chosen])
        first, at = first + len(block), at + len(stay)
    base.flush()
    if source.queries is not None:
        return _given(source, source.queries, queries, path, draw, seed)
    found: dict[str, np.ndarray] = {HELD_OUT: np.concatenate(kept)}
    left = queries - held
    for kind, count in ((MOVED, left - left // 2), (FAR, left // 2)):
        near = base[np.sort(draw.choice(rows, count, replace=count > rows))]
        found[kind] = _moved(near, _NOISE[kind], draw)
    kinds = [kind for kind, some in found.items() for _ in some]
    order = draw.permutation(len(kinds))
    matrix = np.ascontiguousarray(np.concatenate(list(found.values()))[order])
    return Workload(path, rows, source.dim, matrix, tuple(kinds[one] for one in order), seed)


def _given(
    source: VectorSource,
    every: np.ndarray,
    queries: int,
    path: Path,
    draw: np.random.Generator,
    seed: int,
) -> Workload:
    """With so many of the source's own queries, drawn."""
    if every.ndim != 2 or every.shape[1] != source.dim or not len(every):
        raise BenchError(
            f"{source.name}: expected queries of length {source.dim}, found {every.shape}"
        )
    chosen = np.sort(draw.permutation(len(every))[:queries])
    units = unit(every[chosen], f"{source.name}, queries")
    neighbours = None if source.neighbours is None else source.neighbours[chosen]
    kinds = (GIVEN,) * len(chosen)
    return Workload(path, source.rows, source.dim, units, kinds, seed, neighbours)


def _moved(rows: np.ndarray, far: float, draw: np.random.Generator) -> np.ndarray:
    noise = draw.standard_normal(rows.shape)
    moved = rows + noise * (far / np.linalg.norm(noise, axis=1, keepdims=True))
    unit: np.ndarray = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    return unit
