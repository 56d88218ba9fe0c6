"""Writes the scene that the documents ingest: 520 × 800 pixels of UTM with a corner of nodata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio

SIDE_M = 10


def write(path: Path) -> None:
    """Writes a GeoTIFF of four 16-bit bands."""
    bands = np.random.default_rng(0).integers(200, 4000, (4, 520, 800)).astype(np.uint16)
    bands[:, np.add.outer(np.arange(520), np.arange(800)) < 300] = 0
    transform = rasterio.Affine(SIDE_M, 0, 500_000, 0, -SIDE_M, 5_700_000)
    options = {"count": 4, "height": 520, "width": 800, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", "GTiff", crs="EPSG:32631", transform=transform, **options) as f:
        f.write(bands)
