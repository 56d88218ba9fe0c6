"""Footprints of tiles at the poles, and of tiles as wide as the globe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rsicd_embed.geography.footprints import Affine, Georeference, footprints

shapely = pytest.importorskip("shapely")
pytest.importorskip("pyproj")

WEB = 20_037_508.342789244  # half the width of Web Mercator
POLAR: Affine = (1000, 0, -100_000, 0, -1000, 100_000)


def footprint(crs: str, transform: Affine, box: list[int]) -> tuple[Any, float]:
    found = footprints(Georeference(crs, transform), np.array([box]))
    shape = shapely.from_wkb(found.geometry[0].as_py())
    assert shape.is_valid
    return shape, found.gsd_m[0].as_py()


@pytest.mark.parametrize(
    ("box", "inside", "outside"),
    [
        ([0, 0, 100, 100], [140, 180, -140], [-130, 0, 130]),  # the pole is a corner
        ([100, 100, 200, 200], [-40, 0, 40], [50, 180, -50]),
        ([50, 100, 150, 200], [-130, -45, 40], [50, 130, 180]),  # it is on an edge
        ([100, 50, 200, 150], [-40, 45, 130], [-50, -130, 140]),
        ([50, 50, 150, 150], [-130, 0, 130, 180], []),
    ],
)
def test_a_pole_on_the_edge_of_a_tile(
    box: list[int], inside: list[float], outside: list[float]
) -> None:
    shape, gsd_m = footprint("EPSG:3413", POLAR, box)
    assert shape.geom_type in ("Polygon", "MultiPolygon")
    assert all(shape.covers(shapely.Point(lon, 89.8)) for lon in inside)
    assert not any(shape.intersects(shapely.Point(lon, 89.8)) for lon in outside)
    assert gsd_m == pytest.approx(1031, abs=1)


@pytest.mark.parametrize(
    ("crs", "transform", "size", "gsd_m"),
    [
        ("EPSG:4326", (1, 0, -180, 0, -1, 90), [360, 180], 111_133),
        ("EPSG:4326", (1, 0, 0, 0, -1, 90), [360, 180], 111_133),
        ("EPSG:4326", (1, 0, -180, 0, -1, 90.5), [360, 181], 110_826),  # centres at the poles
        ("EPSG:3857", (WEB / 128, 0, -WEB, 0, -WEB / 128, WEB), [256, 256], 107_410),
    ],
)  # fmt: skip
def test_the_whole_globe(crs: str, transform: Affine, size: list[int], gsd_m: float) -> None:
    shape, found = footprint(crs, transform, [0, 0, *size])
    assert shape.geom_type == "Polygon"
    assert shape.bounds[0] == pytest.approx(-180) and shape.bounds[2] == pytest.approx(180)
    assert -90 <= shape.bounds[1] < -85 and 85 < shape.bounds[3] <= 90
    assert found == pytest.approx(gsd_m, rel=1e-3)


@pytest.mark.parametrize(
    ("crs", "x", "y", "lon"),
    [
        ("+proj=sinu +R=6371007.181", 1e7, 6e6, 152.9),
        ("+proj=sinu +R=6371007.181", 1.9e7, 6e6, None),
        ("+proj=sinu +R=6371007.181", -1.5e7, -8e6, None),
        ("+proj=sinu +R=6371007.181", 11.75e6, 6e6, None),  # only a part of it is beyond
        ("+proj=moll", 1.9e7, 6e6, None),
        ("EPSG:6933", 1.9e7, 6e6, -163.1),
        ("EPSG:3857", WEB + 1e6, 6e6, -171.0),
        ("EPSG:4087", -WEB - 1e6, 6e6, 171.0),
        ("EPSG:32601", -1e6, 6e6, 161.0),
    ],
)
def test_beyond_the_edge_of_a_world_map(crs: str, x: float, y: float, lon: float | None) -> None:
    """Only cylindrical projections may be repeated there."""
    transform = (1000, 0, x - 50_000, 0, -1000, y + 50_000)
    found = footprints(Georeference(crs, transform), np.array([[0, 0, 100, 100]]))
    assert found.lon[0].as_py() == (None if lon is None else pytest.approx(lon, abs=0.1))
    assert found.geometry[0].is_valid == found.lat[0].is_valid == (lon is not None)
