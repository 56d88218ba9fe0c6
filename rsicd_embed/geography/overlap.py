"""Overlapping footprints: non-maximum suppression."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rsicd_embed.geography.spatial_functions import require_shapely


def separate(geometry: pa.Array, overlap: float, limit: int | None = None) -> np.ndarray:
    """Selects footprints that overlap no better one by much (non-maximum suppression).

    Footprints are visited from best to worst. Each that is visited suppresses the worse ones whose
    overlap with it, the area of their intersection divided by that of their union, is at least
    `overlap`. Areas are in square degrees, which compares neighbours fairly.

    Args:
        geometry: WKB of n footprints, best first; null ones are selected and suppress none.
        overlap: least overlap that suppresses, above 0, at most 1.
        limit: number of footprints to select; None for all.

    Returns:
        Indices of the selected footprints, int64, rising.

    Raises:
        QueryError: shapely is not installed.
    """
    shapely = require_shapely()
    shapes = shapely.from_wkb(geometry.to_numpy(zero_copy_only=False), on_invalid="ignore")
    shapes = np.where(shapely.is_valid(shapes), shapes, shapely.make_valid(shapes))
    areas = shapely.area(shapes)
    tree = shapely.STRtree(shapes)
    suppressed = np.zeros(len(shapes), bool)
    selected: list[int] = []
    for i in range(len(shapes)):
        if suppressed[i]:
            continue
        if limit is not None and len(selected) == limit:
            break
        selected.append(i)
        if not areas[i] > 0:
            continue
        near = tree.query(shapes[i])
        near = near[(near > i) & ~suppressed[near] & (areas[near] > 0)]
        common = shapely.area(shapely.intersection(shapes[i], shapes[near]))
        suppressed[near[common >= overlap * (areas[i] + areas[near] - common)]] = True
    return np.array(selected, np.int64)
