"""Areas on the map: bounding boxes and GeoJSON polygons, as conditions on a row's coordinates.

A row is inside an area if the point of its longitude and latitude is. Edges are straight lines in
degrees, as in RFC 7946.
"""

from __future__ import annotations

import itertools
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

# Pairs of column names, in lower case.
_COLUMNS = (("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"))
_MOST_POINTS = 2000  # of all rings: each edge is a comparison for every row in the bounding box
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
        """The box of four numbers, west, south, east and north, perhaps as `0,50,1,51`.

        Raises:
            QueryError: these are not the bounds of a box.
        """
        given = numbers.split(",") if isinstance(numbers, str) else numbers
        try:
            west, south, east, north = map(float, given)
        except (TypeError, ValueError):
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
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError):
            raise QueryError(
                f"{source}: expected GeoJSON of type Polygon or MultiPolygon, or features of them"
            ) from None
        count = sum(len(ring) for rings in polygons for ring in rings)
        if not polygons or count > _MOST_POINTS:
            raise QueryError(
                f"{source}: expected polygons with at most {_MOST_POINTS:,} points, found {count:,}"
                + ("; simplify them" if count else "")
            )
        for ring in (ring for rings in polygons for ring in rings):
            _require_simple(ring, source)
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
            document = json.loads(Path(text).read_text("utf-8"))
        except OSError as error:
            raise QueryError(f"{_EXPECTED}, found {text!r}: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise QueryError(f"{text}: expected GeoJSON, found something else") from None
        return cls.of_geojson(document, text)

    def condition(self, schema: pa.Schema) -> str:
        """A SQL condition for rows with coordinates inside the area.

        Raises:
            QueryError: rows have no columns of coordinates.
        """
        columns = coordinate_columns(schema)
        if columns is None:
            raise QueryError(
                "expected rows with coordinates, in columns lon and lat (degrees, WGS 84), found "
                f"the columns {', '.join(schema.names)}"
            )
        lon, lat = ('"' + name.replace('"', '""') + '"' for name in columns)
        west, south, east, north = self.box
        join = "AND" if west <= east else "OR"
        within = f"({lon} >= {west!r} {join} {lon} <= {east!r})"
        condition = f"{within} AND {lat} >= {south!r} AND {lat} <= {north!r}"
        if not self.polygons:
            return condition
        inside = [_balanced(list(_crossings(rings, lon, lat)), "!=") for rings in self.polygons]
        return f"{condition} AND {_balanced(inside, 'OR')}"


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
        yield tuple(
            tuple((float(point[0]), float(point[1])) for point in ring)
            for ring in document["coordinates"]
        )
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


def _require_simple(ring: Ring, source: str) -> None:
    """Raises QueryError for a ring that is open, off the map, or crosses something."""
    points = np.array(ring).reshape(-1, 2)
    if len(points) < 4 or not np.array_equal(points[0], points[-1]):
        raise QueryError(
            f"{source}: expected rings of at least four points whose last is the first, found one "
            f"of {len(points)}"
        )
    if not (np.abs(points) <= (180, 90)).all():
        raise QueryError(
            f"{source}: expected longitudes in [-180, 180] and latitudes in [-90, 90], in degrees"
        )
    if np.abs(np.diff(points[:, 0])).max() > 180:
        raise QueryError(
            f"{source}: a polygon crosses the antimeridian; split it at longitude 180 into a "
            "MultiPolygon, as RFC 7946 says"
        )
    if (crossing := _self_crossing(points)) is not None:
        raise QueryError(
            f"{source}: a polygon crosses itself near {crossing[0]:g},{crossing[1]:g}; "
            "expected rings that do not"
        )


def _self_crossing(points: np.ndarray) -> np.ndarray | None:
    """The start of an edge that properly crosses another one of the same ring, or None."""
    a, b = points[:-1], points[1:]

    def side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
        """Sign (edges, points): on which side of each edge each point is."""
        x, y = (end - start).T
        dx, dy = (point[None] - start[:, None]).transpose(2, 0, 1)
        signs: np.ndarray = np.sign(x[:, None] * dy - y[:, None] * dx)
        return signs

    apart = side(a, b, a) * side(a, b, b) < 0  # [i, j]: edge j straddles the line of edge i
    crossing = np.argwhere(apart & apart.T)
    return points[crossing[0, 0]] if len(crossing) else None


def _crossings(rings: Sequence[Ring], lon: str, lat: str) -> Iterator[str]:
    """For each edge, whether it is crossed by the ray from a row's point to the east.

    A point is inside if the number of crossings is odd. An edge includes its lower end only, so
    that a ray through a corner crosses one edge.
    """
    for ring in rings:
        for (x1, y1), (x2, y2) in itertools.pairwise(ring):
            if y1 != y2:
                low, high = sorted((y1, y2))
                slope = (x2 - x1) / (y2 - y1)
                edge = f"{lon} < {x1!r} + ({lat} - {y1!r}) * {slope!r}"
                if math.isfinite(slope):
                    yield f"({lat} >= {low!r} AND {lat} < {high!r} AND {edge})"


def _balanced(terms: Sequence[str], operator: str) -> str:
    """Joins terms as a balanced tree: parsers limit the depth of an expression."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    left, right = _balanced(terms[:middle], operator), _balanced(terms[middle:], operator)
    return f"({left} {operator} {right})"
