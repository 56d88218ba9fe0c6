"""Stores and hits as GeoParquet, GeoPackage and FlatGeobuf, read by geopandas and DuckDB."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsicd_embed.geography.geoparquet import GeoParquetColumn, covering_column
from rsicd_embed.rowfile import RowFile
from rsicd_embed.stores.base import open_store
from rsicd_embed.testing.stores import MADE_BY, batch, unit

from ..helpers import SCHEMES, content, rows, run

shapely = pytest.importorskip("shapely")
# In affine, which rasterio calls.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
FIJI = shapely.MultiPolygon([shapely.box(179, -18, 180, -17), shapely.box(-180, -18, -179.5, -17)])
SHAPES = [shapely.box(178, -19, 179, -18), FIJI, None, shapely.box(177, -20, 178, -19)]
CORNERS = ["xmin", "ymin", "xmax", "ymax"]


def footprints(shapes: list[Any], kind: pa.DataType = pa.binary()) -> pa.Array:  # noqa: B008
    return pa.array([None if s is None else s.wkb for s in shapes], kind)


def metadata(file: Path) -> dict[bytes, bytes]:
    return pq.read_metadata(file).metadata or {}


def store_with(uri: str, shapes: list[Any] = SHAPES, **columns: Any) -> str:
    ids = [f"s.tif#{i}" for i in range(len(shapes))]
    added = batch(ids, unit(len(ids), seed=1), geometry=footprints(shapes), **columns)
    with open_store(uri, MADE_BY) as store:
        store.upsert([added])
    return uri


def require_valid_metadata(geo: dict[str, Any], schema: pa.Schema) -> None:
    """The rules of the JSON schema of GeoParquet 1.1, and what it says about columns."""
    assert set(geo) == {"version", "primary_column", "columns"}
    assert geo["version"] == "1.1.0" and geo["primary_column"] in geo["columns"]
    for name, column in geo["columns"].items():
        assert schema.field(name).type == pa.binary()
        assert set(column) <= {"encoding", "geometry_types", "covering", "bbox"}
        assert column["encoding"] == "WKB"
        kinds = column["geometry_types"]
        assert len(set(kinds)) == len(kinds)
        pattern = r"(GeometryCollection|(Multi)?(Point|LineString|Polygon))( Z)?"
        assert all(re.fullmatch(pattern, kind) for kind in kinds)
        assert len(column.get("bbox", [0] * 4)) == 4
        paths = column["covering"]["bbox"]
        assert list(paths) == CORNERS and {path[0] for path in paths.values()} == {"bbox"}
        assert [path[1] for path in paths.values()] == CORNERS
        fields = schema.field("bbox").type
        assert [(field.name, field.type) for field in fields] == [
            (corner, pa.float64()) for corner in CORNERS
        ]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_export_is_geoparquet(scheme: str, tmp_path: Path) -> None:
    uri, file = store_with(f"{scheme}:{tmp_path / 'st'}"), tmp_path / "x.parquet"
    assert run("export", "--store", uri, "-o", file).status == 0
    geo = json.loads(metadata(file)[b"geo"])
    require_valid_metadata(geo, pq.read_schema(file))
    column = geo["columns"]["geometry"]
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert column["bbox"] == [177, -20, -179.5, -17]  # across the antimeridian
    bounds = {row["id"]: row["bbox"] for row in pq.read_table(file).to_pylist()}
    assert bounds["s.tif#2"] is None
    assert bounds["s.tif#1"] == dict(zip(CORNERS, [-180, -18, 180, -17], strict=True))
    # Into another store: the same rows, without the column for readers of GeoParquet.
    other = f"exact:{tmp_path / 'other'}"
    assert run("import", file, "--store", other).status == 0
    assert rows(other) == rows(uri)
    assert content(other)[0] == content(uri)[0]
    row_file = RowFile.open(file)
    assert row_file is not None and "bbox" not in row_file.schema.names


def test_geopandas_and_duckdb_read_it(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    uri, file = store_with(f"exact:{tmp_path / 'st'}", label=list("abcd")), tmp_path / "x.parquet"
    run("export", "--store", uri, "-o", file)
    frame = geopandas.read_parquet(file).set_index("id")
    assert str(frame.crs) == "OGC:CRS84" and "bbox" not in frame.columns
    for id_, row in rows(uri).items():
        shape = frame.geometry[id_]
        assert (shape and shape.wkb) == row["geometry"]
        np.testing.assert_array_equal(frame["vector"][id_], row["vector"])
    inside = geopandas.read_parquet(file, bbox=(178.2, -18.9, 178.9, -17.5))
    assert set(inside["id"]) == {"s.tif#0", "s.tif#1"}  # by bounds alone
    duckdb = spatial_duckdb()
    query = f"SELECT id, ST_AsText(geometry), ST_Area(geometry) FROM '{file}' WHERE label = 'a'"
    ((id_, text, area),) = duckdb.execute(query).fetchall()
    assert id_ == "s.tif#0" and shapely.from_wkt(text).equals(SHAPES[0]) and area == 1


def spatial_duckdb() -> Any:
    duckdb = pytest.importorskip("duckdb")
    extensions = pytest.importorskip("duckdb_extensions", reason="needs duckdb-extension-spatial")
    try:
        extensions.import_extension("spatial")
        connection = duckdb.connect()
        connection.execute("LOAD spatial")
    except Exception as error:
        pytest.skip(f"DuckDB has no spatial extension here: {error}")
    return connection


def test_from_a_scene_to_the_same_polygons_and_hits(tmp_path: Path, tiny_model: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    rasterio = pytest.importorskip("rasterio")
    values = np.random.default_rng(0).integers(0, 255, (3, 96, 130), np.uint8)
    place = rasterio.transform.from_origin(500_000, 5_500_000, 10, 10)
    shape = {"width": 130, "height": 96, "count": 3, "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", crs="EPSG:32633", transform=place, **shape
    ) as scene:
        scene.write(values)
    first, second = f"lancedb:{tmp_path / 'a'}", f"exact:{tmp_path / 'b'}"
    options = ("--tile", "64", "--stride", "33", "--model", tiny_model)
    assert run("ingest", tmp_path / "s.tif", "--store", first, *options).status == 0
    file, features = tmp_path / "x.parquet", tmp_path / "x.gpkg"
    assert run("export", "--store", first, "-o", file, "--stac").status == 0
    assert run("export", "--store", first, "-o", features).status == 0
    expected = {id_: shapely.from_wkb(row["geometry"]) for id_, row in rows(first).items()}
    assert len(expected) == 6
    for frame in (geopandas.read_parquet(file), geopandas.read_file(features)):
        assert dict(zip(frame["id"], frame.geometry, strict=True)) == expected
    assert run("import", file, "--store", second).status == 0
    search = ("search", "a port", "--model", tiny_model, "--json", "--store")
    hits = [run(*search, uri).document["hits"] for uri in (first, second)]
    assert hits[0] == hits[1] and len(hits[0]) == 6
    # What others need to know about the vectors.
    item = json.loads((tmp_path / "x.stac.json").read_text())
    pystac = pytest.importorskip("pystac")
    read = pystac.Item.from_dict(item)
    assert read.bbox == pytest.approx(shapely.union_all(list(expected.values())).bounds)
    with open_store(first) as store:
        assert read.properties["rsicd_embed:fingerprint"] == store.provenance.fingerprint
        assert read.properties["emb:dimensions"] == store.provenance.dim
    assert read.assets["embeddings"].extra_fields["table:row_count"] == 6
    assert read.links[0].href == str(tmp_path / "s.tif")


@pytest.mark.parametrize("suffix", ["gpkg", "fgb"])
def test_features(suffix: str, tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    uri = store_with(
        f"exact:{tmp_path / 'st'}", label=["a", None, "d", "é"], fid=pa.array([1, 2, 3, None]),
        captions=[["x", "y"], None, [], ["z"]],
    )  # fmt: skip
    file = tmp_path / f"x.{suffix}"
    export = ("export", "--store", uri, "-o", file, "--json")
    if suffix == "fgb":
        error = run(*export).error
        assert error.endswith('select them with --where "geometry IS NOT NULL", or use .gpkg')
        export = (*export, "--where", "geometry IS NOT NULL")
    assert [run(*export).document["rows"] for _ in range(2)] == [4 - (suffix == "fgb")] * 2
    frame = pyogrio.read_dataframe(file).set_index("id")
    for i, shape in enumerate(SHAPES):
        assert frame.geometry.get(f"s.tif#{i}") == shape
    assert not isinstance(frame["label"]["s.tif#1"], str)
    assert frame["label"]["s.tif#3"] == "é" and frame["fid"]["s.tif#1"] == 2
    assert json.loads(frame["captions"]["s.tif#0"]) == ["x", "y"]
    assert "CRS84" in str(frame.crs) or "4326" in str(frame.crs) or frame.crs.is_geographic
    # Points of rows without footprints.
    points = f"exact:{tmp_path / 'points'}"
    with open_store(points, MADE_BY) as store:
        store.upsert([batch(["a", "b"], lon=[10.0, -20.0], lat=[50.0, 3.0])])
    other = tmp_path / f"y.{suffix}"
    run("search", "--like", "a", "--with-examples", "--store", points, "-o", other)
    frame = pyogrio.read_dataframe(other).set_index("id")
    assert frame.geometry["a"] == shapely.Point(10, 50) and frame.geometry["b"].x == -20
    nowhere = f"exact:{tmp_path / 'nowhere'}"
    with open_store(nowhere, MADE_BY) as store:
        store.upsert([batch(["a"])])
    error = run("export", "--store", nowhere, "-o", tmp_path / f"z.{suffix}").error
    assert "expected rows with coordinates for" in error
    assert not (tmp_path / f"z.{suffix}").exists()


def test_hits_are_geoparquet_and_geojson_has_polygons(tmp_path: Path) -> None:
    uri = store_with(f"exact:{tmp_path / 'st'}", bbox=[1, 2, 3, 4])
    search = ("search", "--like", "s.tif#0", "--with-examples", "--store", uri)
    assert run(*search, "-o", tmp_path / "x.parquet").status == 0
    written = metadata(tmp_path / "x.parquet")
    assert covering_column(written) == "geometry_bbox"  # the rows have a bbox of their own
    assert json.loads(written[b"geo"])["columns"]["geometry"]["bbox"][0] == 177
    document = json.loads(run(*search, "--format", "geojson").stdout)
    found = {f["id"]: f for f in document["features"]}
    assert shapely.from_geojson(json.dumps(found["s.tif#1"]["geometry"])).equals(FIJI)
    assert found["s.tif#2"]["geometry"] is None
    assert "geometry" not in found["s.tif#1"]["properties"]


@pytest.mark.parametrize(
    ("shapes", "bounds"),
    [
        ([shapely.box(-10, 0, 20, 5)], (-10, 0, 20, 5)),
        ([shapely.Point(179, 1), shapely.Point(-179, 2)], (179, 1, -179, 2)),
        ([shapely.box(-180, -80, 180, 80)], (-180, -80, 180, 80)),
        ([FIJI, shapely.box(-10, 0, 20, 5)], (-180, -18, 180, 5)),
        ([shapely.box(170, 0, 180, 1)], (170, 0, 180, 1)),
        ([None, shapely.Polygon()], None),
    ],
)
def test_bounds(shapes: list[Any], bounds: Any) -> None:
    rows = pa.record_batch({"geometry": footprints(shapes)})
    column = GeoParquetColumn.of(rows.schema)
    assert column is not None
    for i in range(len(shapes)):
        column.add(rows.slice(i, 1))
    assert column.bounds() == bounds
    assert ("bbox" in json.loads(column.metadata()[b"geo"])["columns"]["geometry"]) == bool(bounds)


@pytest.mark.parametrize(
    ("wkb", "problem"),
    [(b"garbage", "not every geometry is WKB"),
     (shapely.box(500_000, 0, 500_010, 10).wkb, "in degrees")],
)  # fmt: skip
def test_what_is_not_geoparquet_is_exported_all_the_same(
    wkb: bytes, problem: str, tmp_path: Path
) -> None:
    uri, file = f"exact:{tmp_path / 'st'}", tmp_path / "x.parquet"
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch(["a"], geometry=pa.array([wkb]))])
    done = run("export", "--store", uri, "-o", file)
    assert done.status == 0 and f"not GeoParquet, but plain Parquet: {problem}" not in done.stdout
    assert "not GeoParquet, but plain Parquet: " in done.stderr and problem in done.stderr
    assert b"geo" not in metadata(file)
    other = f"exact:{tmp_path / 'other'}"
    assert run("import", file, "--store", other).status == 0 and rows(other) == rows(uri)


def test_extended_wkb_becomes_iso(tmp_path: Path) -> None:
    solid = shapely.set_srid(shapely.Polygon([(0, 0, 5), (1, 0, 5), (1, 1, 5), (0, 0, 5)]), 4326)
    rows = pa.record_batch({"geometry": pa.array([shapely.to_wkb(solid, include_srid=True)])})
    column = GeoParquetColumn.of(rows.schema)
    assert column is not None
    wkb = column.add(rows)["geometry"][0].as_py()
    assert wkb == shapely.to_wkb(solid, flavor="iso", include_srid=False)
    geo = json.loads(column.metadata()[b"geo"])
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon Z"]


def test_a_store_of_foreign_geoparquet_has_no_covering_column(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[SHAPES[0]], crs=4326)
    frame["embedding"] = [[1.0, 2.0]]
    frame.to_parquet(tmp_path / "v.parquet", write_covering_bbox=True, schema_version="1.1.0")
    uri = f"exact:{tmp_path / 'st'}"
    options = ("--vector-column", "embedding", "--model", "someone/model")
    run("import", tmp_path / "v.parquet", "--store", uri, *options)
    assert set(rows(uri)["a"]) >= {"geometry", "lon"} and "bbox" not in rows(uri)["a"]


@pytest.mark.parametrize("suffix", ["csv", "geojson", "json", "gpkg", "fgb", "parquet"])
def test_only_our_own_files_are_replaced(suffix: str, tmp_path: Path) -> None:
    shapes = [SHAPES[0], FIJI]
    uri, file = store_with(f"exact:{tmp_path / 'st'}", shapes), tmp_path / f"x.{suffix}"
    search = ("search", "--like", "s.tif#0", "--store", uri, "-o", file)
    for command in (search, ("export", "--store", uri, "-o", file)):
        file.unlink(missing_ok=True)
        assert [run(*command).status for _ in range(2)] == [0, 0]
        file.write_text("id,label\na,b\n")
        assert "exists and was not written by rsicd-embed; choose" in run(*command).error
        assert file.read_text() == "id,label\na,b\n"
        assert run(*command, "--force").status == 0
        assert file.read_bytes()[:8] != b"id,label"


def test_a_search_does_not_replace_an_export_with_vectors(tmp_path: Path) -> None:
    uri, file = store_with(f"exact:{tmp_path / 'st'}"), tmp_path / "x.parquet"
    run("export", "--store", uri, "-o", file)
    search = ("search", "--like", "s.tif#0", "--store", uri)
    assert "was not written" in run(*search, "-o", file).error
    page = tmp_path / "x.html"
    assert [run(*search, "--html", page).status for _ in range(2)] == [0, 0]
    page.write_text("<html>mine</html>")
    assert "was not written" in run(*search, "-o", page).error


def test_stac_items(tmp_path: Path) -> None:
    late = 253_402_300_800_000_000  # the year 10000
    times = pa.array([0, 86_400_000_000, None, late], pa.timestamp("us", "UTC"))
    uri, file = store_with(f"exact:{tmp_path / 'st'}", datetime=times), tmp_path / "x.parquet"
    done = run("export", "--store", uri, "-o", file, "--stac", "--json").document
    item = json.loads(Path(done["stac"]).read_text())
    assert item["properties"]["start_datetime"] == "1970-01-01T00:00:00Z"
    assert item["properties"]["end_datetime"] == "1970-01-02T00:00:00Z"
    assert item["bbox"] == [177, -20, -179.5, -17]
    assert shapely.from_geojson(json.dumps(item["geometry"])).bounds == (-180, -20, 180, -17)
    assert item["assets"]["embeddings"]["file:checksum"] == "1220" + done["sha256"]
    Path(done["stac"]).write_text("{}")
    assert "was not written" in run("export", "--store", uri, "-o", file, "--stac").error
    assert run("export", "--store", uri, "-o", tmp_path / "x.csv", "--stac").status == 2
    assert run("export", "--model", "m", "-o", tmp_path / "m", "--force").status == 2


def test_version_2_has_parquets_own_type(tmp_path: Path) -> None:
    uri, file = store_with(f"exact:{tmp_path / 'st'}", bbox=[1, 2, 3, 4]), tmp_path / "x.parquet"
    export = ("export", "--store", uri, "-o", file, "--geoparquet", "2.0")
    assert run(*export).status == 0
    with pq.ParquetFile(file) as parquet:
        place = parquet.schema.names.index("geometry")
        assert parquet.schema.column(place).logical_type.type == "GEOMETRY"
        assert parquet.schema_arrow.names == list(rows(uri)["s.tif#0"])
    geo = json.loads(metadata(file)[b"geo"])
    assert geo["version"] == "2.0.0"
    kinds = ["MultiPolygon", "Polygon"]
    column = {"encoding": "WKB", "geometry_types": kinds, "bbox": [177, -20, -179.5, -17]}
    assert geo["columns"] == {"geometry": column}
    other = f"exact:{tmp_path / 'other'}"
    assert run("import", file, "--store", other).status == 0
    assert rows(other) == rows(uri)
    # A store that has other geometries.
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch(["far"], geometry=footprints([shapely.Point(400, 1)]))])
    error = run("export", "--store", uri, "-o", tmp_path / "y.parquet", "--geoparquet", "2.0").error
    assert "not every geometry is in degrees; use version 1.1" in error
    assert not (tmp_path / "y.parquet").exists()
    csv = run("export", "--store", uri, "-o", tmp_path / "y.csv", "--geoparquet", "2.0").stderr
    assert "expected --geoparquet with a Parquet file" in csv


def test_it_is_read_where_the_type_is_registered(tmp_path: Path) -> None:
    """As by geoarrow, which turns the column into an extension type."""
    uri, file = store_with(f"exact:{tmp_path / 'st'}"), tmp_path / "x.parquet"
    run("export", "--store", uri, "-o", file, "--geoparquet", "2.0")
    native = GeoParquetColumn(None).schema(pq.read_schema(file)).field("geometry").type
    pa.register_extension_type(native)
    try:
        assert isinstance(pq.read_schema(file).field("geometry").type, pa.ExtensionType)
        other = f"exact:{tmp_path / 'other'}"
        assert run("import", file, "--store", other).status == 0
        assert rows(other) == rows(uri)
    finally:
        pa.unregister_extension_type("geoarrow.wkb")


class Wkb(pa.ExtensionType):  # type: ignore[misc]
    """WKB with a coordinate reference system, as other programs write it."""

    def __init__(self, crs: str) -> None:
        self.crs = crs
        super().__init__(pa.binary(), "geoarrow.wkb")

    def __arrow_ext_serialize__(self) -> bytes:
        return json.dumps({"crs": self.crs} if self.crs else {}).encode()


@pytest.mark.parametrize(
    ("crs", "shape"),
    [
        ("", shapely.Point(15, 50)),
        ("srid:4326", shapely.Point(15, 50)),
        ("EPSG:32633", shapely.Point(500_000, 5_538_630.7)),
        ("srid:32633", shapely.Point(500_000, 5_538_630.7)),
        ("projjson:mine", shapely.Point(500_000, 5_538_630.7)),
    ],
)
def test_native_geometries_of_others(crs: str, shape: Any, tmp_path: Path) -> None:
    """Parquet without GeoParquet's metadata, whose column has any name."""
    pyproj = pytest.importorskip("pyproj")
    place = pa.ExtensionArray.from_storage(Wkb(crs), footprints([shape]))
    table = pa.table({"id": ["a"], "embedding": [[1.0, 2.0]], "place": place})
    with pq.ParquetWriter(tmp_path / "x.parquet", table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"mine": pyproj.CRS("EPSG:32633").to_json()})
    uri = f"exact:{tmp_path / 'st'}"
    options = ("--model", "owner/name", "--vector-column", "embedding", "--id-column", "id")
    assert run("import", tmp_path / "x.parquet", "--store", uri, *options).status == 0
    row = rows(uri)["a"]
    assert (row["lon"], row["lat"]) == pytest.approx((15, 50), abs=1e-6)
    assert shapely.from_wkb(row["geometry"]).coords[0] == pytest.approx((15, 50), abs=1e-6)
    assert "place" not in row


def test_an_unknown_reference_system(tmp_path: Path) -> None:
    place = pa.ExtensionArray.from_storage(Wkb("EPSG:1"), footprints([shapely.Point(1, 2)]))
    table = pa.table({"id": ["a"], "embedding": [[1.0, 2.0]], "place": place})
    pq.write_table(table, tmp_path / "x.parquet")
    uri = f"exact:{tmp_path / 'st'}"
    options = ("--model", "owner/name", "--vector-column", "embedding", "--id-column", "id")
    error = run("import", tmp_path / "x.parquet", "--store", uri, *options).stderr
    assert "column 'place': expected a coordinate reference system that PROJ knows" in error
    assert error.endswith("; correct it, or map another column\n") and "--crs" not in error
