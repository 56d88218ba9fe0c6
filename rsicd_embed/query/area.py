"""Places on the map, boxes, GeoJSON polygons and circles, as conditions on a row's footprint.

A row without a footprint counts as the point of its longitude and latitude. Edges are straight
lines in degrees, as in RFC 7946.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.arguments import shown
from rsicd_embed.errors import QueryError
from rsicd_embed.geography.footprints import split_at_antimeridian
from rsicd_embed.geography.spatial_functions import points, require_shapely
from rsicd_embed.records import sql_name

# Pairs of column names, in lower case.
_COLUMNS = (("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"))
FOOTPRINT = "geometry"
_METRES = {"m": 1.0, "km": 1000.0, "mi": 1609.344}
_MOST_POINTS = 100_000  # in all rings together
_EXPECTED = "expected minlon,minlat,maxlon,maxlat or a GeoJSON file with polygons"

Ring = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Area:
    """An area: a bounding box, or polygons inside one.

    Attributes:
        box: (west, south, east, north) in degrees; it crosses the antimeridian if west > east.
        polygons: polygons, each a sequence of closed rings of (longitude, latitude); the first ring
            is the outline, and the others are holes. Empty for the whole box.
    """

    box: tuple[float, float, float, float]
    polygons: tuple[tuple[Ring, ...], ...] = ()

    def __post_init__(self) -> None:
        west, south, east, north = self.box
        valid = all(-180 <= x <= 180 for x in (west, east)) and -90 <= south <= north <= 90
        if not valid:
            raise QueryError(
                "expected a box of minlon,minlat,maxlon,maxlat with longitudes in [-180, 180] and "
                f"rising latitudes in [-90, 90], found {','.join(f'{x:g}' for x in self.box)}"
            )

    @classmethod
    def of_box(cls, numbers: str | Sequence[float]) -> Area:
        """The box of four numbers (west, south, east, north), also as text, such as `0,50,1,51`.

        Raises:
            QueryError: these are not the bounds of a box.
        """
        given = numbers.split(",") if isinstance(numbers, str) else numbers
        try:
            west, south, east, north = map(float, given)
        except (TypeError, ValueError, OverflowError):
            raise QueryError(
                f"expected minlon,minlat,maxlon,maxlat, found {shown(str(numbers))}"
            ) from None
        return cls((west, south, east, north))

    @classmethod
    def of_geojson(cls, document: object, source: str = "GeoJSON") -> Area:
        """The polygons of a geometry, feature or collection in GeoJSON; messages name `source`.

        Raises:
            QueryError: no polygons, or invalid ones.
        """
        try:
            polygons = tuple(_polygons(document))
        except (
            TypeError,
            ValueError,
            LookupError,
            ArithmeticError,
            AttributeError,
            RecursionError,
        ):
            raise QueryError(
                f"{source}: expected GeoJSON of type Polygon or MultiPolygon, or features of them"
            ) from None
        count = sum(len(ring) for rings in polygons for ring in rings)
        if not polygons or count > _MOST_POINTS:
            raise QueryError(
                f"{source}: expected polygons with at most {_MOST_POINTS:,} points, found {count:,}"
                + ("; simplify them" if count else "")
            )
        for rings in polygons:
            for ring in rings:
                _require_closed(ring, source)
            _require_valid(rings, source)
        polygons = tuple(part for rings in polygons for part in _on_the_map(rings))
        xs, ys = np.array([point for rings in polygons for ring in rings for point in ring]).T
        box = (float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max()))
        return cls(box, polygons)

    @classmethod
    def parse(cls, text: str) -> Area:
        """Reads `minlon,minlat,maxlon,maxlat`, or the GeoJSON file of that name.

        Raises:
            QueryError: it is neither.
        """
        if re.fullmatch(r"[^,a-zA-Z]+(,[^,a-zA-Z]+){3}", text):
            return cls.of_box(text)
        try:
            document = json.loads(Path(text).read_text("utf-8-sig"))
        except OSError as error:
            raise QueryError(f"{_EXPECTED}, found {text!r}: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise QueryError(f"{text}: expected GeoJSON, found something else") from None
        return cls.of_geojson(document, text)

    def condition(self, schema: pa.Schema, contained: bool = False) -> str:
        """A SQL condition for rows that intersect the area, or are contained in it.

        Raises:
            QueryError: rows have neither footprints nor coordinates, or shapely is missing.
        """
        columns = coordinate_columns(schema)
        predicate = "st_coveredby" if contained else "st_intersects"
        if has_footprints(schema):
            return f"{predicate}({_shape(schema)}, {sql_bytes(self._wkb())})"
        if columns is None:
            raise _no_coordinates(schema)
        lon, lat = map(sql_name, columns)
        west, south, east, north = self.box
        # Both ends are compared, as NaN is greater than all numbers in SQL.
        spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
        within = " OR ".join(f"{lon} >= {start!r} AND {lon} <= {end!r}" for start, end in spans)
        condition = f"({within}) AND {lat} >= {south!r} AND {lat} <= {north!r}"
        if not self.polygons:
            return condition
        return f"{condition} AND {predicate}({_shape(schema)}, {sql_bytes(self._wkb())})"

    def _wkb(self) -> bytes:
        """The area as one valid geometry."""
        shapely = require_shapely()
        west, south, east, north = self.box
        if self.polygons:
            shapes = [shapely.Polygon(rings[0], rings[1:]) for rings in self.polygons]
        else:
            sides = [(west, east)] if west <= east else [(west, 180), (-180, east)]
            shapes = [shapely.MultiPoint([(a, south), (b, north)]).envelope for a, b in sides]
        wkb: bytes = shapely.to_wkb(shapely.union_all(shapes))
        return wkb


@dataclass(frozen=True)
class Near:
    """A place, and a geodesic distance around it.

    Attributes:
        lon: longitude in degrees.
        lat: latitude in degrees.
        radius_m: distance in metres.
    """

    lon: float
    lat: float
    radius_m: float

    def __post_init__(self) -> None:
        if not (abs(self.lon) <= 180 and abs(self.lat) <= 90 and 0 < self.radius_m < math.inf):
            raise QueryError(
                "expected a longitude in [-180, 180], a latitude in [-90, 90] and a positive "
                f"radius, found {self.lon:g}, {self.lat:g} and {self.radius_m:g} m"
            )

    @classmethod
    def parse(cls, text: str) -> Near:
        """Reads `lon,lat,radius`; the radius has a unit, as `2.35,48.86,5km`.

        Raises:
            QueryError: it is something else.
        """
        parts = text.split(",")
        radius = re.fullmatch(r"([\d.]+(?:e\d+)?) ?(m|km|mi)", parts[-1].strip())
        try:
            lon, lat = map(float, parts[:-1])
            return cls(lon, lat, float(radius[1]) * _METRES[radius[2]])  # type: ignore[index]
        except (TypeError, ValueError):
            raise QueryError(
                "expected LON,LAT,RADIUS with a unit (m, km or mi), such as 2.35,48.86,5km, found "
                f"{shown(text)}"
            ) from None

    def condition(self, schema: pa.Schema, contained: bool = False) -> str:
        """A SQL condition for rows of which any part is within the radius, or every part.

        Raises:
            QueryError: rows have neither footprints nor coordinates, or shapely is missing.
        """
        require_shapely()
        predicate = "st_dfullywithin" if contained else "st_dwithin"
        point = points(pa.array([self.lon]), pa.array([self.lat]))[0].as_py()
        return f"{predicate}({_shape(schema)}, {sql_bytes(point)}, {float(self.radius_m)!r})"


def has_footprints(schema: pa.Schema) -> bool:
    """Whether rows have footprints, as WKB in a column geometry."""
    return FOOTPRINT in schema.names and pa.types.is_binary(schema.field(FOOTPRINT).type)


def sql_bytes(value: bytes) -> str:
    """Bytes as a SQL literal."""
    return f"X'{value.hex()}'"


def _shape(schema: pa.Schema) -> str:
    """Each row's footprint, or its point where it has none, as SQL."""
    columns = coordinate_columns(schema)
    if columns is None and not has_footprints(schema):
        raise _no_coordinates(schema)
    point = f"st_point({', '.join(map(sql_name, columns))})" if columns else ""
    if not has_footprints(schema):
        return point
    return f"coalesce({FOOTPRINT}, {point})" if point else FOOTPRINT


def _no_coordinates(schema: pa.Schema) -> QueryError:
    return QueryError(
        "expected rows with coordinates, in columns lon and lat (degrees, WGS 84) or geometry "
        f"(WKB), found the columns {', '.join(schema.names)}"
    )


def coordinate_columns(schema: pa.Schema) -> tuple[str, str] | None:
    """The names of the columns of longitudes and latitudes; None if there are none."""
    numeric = [
        field.name
        for field in schema
        if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    ]
    by_lower = {name.lower(): name for name in reversed(numeric)}
    for lon, lat in _COLUMNS:
        if lon in by_lower and lat in by_lower:
            return by_lower[lon], by_lower[lat]
    return None


def _polygons(document: Any) -> Iterator[tuple[Ring, ...]]:
    kind = document["type"]
    if kind == "Polygon":
        rings = tuple(
            tuple((float(point[0]), float(point[1])) for point in ring)
            for ring in document["coordinates"]
        )
        if rings:  # else it is empty
            yield rings
    elif kind == "MultiPolygon":
        for coordinates in document["coordinates"]:
            yield from _polygons({"type": "Polygon", "coordinates": coordinates})
    elif kind == "Feature":
        yield from _polygons(document["geometry"])
    elif kind in ("FeatureCollection", "GeometryCollection"):
        for item in document["features" if kind == "FeatureCollection" else "geometries"]:
            yield from _polygons(item)
    else:
        raise ValueError(kind)


def _require_closed(ring: Ring, source: str) -> None:
    """Raises QueryError for a ring that is open, off the map, or jumps over the antimeridian."""
    points = np.array(ring).reshape(-1, 2)
    if len(points) < 4 or not np.array_equal(points[0], points[-1]):
        raise QueryError(
            f"{source}: expected rings of at least four points that end where they begin, found a "
            f"ring of {len(points)}"
        )
    if not (np.abs(points) <= (360, 90)).all():
        raise QueryError(
            f"{source}: expected longitudes in [-180, 180], or up to 360 beyond the antimeridian, "
            "and latitudes in [-90, 90], in degrees"
        )
    # A band around the globe is not meant by such a jump, as it would have no width.
    is_band = (np.abs(points[:, 0]) == 180).all()
    if np.abs(np.diff(points[:, 0])).max() > 180 and not is_band:
        raise QueryError(
            f"{source}: a polygon crosses the antimeridian; split it at longitude 180 into a "
            "MultiPolygon, as RFC 7946 says, or count longitudes beyond it up to 360"
        )


def _on_the_map(rings: tuple[Ring, ...]) -> Iterator[tuple[Ring, ...]]:
    """A polygon, or its parts on both sides if it reaches beyond the antimeridian."""
    if all(abs(x) <= 180 for ring in rings for x, _ in ring):
        yield rings
        return
    shapely = require_shapely()
    whole = split_at_antimeridian(shapely.Polygon(rings[0], rings[1:]))
    for part in shapely.get_parts(whole):
        yield tuple(tuple(ring.coords) for ring in (part.exterior, *part.interiors))


def _require_valid(rings: tuple[Ring, ...], source: str) -> None:
    """Raises QueryError for a polygon that crosses itself, or a hole outside its outline."""
    shapely = require_shapely()
    reason = shapely.is_valid_reason(shapely.Polygon(rings[0], rings[1:]))
    if reason != "Valid Geometry":
        problem, _, place = reason.partition("[")
        problem = {"Self-intersection": "a polygon crosses itself"}.get(problem, problem.lower())
        raise QueryError(
            f"{source}: {problem} near {','.join(place.rstrip(']').split())}; expected rings that "
            "do not cross, and holes inside their outline"
        )
