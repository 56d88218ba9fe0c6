"""Draws the land outline behind the search page's map, from Natural Earth (public domain).

npm pack world-atlas@2 && tar xzf world-atlas-2.*.tgz
python scripts/make_land_outline.py package/land-50m.json rsicd_embed/server/static/land.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

_PER_DEGREE = 20  # SVG units per degree
_TOLERANCE = 0.06  # maximum error of the outline in degrees


def rings(topology: dict[str, Any]) -> list[np.ndarray]:
    """The land outlines in a TopoJSON document, each float (points, 2): longitude, latitude."""
    scale = np.array(topology["transform"]["scale"])
    offset = np.array(topology["transform"]["translate"])
    arcs = [np.cumsum(arc, axis=0) * scale + offset for arc in topology["arcs"]]
    polygons: list[list[list[int]]] = []
    for geometry in topology["objects"]["land"]["geometries"]:
        several = geometry["type"] == "MultiPolygon"
        polygons += geometry["arcs"] if several else [geometry["arcs"]]
    return [
        np.concatenate([arcs[i] if i >= 0 else arcs[~i][::-1] for i in ring])
        for polygon in polygons
        for ring in polygon
    ]


def simplified(line: np.ndarray, tolerance: float) -> np.ndarray:
    """Simplifies a line by the Douglas-Peucker algorithm, within a tolerance."""
    points = {0, len(line) - 1}
    parts = [(0, len(line) - 1)]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        inner, begin = line[first + 1 : last] - line[first], line[last] - line[first]
        length = float(np.hypot(*begin))
        if length < 1e-9:
            distances = np.hypot(*inner.T)
        else:
            distances = np.abs(inner[:, 0] * begin[1] - inner[:, 1] * begin[0]) / length
        farthest = int(distances.argmax())
        if distances[farthest] > tolerance:
            middle = first + 1 + farthest
            points.add(middle)
            parts += [(first, middle), (middle, last)]
    return line[sorted(points)]


def copies(ring: np.ndarray) -> list[np.ndarray]:
    """Copies of a ring that cover the map without jumps at 180° longitude.

    A ring around the whole Earth is closed along the South Pole.
    """
    line = np.stack([np.unwrap(ring[:, 0], period=360), ring[:, 1]], axis=1)
    if abs(line[-1, 0] - line[0, 0]) > 180:
        poles = [(line[-1, 0], -90.0), (line[0, 0], -90.0)]
        line = np.concatenate([line, poles, line[:1]])
    shifted = (np.add(line, (turn, 0)) for turn in (-360, 0, 360))
    return [ring for ring in shifted if ring[:, 0].max() > -180 and ring[:, 0].min() < 180]


def path(ring: np.ndarray) -> str:
    """A ring as part of an SVG path with north up; empty if smaller than one unit."""
    line = np.round(simplified(ring, _TOLERANCE) * (_PER_DEGREE, -_PER_DEGREE)).astype(int)
    steps = np.diff(line, axis=0)
    steps = steps[np.any(steps != 0, axis=1)]
    if len(steps) < 3:
        return ""
    numbers = " ".join(str(number) for number in steps[:-1].ravel())
    return f"M{line[0][0]} {line[0][1]}l{numbers}z".replace(" -", "-")


def main() -> None:
    """Writes the outlines as an SVG file with units of 0.05°."""
    source, target = map(Path, sys.argv[1:3])
    outlines = "".join(
        path(copy) for ring in rings(json.loads(source.read_text())) for copy in copies(ring)
    )
    width, height = 360 * _PER_DEGREE, 180 * _PER_DEGREE
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="{-width // 2} {-height // 2} {width} {height}">'
        f'<path id="land" d="{outlines}"/></svg>\n'
    )


if __name__ == "__main__":
    main()
