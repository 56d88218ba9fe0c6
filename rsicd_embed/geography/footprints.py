"""Footprints of image tiles in WGS 84: centres, polygons and ground resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rsicd_embed.errors import DatasetError, first_line
from rsicd_embed.geography.spatial_functions import (
    centroids,
    coordinates,
    of_arrays,
    require_shapely,
)

if TYPE_CHECKING:
    from pyproj import Transformer

# Corners of a tile counter-clockwise from the lower left, the middles of its edges, its centre.
_X = np.array([0, 1, 1, 0, 0.5, 1, 0.5, 0, 0.5])
_Y = np.array([1, 1, 0, 0, 1, 0.5, 0, 0.5, 0.5])
_STEPS = 16  # points per edge of tiles whose edges are curved in longitude and latitude
_HAIR = 1e-6  # a fraction of the tile's size
_CURVED = 0.01  # deviation from a straight edge, as a fraction of the tile's size

Affine = tuple[float, float, float, float, float, float]
"""x = a·column + b·row + c; y = d·column + e·row + f."""


@dataclass(frozen=True)
class Georeference:
    """The position of an image on the globe.

    Attributes:
        crs: coordinate reference system, as `EPSG:32618`, or WKT where it has no code.
        transform: from pixels to coordinates of `crs`.
    """

    crs: str
    transform: Affine


@dataclass(frozen=True)
class Footprints:
    """Footprints of n tiles; missing where the projection is undefined.

    Attributes:
        lon: longitudes of the centres in degrees, float64 (n,), from -180 to 180.
        lat: latitudes of the centres, float64 (n,).
        gsd_m: side of a pixel on the ground in metres, float64 (n,).
        geometry: polygons as WKB; those that cross the antimeridian are split in two.
    """

    lon: pa.Array
    lat: pa.Array
    gsd_m: pa.Array
    geometry: pa.Array


def footprints(georeference: Georeference, boxes: np.ndarray) -> Footprints:
    """Computes the footprints of tiles.

    Polygons have four corners, and more where edges are visibly curved, as near a pole.

    Args:
        georeference: position of the image.
        boxes: (n, 4): left, top, right, bottom in pixels of the image.

    Raises:
        DatasetError: the coordinate reference system is unknown.
    """
    import shapely

    to_lonlat = _to_lonlat(georeference.crs)
    left, top, right, bottom = boxes.T.astype(np.float64)[:, :, np.newaxis]
    columns, rows = left + (right - left) * _X, top + (bottom - top) * _Y
    lon, lat = _project(to_lonlat, georeference, columns, rows)
    defined = np.isfinite(lon).all(axis=1) & np.isfinite(lat).all(axis=1)
    defined &= ~_beyond_globe(to_lonlat, *_xy(georeference, columns, rows), lon)
    lon, lat = np.where(defined[:, np.newaxis], (lon, lat), 0)
    lon = _unwrapped(lon)
    area = _metres(lon, lat, 7, 5) * _metres(lon, lat, 6, 4)
    gsd = np.sqrt(area / ((right - left) * (bottom - top))[:, 0])
    rings = np.stack([lon[:, [0, 1, 2, 3, 0]], lat[:, [0, 1, 2, 3, 0]]], axis=-1)
    polygons = shapely.polygons(rings)
    poles = _poles(georeference)
    for i in np.flatnonzero(defined & (_curved(lon, lat) | _has_pole(poles, boxes))):
        box = _beside_poles(boxes[i], poles)
        polygons[i] = _dense(to_lonlat, georeference, box, lon[i, 8])
    west, _, east, _ = shapely.bounds(polygons).T
    for i in np.flatnonzero((west < -180) | (east > 180)):
        polygons[i] = split_at_antimeridian(polygons[i])
    polygons = shapely.orient_polygons(polygons)
    missing = ~defined
    return Footprints(
        pa.array(lon[:, 8], mask=missing),
        pa.array(lat[:, 8], mask=missing),
        pa.array(gsd, mask=missing),
        pa.array(shapely.to_wkb(polygons), pa.binary(), mask=missing),
    )


def pixels_per_metre(georeference: Georeference, width: int, height: int) -> tuple[float, float]:
    """Pixels per metre on the ground along an image's rows and columns, at its centre.

    Raises:
        DatasetError: the coordinate reference system is unknown, or undefined at the centre.
    """
    from pyproj import Geod

    x, y = width / 2, height / 2
    columns, rows = np.array([x - 0.5, x + 0.5, x, x]), np.array([y, y, y - 0.5, y + 0.5])
    to_lonlat = _to_lonlat(georeference.crs)
    lon, lat = _project(to_lonlat, georeference, columns, rows)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise DatasetError(f"expected a place on the globe, found none in {georeference.crs:.60}")
    _, _, metres = Geod(ellps="WGS84").inv(lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]])
    return 1 / float(metres[0]), 1 / float(metres[1])


def to_wgs84(geometry: pa.Array, crs: str | None) -> pa.Array:
    """Converts geometries to WKB in longitudes and latitudes.

    Polygons and points beyond the antimeridian, as longitudes from 0 to 360 have, are moved inside
    ±180; polygons that cross it are split in two.

    Args:
        geometry: WKB or WKT.
        crs: their coordinate reference system; None for WGS 84.

    Raises:
        DatasetError: a geometry is invalid, or the coordinate reference system is unknown.
    """
    shapely, shapes = require_shapely(), _shapes(geometry)
    if crs is not None:
        to_lonlat = _to_lonlat(crs, remedy="")
        shapes = shapely.transform(shapes, of_arrays(to_lonlat.transform), interleaved=False)
        if to_lonlat.source_crs is not None and not to_lonlat.source_crs.is_geographic:
            west, _, east, _ = shapely.bounds(shapes).T
            for i in np.flatnonzero(east - west > 180):
                shapes[i] = _beside_antimeridian(shapes[i])
    west, _, east, _ = shapely.bounds(shapes).T
    beyond = np.flatnonzero((west < -180) | (east > 180))
    if crs is None and pa.types.is_binary(geometry.type) and not len(beyond):
        return geometry
    for i in beyond:
        shapes[i] = _on_the_map(shapes[i])
    return pa.array(shapely.to_wkb(shapes, flavor="iso"), pa.binary())


def _beside_antimeridian(shape: Any) -> Any:
    """A shape whose western longitudes are counted beyond 180, if that makes it narrow."""
    shapely = require_shapely()
    turned = shapely.transform(shape, lambda xy: xy + [360, 0] * (xy[:, :1] < 0))
    west, _, east, _ = turned.bounds
    return turned if east - west < 180 else shape


def _on_the_map(shape: Any) -> Any:
    """A polygon or point with longitudes from -180 to 180, if they were from -540 to 540."""
    shapely = require_shapely()
    west, _, east, _ = shape.bounds
    if west < -540 or east > 540:
        return shape
    if shape.geom_type == "Point":
        return shapely.Point((shape.x + 180) % 360 - 180, shape.y)
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return split_at_antimeridian(shapely.make_valid(shape))
    return shape


def centres(geometry: pa.Array) -> dict[str, pa.Array]:
    """The columns `lon` and `lat` of the centroids of WKB; null without a geometry.

    Raises:
        DatasetError: a geometry is invalid.
    """
    xy = coordinates(centroids(_shapes(geometry)))
    return {
        name: pa.array(values, pa.float64(), mask=np.isnan(values))
        for name, values in zip(("lon", "lat"), xy.T, strict=True)
    }


def _shapes(geometry: pa.Array) -> np.ndarray:
    """Reads WKB or WKT; DatasetError for an invalid one."""
    shapely = require_shapely()
    read = shapely.from_wkt if pa.types.is_string(geometry.type) else shapely.from_wkb
    try:
        shapes: np.ndarray = read(geometry.to_numpy(zero_copy_only=False))
    except (shapely.errors.ShapelyError, TypeError) as error:
        raise DatasetError(f"expected geometries as WKB or WKT: {first_line(error)}") from None
    return shapes


def _to_lonlat(
    crs: str, remedy: str = "; name it with --crs, such as --crs EPSG:32633"
) -> Transformer:
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    except ProjError as error:
        raise DatasetError(
            f"expected a coordinate reference system that PROJ knows, found {crs:.60}: "
            f"{first_line(error):.80}{remedy}"
        ) from None


def _project(
    to_lonlat: Transformer, georeference: Georeference, columns: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    lon, lat = to_lonlat.transform(*_xy(georeference, columns, rows))
    # Grids of pixel centres reach half a pixel beyond the poles.
    return np.asarray(lon), np.clip(lat, -90, 90)


def _xy(
    georeference: Georeference, columns: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d, e, f = georeference.transform
    return a * columns + b * rows + c, d * columns + e * rows + f


def _beyond_globe(
    to_lonlat: Transformer, x: np.ndarray, y: np.ndarray, lon: np.ndarray
) -> np.ndarray:
    """bool (n,): whether tiles reach beyond the edge of a world map.

    For some projections, such as sinusoidal ones, PROJ continues there on the other side of the
    globe. Only maps whose meridians are vertical lines may be repeated beyond their edges.

    Args:
        x, y: (n, 9) coordinates of points of the tiles.
        lon: their longitudes.
    """
    source = to_lonlat.source_crs
    if source is None or source.is_geographic:
        return np.zeros(len(x), bool)
    lat = to_lonlat.transform(x, y)[1]
    back, _ = to_lonlat.transform(lon, lat, direction="INVERSE")
    size = np.maximum(np.ptp(x, axis=1), np.ptp(y, axis=1))[:, np.newaxis]
    moved = (np.abs(back - x) > size / 2) & np.isfinite(back)
    is_repeated = np.ones(np.count_nonzero(moved), bool)
    for parallel in (0.0, 45.0):
        _, level = to_lonlat.transform(0.0, parallel, direction="INVERSE")
        there, _ = to_lonlat.transform(x[moved], np.full(len(is_repeated), level))
        turned = np.where(np.isfinite(there), there, np.nan) - lon[moved]
        is_repeated &= np.abs((turned + 180) % 360 - 180) < _HAIR
    moved[moved] = ~is_repeated
    beyond: np.ndarray = moved.any(axis=1)
    return beyond


def _unwrapped(lon: np.ndarray) -> np.ndarray:
    """Longitudes within 180° of each tile's centre, the last column, which is normalised."""
    centre = lon[:, -1:]
    turns = np.round(centre / 360) * 360
    centre = np.where(np.abs(centre) > 180, centre - turns, centre)
    away = lon - centre
    return np.where(np.abs(away) > 180, lon - np.round(away / 360) * 360, lon)


def _metres(lon: np.ndarray, lat: np.ndarray, start: int, end: int) -> np.ndarray:
    """Geodesic distances (n,) between two of each tile's points; of wide tiles by their centre."""
    from pyproj import Geod

    inv = Geod(ellps="WGS84").inv
    metres = np.array(inv(lon[:, start], lat[:, start], lon[:, end], lat[:, end])[2])
    wide = np.flatnonzero(np.abs(lon[:, end] - lon[:, start]) > 180)
    if len(wide):
        x, y = lon[wide], lat[wide]
        halves = (inv(x[:, i], y[:, i], x[:, 8], y[:, 8])[2] for i in (start, end))
        metres[wide] = np.sum(list(halves), axis=0)
    return metres


def _curved(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """bool (n,): whether the middle of an edge is away from the line between its corners."""
    size = np.maximum(np.ptp(lon[:, :4], axis=1), np.ptp(lat[:, :4], axis=1))
    off = [
        np.abs(axis[:, 4:8] - (axis[:, :4] + axis[:, [1, 2, 3, 0]]) / 2).max(axis=1)
        for axis in (lon, lat)
    ]
    curved: np.ndarray = np.maximum(*off) > _CURVED * size
    return curved


def _poles(georeference: Georeference) -> list[tuple[float, float]]:
    """Columns and rows of the poles in an image, also outside it, if the projection has them."""
    from pyproj import CRS, Transformer

    crs = CRS.from_user_input(georeference.crs)
    if crs.is_geographic:
        return []
    a, b, c, d, e, f = georeference.transform
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform([0, 0], [90, -90])
    determinant = a * e - b * d
    x, y = np.asarray(x) - c, np.asarray(y) - f
    columns, rows = (e * x - b * y) / determinant, (a * y - d * x) / determinant
    places = zip(columns.tolist(), rows.tolist(), strict=True)
    return [place for place in places if np.isfinite(place).all()]


def _has_pole(poles: Sequence[tuple[float, float]], boxes: np.ndarray) -> np.ndarray:
    """bool (n,): whether a pole lies inside each box."""
    left, top, right, bottom = boxes.T
    inside = np.zeros(len(boxes), bool)
    for column, row in poles:
        inside |= (left < column) & (column < right) & (top < row) & (row < bottom)
    return inside


def _beside_poles(box: np.ndarray, poles: Sequence[tuple[float, float]]) -> np.ndarray:
    """A box whose edges are moved inside by a hair where a pole, without longitude, is on them."""
    box = box.astype(np.float64)
    size = (box[2:] - box[:2]).max()
    for pole in poles:
        corner = np.array([*pole, *pole])
        near = np.abs(box - corner) < _HAIR * size
        if (corner[:2] > box[:2] - _HAIR * size).all() and (
            corner[2:] < box[2:] + _HAIR * size
        ).all():
            box = box + near * size * _HAIR * 2 * np.array([1, 1, -1, -1])
    return box


def _dense(to_lonlat: Transformer, georeference: Georeference, box: np.ndarray, lon: float) -> Any:
    """The polygon of a tile with many points per edge; with a pole inside, down to the pole."""
    import shapely

    left, top, right, bottom = (float(edge) for edge in box)
    steps = np.arange(_STEPS) / _STEPS
    columns = _along([left, right, right, left], steps)
    rows = _along([bottom, bottom, top, top], steps)
    lons, lats = _project(to_lonlat, georeference, columns, rows)
    turns = np.unwrap([*lons, lons[0]], period=360)
    if abs(turns[-1] - turns[0]) < 180:  # no pole inside
        turns = turns + np.round((lon - turns.mean()) / 360) * 360
        return shapely.make_valid(shapely.Polygon(zip(turns, [*lats, lats[0]], strict=True)))
    pole = np.copysign(90, lats.mean())
    order = np.argsort((lons + 180) % 360)
    lons, lats = ((lons + 180) % 360 - 180)[order], lats[order]
    edge = np.interp(180, [lons[-1], lons[0] + 360], [lats[-1], lats[0]])
    ring = [(-180, pole), (-180, edge), *zip(lons, lats, strict=True), (180, edge), (180, pole)]
    return shapely.make_valid(shapely.Polygon(ring))


def _along(corners: Sequence[float], steps: np.ndarray) -> np.ndarray:
    ends = [*corners[1:], corners[0]]
    edges = [start + (end - start) * steps for start, end in zip(corners, ends, strict=True)]
    return np.concatenate(edges)


def split_at_antimeridian(polygon: Any) -> Any:
    """Cuts a polygon of longitudes from -540 to 540 at ±180, and moves the parts beyond inside."""
    import shapely
    from shapely.affinity import translate

    parts = [
        part
        for turn in (-360, 0, 360)
        for part in shapely.get_parts(
            translate(polygon & shapely.box(turn - 180, -90, turn + 180, 90), -turn)
        )
        if part.area > 0
    ]
    whole = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return whole if whole.is_valid else shapely.union_all(parts)  # parts that meet elsewhere
