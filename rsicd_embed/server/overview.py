"""Summarise a store without a query: a sample of its rows, and all places on a grid."""

from __future__ import annotations

import heapq
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rsicd_embed.query.area import coordinate_columns
from rsicd_embed.records import VECTOR, python_rows, with_ids
from rsicd_embed.stores.base import VectorStore

if TYPE_CHECKING:
    from rsicd_embed.server.page_schemas import Overview, PlaceGroup

# Cells of the grid: 5 degrees wide if rows are all over the Earth.
_GRID = (72, 36)
# Larger stores are summarised by this many rows, which takes a few seconds.
_MOST_ROWS = 2_000_000


def summarise(store: VectorStore, k: int, where: str | None = None) -> Overview:
    """Samples rows and groups all of them by place.

    The sample is the same in every store with these ids: the rows whose ids have the smallest
    checksums.

    Args:
        store: the store.
        k: number of rows in the sample.
        where: SQL condition on the rows.

    Raises:
        FilterError: `where` is invalid.
    """
    columns = coordinate_columns(store.schema)
    smallest: list[tuple[int, str]] = []
    places: list[np.ndarray] = []
    rows, complete = 0, True
    with store.scan(["id", *(columns or ())], where) as reader:
        for batch in reader:
            rows += len(batch)
            keys = ((_checksum(id_), id_) for id_ in batch["id"].to_pylist())
            smallest = heapq.nsmallest(k, [*smallest, *keys])
            if columns is not None:
                places.append(np.column_stack([_degrees(batch[name]) for name in columns]))
            if rows >= _MOST_ROWS:
                complete = False
                break
    ids = [id_ for _, id_ in smallest]
    found = np.concatenate(places) if places else np.empty((0, 2))
    if not complete:
        complete = where is None and len(store) == rows
    return {
        "rows": rows,
        "complete": complete,
        "sample": _rows(store, ids),  # type: ignore[typeddict-item]
        "places": group(found[np.isfinite(found).all(axis=1) & (abs(found[:, 1]) <= 90)]),
    }


def group(places: np.ndarray) -> list[PlaceGroup]:
    """Groups places by the cells of a grid over all of them; the largest group comes first.

    Args:
        places: float (n, 2), finite longitudes and latitudes.

    Example:
        >>> group(np.array([[10.0, 50.0], [10.5, 50.0], [170.0, -20.0]]))[0]
        {'count': 2, 'lon': 10.25, 'lat': 50.0, 'box': [10.0, 50.0, 10.5, 50.0]}
    """
    if not len(places):
        return []
    low, extent = places.min(axis=0), np.ptp(places, axis=0)
    shares = (places - low) / np.where(extent > 0, extent, 1)
    cells = np.minimum((shares * _GRID).astype(int), np.array(_GRID) - 1)
    _, of, counts = np.unique(
        cells[:, 0] * _GRID[1] + cells[:, 1], return_inverse=True, return_counts=True
    )
    order = np.argsort(of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ordered = places[order]
    means = np.add.reduceat(ordered, starts) / counts[:, None]
    lows, highs = np.minimum.reduceat(ordered, starts), np.maximum.reduceat(ordered, starts)
    groups: list[PlaceGroup] = [
        {
            "count": int(counts[i]),
            "lon": round(float(means[i, 0]), 6),
            "lat": round(float(means[i, 1]), 6),
            "box": [*map(float, lows[i]), *map(float, highs[i])],
        }
        for i in np.argsort(-counts, kind="stable")
    ]
    return groups


def _checksum(id_: str) -> int:
    return zlib.crc32(id_.encode())


def _degrees(column: pa.Array) -> np.ndarray:
    values: np.ndarray = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _rows(store: VectorStore, ids: list[str]) -> list[dict[str, object]]:
    """All columns but the vectors of these rows, in this order; deleted rows are left out."""
    if not ids:
        return []
    names = [name for name in store.schema.names if name != VECTOR]
    with store.scan(names, where=with_ids(ids)) as reader:
        by_id = {row["id"]: row for row in python_rows(reader.read_all())}
    return [by_id[id_] for id_ in ids if id_ in by_id]
