"""Spatial functions of SQL, computed by shapely: predicates, distances and geometries.

Geometries are WKB in longitudes and latitudes (WGS 84). Edges are straight lines in degrees, as in
RFC 7946; distances are geodesic, in metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.errors import QueryError, first_line

_WKB, _TEXT, _NUMBER = pa.binary(), pa.string(), pa.float64()
_POINT = np.dtype([("head", "V5"), ("lon", "<f8"), ("lat", "<f8")])
_POINT_HEAD = b"\x01\x01\0\0\0"
# Prefixes of little-endian WKB of fixed size, whose bounds are read without shapely: points and
# polygons of four corners.
_FIXED = ((_POINT_HEAD, 1), (b"\x01\x03\0\0\0\x01\0\0\0\x05\0\0\0", 5))
# Predicate → the predicate with its arguments exchanged, both names of shapely.
_PREDICATES = {
    "intersects": "intersects",
    "within": "contains",
    "contains": "within",
    "coveredby": "covers",
    "covers": "covered_by",
    "touches": "touches",
    "overlaps": "overlaps",
}
_SMALLEST_RADIUS_M = 6_335_439  # smallest radius of curvature of the WGS 84 ellipsoid
_QUARTER_M = 10_000_000  # from a pole to the equator
_STEP_DEGREES = 0.01  # between points of projected edges, whose error is at most centimetres

Bounds = tuple[float, float, float, float]


def require_shapely() -> Any:
    """Imports shapely; QueryError if it is not installed."""
    try:
        import shapely
    except ImportError:
        raise QueryError("places need shapely; pip install 'rsicd-embed[geo]'") from None
    return shapely


def spatial_functions() -> list[tuple[Callable[..., pa.Array], list[pa.DataType], Any, str]]:
    """All functions: implementation, types of arguments and result, name in SQL."""
    predicates = [
        (partial(_predicate, name), [_WKB, _WKB], pa.bool_(), f"st_{name}") for name in _PREDICATES
    ]
    return [
        *predicates,
        (partial(_near, False), [_WKB, _WKB, _NUMBER], pa.bool_(), "st_dwithin"),
        (partial(_near, True), [_WKB, _WKB, _NUMBER], pa.bool_(), "st_dfullywithin"),
        (_distance, [_WKB, _WKB], _NUMBER, "st_distance"),
        (points, [_NUMBER, _NUMBER], _WKB, "st_point"),
        (_envelope, [_NUMBER] * 4, _WKB, "st_makeenvelope"),
        (partial(_parsed, "from_wkt", "WKT"), [_TEXT], _WKB, "st_geomfromtext"),
        (partial(_parsed, "from_geojson", "GeoJSON"), [_TEXT], _WKB, "st_geomfromgeojson"),
        (_text, [_WKB], _TEXT, "st_astext"),
        (_centroid, [_WKB], _WKB, "st_centroid"),
        (partial(_coordinate, 0), [_WKB], _NUMBER, "st_x"),
        (partial(_coordinate, 1), [_WKB], _NUMBER, "st_y"),
    ]


def points(lon: pa.Array, lat: pa.Array) -> pa.Array:
    """Points as WKB; NULL where a coordinate is NULL or NaN, as spreadsheets write none."""
    values = np.empty(len(lon), _POINT)
    values["head"] = np.void(_POINT_HEAD)
    for name, column in (("lon", lon), ("lat", lat)):
        values[name] = column.to_numpy(zero_copy_only=False)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * _POINT.itemsize
    array = pa.Array.from_buffers(
        _WKB, len(values), [None, pa.py_buffer(offsets), pa.py_buffer(values.tobytes())]
    )
    is_missing = pc.or_(lon.is_null(nan_is_null=True), lat.is_null(nan_is_null=True))
    return pc.if_else(is_missing, pa.scalar(None, _WKB), array)


def _predicate(name: str, a: pa.Array, b: pa.Array) -> pa.Array:
    shapely = require_shapely()
    if len(a) and not _is_constant(b) and _is_constant(a):
        return _predicate(_PREDICATES[name].replace("covered_by", "coveredby"), b, a)
    exchanged = getattr(shapely, _PREDICATES[name])
    result = np.zeros(len(a), bool)
    if len(a) and _is_constant(b):
        place = _prepared(b[0].as_py())
        chosen = np.flatnonzero(_overlapping(a, shapely.bounds(place)))
        result[chosen] = exchanged(place, _shapes(a.take(pa.array(chosen))))
    else:
        result[:] = exchanged(_shapes(b), _shapes(a))
    return pa.array(result, mask=_missing(a, b))


def _near(whole: bool, a: pa.Array, b: pa.Array, radius_m: pa.Array) -> pa.Array:
    """Whether shapes are within a distance of a point, with any of their points or all."""
    result = np.zeros(len(a), bool)
    radii = radius_m.to_numpy(zero_copy_only=False)
    for lon, lat, rows in _by_point(b):
        most = float(np.nanmax(radii[rows]))
        if most >= 0:
            shapes = a.take(pa.array(rows))
            close = np.flatnonzero(_overlapping(shapes, _around(lon, lat, most)))
            distances = _distances(_shapes(shapes.take(pa.array(close))), lon, lat, whole)
            result[rows[close]] = distances <= radii[rows[close]]
    return pa.array(result, mask=_missing(a, b))


def _distance(a: pa.Array, b: pa.Array) -> pa.Array:
    result = np.full(len(a), np.nan)
    for lon, lat, rows in _by_point(b):
        result[rows] = _distances(_shapes(a.take(pa.array(rows))), lon, lat, False)
    return pa.array(result, mask=_missing(a, b) | np.isnan(result))


def of_arrays(project: Callable[..., Any]) -> Callable[..., Any]:
    """A projection by pyproj for `shapely.transform`, which expects arrays.

    With older NumPy, pyproj takes arrays of one coordinate for scalars.
    """

    def projected(x: np.ndarray, y: np.ndarray) -> Any:
        if len(x) != 1:
            return project(x, y)
        return [values[:1] for values in project(np.repeat(x, 2), np.repeat(y, 2))]

    return projected


def _distances(shapes: np.ndarray, lon: float, lat: float, furthest: bool) -> np.ndarray:
    """Geodesic distances (n,) of shapes from a point, in metres; NaN for missing shapes.

    In the azimuthal equidistant projection around the point, distances from it are geodesic.
    """
    shapely = require_shapely()
    from pyproj import Proj

    project = Proj(proj="aeqd", lat_0=lat, lon_0=lon, ellps="WGS84")
    shapes = shapely.transform(
        shapely.segmentize(shapes, _STEP_DEGREES), of_arrays(project), interleaved=False
    )
    xy, rows = shapely.get_coordinates(shapes, return_index=True)
    reach = np.hypot(*xy.T)
    nearest, most = np.full(len(shapes), np.inf), np.full(len(shapes), -np.inf)
    np.minimum.at(nearest, rows, reach)
    np.maximum.at(most, rows, reach)
    # The projection turns shapes around the antipode inside out.
    distances = np.minimum(nearest, shapely.distance(shapes, shapely.Point(0, 0)))
    distances = np.where(nearest > _QUARTER_M, nearest, distances)
    return np.where(np.isneginf(most), np.nan, most if furthest else distances)


def _around(lon: float, lat: float, radius_m: float) -> Bounds:
    """Bounds of all places within a distance of a point, perhaps larger than necessary."""
    angle = radius_m / _SMALLEST_RADIUS_M
    south, north = lat - math.degrees(angle), lat + math.degrees(angle)
    if south <= -90 or north >= 90:
        return -180, south, 180, north
    reach = math.degrees(math.asin(min(1, math.sin(angle) / math.cos(math.radians(lat)))))
    west, east = lon - reach, lon + reach
    return (-180, south, 180, north) if west < -180 or east > 180 else (west, south, east, north)


def _by_point(b: pa.Array) -> list[tuple[float, float, np.ndarray]]:
    """The distinct points of an array, each with its rows."""
    shapely = require_shapely()
    codes = b.dictionary_encode()
    indices = codes.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    groups = []
    for i, point in enumerate(_shapes(codes.dictionary)):
        if not np.isfinite(coordinates(np.array([point]))).all():
            shown = "an invalid geometry" if point is None else shapely.to_wkt(point)[:60]
            raise QueryError(f"expected a point to measure distances from, found {shown}")
        groups.append((point.x, point.y, np.flatnonzero(indices == i)))
    return groups


def _envelope(*bounds: pa.Array) -> pa.Array:
    values = (column.to_numpy(zero_copy_only=False) for column in bounds)
    return _wkb(require_shapely().box(*values))


def _parsed(reader: str, name: str, texts: pa.Array) -> pa.Array:
    shapely = require_shapely()
    try:
        return _wkb(getattr(shapely, reader)(texts.to_numpy(zero_copy_only=False)))
    except shapely.errors.ShapelyError as error:
        raise QueryError(f"expected a geometry as {name}: {first_line(error)}") from None


def _text(a: pa.Array) -> pa.Array:
    return pa.array(require_shapely().to_wkt(_shapes(a), rounding_precision=-1), _TEXT)


def _centroid(a: pa.Array) -> pa.Array:
    return _wkb(centroids(_shapes(a)))


def centroids(shapes: np.ndarray) -> np.ndarray:
    """Planar centroids of shapes; those of parts beside the antimeridian are beside it, too."""
    shapely = require_shapely()
    points: np.ndarray = shapely.centroid(shapes)
    west, _, east, _ = shapely.bounds(shapes).T
    for i in np.flatnonzero(east - west > 180):
        left, _, right, _ = shapely.bounds(shapely.get_parts(shapes[i])).T
        if ((left < 0) & (right >= 0)).any():  # a part on both sides of the prime meridian
            continue
        turned = shapely.transform(shapes[i], lambda xy: xy + [360, 0] * (xy[:, :1] < 0))
        start, _, end, _ = shapely.bounds(turned)
        if end - start < east[i] - west[i]:
            centre = shapely.centroid(turned)
            points[i] = shapely.Point(centre.x - 360 * (centre.x > 180), centre.y)
    return points


def coordinates(points: np.ndarray) -> np.ndarray:
    """float64 (n, 2) of shapes; NaN for all but points, and for empty ones."""
    shapely = require_shapely()
    xy = np.full((len(points), 2), np.nan)
    usable = (shapely.get_type_id(points) == 0) & ~shapely.is_empty(points)
    xy[usable] = shapely.get_coordinates(points[usable])
    return xy


def _coordinate(axis: int, a: pa.Array) -> pa.Array:
    values = coordinates(_shapes(a))[:, axis]
    return pa.array(values, mask=np.isnan(values))


def _wkb(shapes: np.ndarray) -> pa.Array:
    return pa.array(require_shapely().to_wkb(shapes), _WKB)


def _shapes(a: pa.Array) -> np.ndarray:
    """Reads WKB; None for invalid values."""
    shapes: np.ndarray = require_shapely().from_wkb(
        a.to_numpy(zero_copy_only=False), on_invalid="ignore"
    )
    return shapes


@lru_cache(16)
def _prepared(wkb: bytes) -> Any:
    shapely = require_shapely()
    place = shapely.from_wkb(wkb, on_invalid="ignore")
    shapely.prepare(place)
    return place


def _is_constant(a: pa.Array) -> bool:
    return a.null_count == 0 and bool(pc.all(pc.equal(a, a[0])).as_py())


def _missing(a: pa.Array, b: pa.Array) -> np.ndarray:
    missing: np.ndarray = pc.or_(a.is_null(), b.is_null()).to_numpy(zero_copy_only=False)
    return missing


def _overlapping(a: pa.Array, bounds: Bounds) -> np.ndarray:
    """Whether the bounding boxes of shapes may overlap bounds; a quick test, bool (n,)."""
    west, south, east, north = bounds
    offsets = np.frombuffer(a.buffers()[1], np.int32)[a.offset : a.offset + len(a) + 1]
    starts, sizes = offsets[:-1].astype(np.int64), np.diff(offsets)
    content = np.frombuffer(a.buffers()[2] or b"", np.uint8)
    overlapping = np.ones(len(a), bool)
    for head, count in _FIXED:
        rows = np.flatnonzero(sizes == len(head) + 16 * count)
        if len(rows):
            values = content[starts[rows, None] + np.arange(len(head) + 16 * count)]
            rows_have_head = (values[:, : len(head)] == np.frombuffer(head, np.uint8)).all(axis=1)
            rows, values = rows[rows_have_head], values[rows_have_head, len(head) :]
            xy = np.ascontiguousarray(values).view("<f8").reshape(-1, count, 2)
            (left, bottom), (right, top) = xy.min(axis=1).T, xy.max(axis=1).T
            overlapping[rows] = (
                (left <= east) & (right >= west) & (bottom <= north) & (top >= south)
            )
    return overlapping
