"""Stands in for rasterio where the example that cuts a scene runs: one UTM scene with nodata."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np


class Scene:
    """What `rasterio.open` returns: 520 × 800 pixels whose upper left corner is nodata."""

    crs = "EPSG:32631"

    def __init__(self) -> None:
        scene = np.random.default_rng(0).integers(200, 4000, (4, 520, 800)).astype(np.uint16)
        wedge = np.add.outer(np.arange(520), np.arange(800)) < 300
        self.mask = np.where(wedge, 0, 255).astype(np.uint8)
        self.bands = np.where(wedge, 65_535, scene)
        self.transform = self

    def __mul__(self, place: tuple[float, float]) -> tuple[float, float]:
        return 500_000 + 10 * place[0], 5_700_000 - 10 * place[1]

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, indexes: list[int]) -> np.ndarray:
        """The bands of these numbers, counted from 1."""
        return self.bands[np.subtract(indexes, 1)]

    def dataset_mask(self) -> np.ndarray:
        """255 where there are data, 0 elsewhere."""
        return self.mask


def modules() -> dict[str, ModuleType]:
    """Modules for `sys.modules`, in place of rasterio's."""
    rasterio, warp = ModuleType("rasterio"), ModuleType("rasterio.warp")
    vars(rasterio)["open"] = lambda path: Scene()
    vars(warp)["transform"] = _to_degrees
    return {"rasterio": rasterio, "rasterio.warp": warp}


def _to_degrees(
    source: str, target: str, x: Sequence[float], y: Sequence[float]
) -> tuple[list[float], list[float]]:
    """UTM zone 31 near its central meridian, roughly."""
    if (source, target) != (Scene.crs, "EPSG:4326"):
        raise ValueError(f"expected {Scene.crs} to EPSG:4326, found {source} to {target}")
    north = [metres / 110_900 for metres in y]
    return [3 + (metres - 500_000) / 69_500 for metres in x], north
