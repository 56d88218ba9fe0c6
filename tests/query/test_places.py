"""Places: footprints against areas and circles in all stores and in SQL, as shapely says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed import Area, Near, Part, Query
from rsicd_embed.errors import FilterError, QueryError, SQLError
from rsicd_embed.query.search import condition
from rsicd_embed.records import Provenance
from rsicd_embed.stores.filters import matching
from rsicd_embed.testing.stores import batch, unit

shapely = pytest.importorskip("shapely")
Geod = pytest.importorskip("pyproj").Geod

MADE_BY = Provenance("m", "weights:1/dim:8", 8)
HOLED = {
    "type": "Polygon",
    "coordinates": [
        [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]],
        [[3, 3], [3, 6], [6, 6], [6, 3], [3, 3]],
    ],
}


def tiles(count: int = 3000, side: float = 0.5, seed: int = 0) -> tuple[np.ndarray, pa.Table]:
    """Square footprints around random points, some of them split at the antimeridian."""
    lon, lat = np.random.default_rng(seed).uniform((-180, -20), (180, 20), (count, 2)).T
    lon[: count // 3] /= 15
    shapes = shapely.box(lon - side, lat - side, lon + side, lat + side)
    for i in np.flatnonzero(np.abs(lon) > 180 - side):
        west, east = (lon[i] - side + 180) % 360 - 180, (lon[i] + side + 180) % 360 - 180
        boxes = [
            shapely.box(*b)
            for b in (
                (west, lat[i] - side, 180, lat[i] + side),
                (-180, lat[i] - side, east, lat[i] + side),
            )
        ]
        shapes[i] = shapely.MultiPolygon(boxes)
    columns = {"id": [f"{i:05}" for i in range(count)], "lon": lon, "lat": lat}
    return shapes, pa.table(columns | {"geometry": pa.array(shapely.to_wkb(shapes), pa.binary())})


def chosen(place: Area | Near, rows: pa.Table, contained: bool = False) -> np.ndarray:
    return matching(rows, place.condition(rows.schema, contained))


def test_areas_match_footprints_as_shapely_does() -> None:
    shapes, rows = tiles()
    holed = shapely.from_geojson(json.dumps(HOLED))
    seam = shapely.MultiPolygon([shapely.box(170, -9, 180, 9), shapely.box(-180, -9, -170, 9)])
    areas = (
        (Area.of_geojson(HOLED), holed),
        (Area((170, -9, -170, 9)), seam),
        (Area((0, 0, 0, 9)), shapely.LineString([(0, 0), (0, 9)])),
    )
    for area, shape in areas:
        expected = shapely.intersects(shape, shapes)
        assert expected.sum() > 5
        assert chosen(area, rows).tolist() == expected.tolist()
        assert chosen(area, rows, True).tolist() == shapely.covers(shape, shapes).tolist()
    points = rows.drop_columns(["geometry"])
    centres = shapely.points(rows["lon"].to_numpy(), rows["lat"].to_numpy())
    assert chosen(areas[0][0], points).tolist() == shapely.intersects(holed, centres).tolist()


def test_rows_without_footprint_count_as_points() -> None:
    _, rows = tiles(9)
    missing = rows.set_column(3, "geometry", pa.array([None, b"no WKB", *[None] * 7], pa.binary()))
    expected = [abs(x) <= 90 for x in rows["lon"].to_pylist()]
    expected[1] = False
    assert chosen(Area((-90, -90, 90, 90)), missing).tolist() == expected
    alone = missing.drop_columns(["lon", "lat"])
    assert not chosen(Area((-180, -90, 180, 90)), alone).any()


@pytest.mark.parametrize(
    "place", ["0.3,0.2,300km", "179.9,1,400 km", "-179,-2,5e5m", "1,89.9,9000km"]
)
def test_near_is_geodesic(place: str) -> None:
    near = Near.parse(place)
    shapes, rows = tiles()
    geod = Geod(ellps="WGS84")
    lon, lat = rows["lon"].to_numpy(), rows["lat"].to_numpy()
    here = np.full(len(lon), near.lon), np.full(len(lon), near.lat)
    metres = np.asarray(geod.inv(*here, lon, lat)[2])
    expected = metres <= near.radius_m
    assert 5 < expected.sum() < len(expected)
    assert chosen(near, rows.drop_columns(["geometry"])).tolist() == expected.tolist()
    corners, index = shapely.get_coordinates(shapes, return_index=True)
    here = np.full(len(corners), near.lon), np.full(len(corners), near.lat)
    reach = np.asarray(geod.inv(*here, *corners.T)[2])
    furthest, nearest = np.zeros(len(shapes)), np.full(len(shapes), np.inf)
    np.maximum.at(furthest, index, reach)
    np.minimum.at(nearest, index, reach)
    intersecting, contained = chosen(near, rows), chosen(near, rows, True)
    clear = np.abs(furthest - near.radius_m) > 500  # an edge bulges past its corners
    assert contained[clear].tolist() == (furthest <= near.radius_m)[clear].tolist()
    assert intersecting[nearest <= near.radius_m].all() and intersecting[expected].all()
    assert not intersecting[nearest > near.radius_m + 120_000].any()


def test_all_stores_and_sql_give_the_same_hits(tmp_path: Path) -> None:
    _, rows = tiles(200)
    vectors = np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = rows.append_column("vector", pa.FixedSizeListArray.from_arrays(vectors.ravel(), 8))
    area = Area.of_geojson(HOLED)
    where = area.condition(rows.schema)
    expected = {
        i for i, ok in zip(rows["id"].to_pylist(), matching(rows, where), strict=True) if ok
    }
    assert 3 < len(expected) < 100
    for scheme in ("exact", "lancedb", "nmslib"):
        if scheme == "nmslib":
            pytest.importorskip("nmslib")
        uri = f"{scheme}:{tmp_path / scheme}"
        with rsicd_embed.open_store(uri, MADE_BY) as store:
            store.upsert(rows.to_batches())
            query = Query([Part(id="00000")], k=200, within=area, with_examples=True)
            hits = rsicd_embed.search(query, store)
            assert set(hits["id"].to_pylist()) == expected
            sql = "SELECT id FROM images WHERE st_intersects(geometry, st_geomfromgeojson('{}'))"
            found = rsicd_embed.sql(sql.format(json.dumps(HOLED)), store)
            assert set(pa.table(found)["id"].to_pylist()) == expected


def test_places_and_a_condition() -> None:
    rows = pa.table(
        {
            "id": list("abcd"), "lon": [0.5, math.nan, 179.5, -179.5], "lat": [0.5] * 4,
            "label": ["x", "x", "x", "y"],
        }
    )  # fmt: skip

    def ids(where: str | None, *box: float) -> str:
        query = Query([Part(id="a")], where=where, within=Area(box))  # type: ignore[arg-type]
        mask = matching(rows, condition(query, rows.schema) or "")
        return "".join(rows["id"].filter(pa.array(mask)).to_pylist())

    assert ids(None, 170, 0, -170, 1) == "cd"  # NaN is nowhere
    assert ids("label = 'x' -- a note", 170, 0, -170, 1) == "c"
    assert ids("label = 'y' or label = 'x'", 0, 0, 1, 1) == "a"
    for incomplete in ("label = 'y') OR (label = 'x'", "label = 'x", "label = 'x' /*", ""):
        with pytest.raises(FilterError):
            ids(incomplete, 0, 0, 1, 1)


def test_one_row_without_a_place(tmp_path: Path) -> None:
    """NaN is no place, as NULL is none; other rows are compared."""
    with rsicd_embed.open_store(f"exact:{tmp_path / 'st'}", MADE_BY) as store:
        places = {"lon": [0.5, math.nan, None], "lat": [0.5] * 3}
        store.upsert([batch(list("abc"), **places)])
        sql = "SELECT st_distance(st_point(0, 0), st_point(lon, lat)) AS m FROM images ORDER BY id"
        metres = rsicd_embed.sql(sql, store)["m"].to_pylist()
        assert metres[0] == pytest.approx(78_500, rel=0.01) and metres[1:] == [None, None]
        wrong = "st_intersects(st_point(lon, lat), st_geomfromtext('POINT(\"x'))"
        with pytest.raises(FilterError, match=r": expected a geometry as WKT: ParseExcep[^\n]*$"):
            store.search(unit(1), where=wrong)
        with pytest.raises(SQLError, match=r"not possible: expected a geometry as WKT: Par[^\n]*$"):
            rsicd_embed.sql(f"SELECT id FROM images WHERE {wrong}", store)


def test_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "area.json").write_text(json.dumps(HOLED), "utf-8-sig")
    assert Area.parse(str(tmp_path / "area.json")) == Area.of_geojson(HOLED)


def test_functions() -> None:
    _, rows = tiles(5)
    for text, expected in {
        "st_astext(st_centroid(st_makeenvelope(0, 0, 2, 4))) = 'POINT (1 2)'": True,
        "st_x(st_point(3, 4)) = 3 AND st_y(st_point(3, 4)) = 4": True,
        "st_contains(st_geomfromtext('POLYGON ((0 0, 2 0, 2 2, 0 0))'), st_point(1, 0.5))": True,
        "st_covers(st_makeenvelope(-180, -90, 180, 90), geometry)": True,
        "st_touches(st_makeenvelope(0, 0, 1, 1), st_makeenvelope(1, 0, 2, 1))": True,
        "abs(st_distance(st_point(1, 0), st_point(0, 0)) - 111319.4908) < 0.001": True,
        "st_dwithin(st_point(lon, lat), st_point(lon, lat), 1)": True,
        "st_point(NULL, 1) IS NULL": True,
        "st_overlaps(geometry, geometry)": False,
    }.items():
        assert matching(rows, text).tolist() == [expected] * 5, text
    with pytest.raises(FilterError, match="expected a geometry as WKT"):
        matching(rows, "st_intersects(geometry, st_geomfromtext('POLYGON'))")
    with pytest.raises(FilterError, match="expected a point to measure distances from"):
        matching(rows, "st_distance(st_point(1, 1), geometry) < 1")


@pytest.mark.parametrize("text", ["1,2", "1,2,3", "1,2,3 feet", "1,99,3km", "a,b,3km", "1,2,0m"])
def test_wrong_circles(text: str) -> None:
    with pytest.raises(QueryError, match="expected"):
        Near.parse(text)


def test_numbers_beyond_any_float_are_refused() -> None:
    ring = [[0, 0], [10**400, 0], [1, 1], [0, 0]]
    with pytest.raises(QueryError, match="expected GeoJSON of type Polygon"):
        Area.of_geojson({"type": "Polygon", "coordinates": [ring]})
    with pytest.raises(QueryError, match="expected minlon,minlat,maxlon,maxlat"):
        Area.of_box([0, 0, 10**400, 1])


def test_a_hole_outside_its_outline_is_refused() -> None:
    outline, hole = HOLED["coordinates"]
    moved = [[x + 20, y] for x, y in hole]  # type: ignore[misc]
    with pytest.raises(QueryError, match="hole lies outside shell near 23,3"):
        Area.of_geojson({"type": "Polygon", "coordinates": [outline, moved]})


def test_polygons_beyond_the_antimeridian() -> None:
    """Longitudes may be counted beyond it; concave polygons have several parts on a side."""
    outline = [(175, 0), (190, 0), (190, 2), (178, 2), (178, 4), (190, 4), (190, 6), (175, 6)]
    for turn in (0, -360):
        ring = [[x + turn, y] for x, y in [*outline, outline[0]]]
        area = Area.of_geojson({"type": "Polygon", "coordinates": [ring]})
        assert len(area.polygons) == 3
        parts = shapely.union_all([shapely.Polygon(*rings) for rings in area.polygons])
        beyond = [shapely.box(-180, 0, -170, 2), shapely.box(-180, 4, -170, 6)]
        west = shapely.Polygon([(175, 0), (180, 0), (180, 2), (178, 2), (178, 4), (180, 4),
                                (180, 6), (175, 6)])  # fmt: skip
        assert parts.equals(shapely.union_all([west, *beyond]))
    band = [[-180, -60], [180, -60], [180, 60], [-180, 60], [-180, -60]]
    assert Area.of_geojson({"type": "Polygon", "coordinates": [band]}).box == (-180, -60, 180, 60)
    jump = [[170, 0], [-170, 0], [-170, 5], [170, 5], [170, 0]]
    with pytest.raises(QueryError, match="or count longitudes beyond it up to 360"):
        Area.of_geojson({"type": "Polygon", "coordinates": [jump]})
