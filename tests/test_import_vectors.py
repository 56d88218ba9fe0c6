"""Import of other people's vectors."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rsicd_embed
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import DatasetError, FingerprintError, StoreError
from rsicd_embed.indexing import Summary
from rsicd_embed.indexing.foreign_files import VectorLayout
from rsicd_embed.indexing.import_vectors import PRESETS, import_vectors
from rsicd_embed.records import declared, require_same_model

from .helpers import SCHEMES, rows, run

pyproj = pytest.importorskip("pyproj")
shapely = pytest.importorskip("shapely")
VECTORS = np.random.default_rng(0).normal(size=(4, 8)) * 30
BOX = shapely.box(10, 50, 12, 51)
FLOAT, DEFAULT = pa.float32(), VectorLayout()


def write(path: Path, columns: dict[str, Any], **metadata: str) -> Path:
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def lists(vectors: Any, kind: pa.DataType = FLOAT, size: int = -1) -> pa.Array:
    return pa.array([None if v is None else list(v) for v in vectors], pa.list_(kind, size))


def load(path: Path, uri: str, layout: VectorLayout = DEFAULT, **options: Any) -> Summary:
    return import_vectors([path], uri, "someone/model", layout, **options)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("size", [-1, 8])
def test_vectors_are_normalised(scheme: str, kind: pa.DataType, size: int, tmp_path: Path) -> None:
    stored_as = VECTORS.astype(kind.to_pandas_dtype())
    columns = {"id": list("abcd"), "embedding": lists(stored_as, kind, size), "n": [1, 2, 3, 4]}
    uri = f"{scheme}:{tmp_path / 'st'}"
    summary = load(write(tmp_path / "v.parquet", columns), uri)
    norms = np.linalg.norm(stored_as.astype(float), axis=1)
    assert f"{norms.min():.4g} to {norms.max():.4g}" in summary.notes[0]
    assert (summary.imported, summary.skipped) == (4, [])
    stored = rows(uri)
    for i, id_ in enumerate("abcd"):
        expected = stored_as[i].astype(float) / norms[i]
        np.testing.assert_allclose(stored[id_]["vector"], expected, atol=1e-6)
        assert stored[id_]["n"] == i + 1
    with rsicd_embed.open_store(uri) as store:
        assert store.provenance == declared("someone/model", 8)
    assert load(tmp_path / "v.parquet", uri).imported == 4 and len(rows(uri)) == 4


@pytest.mark.parametrize("scheme", SCHEMES)
def test_columns_that_a_file_lacks_keep_their_values(scheme: str, tmp_path: Path) -> None:
    uri = f"{scheme}:{tmp_path / 'st'}"
    columns = {"id": list("ab"), "embedding": lists(VECTORS[:2]), "n": [1, 2]}
    load(write(tmp_path / "v.parquet", columns), uri)
    labels = pa.schema([("label", pa.string())])
    with rsicd_embed.open_store(uri) as store:
        store.rewrite_attributes(  # type: ignore[attr-defined]
            lambda batch: pa.record_batch([batch["id"]], labels), labels
        )
    columns = {"id": list("bc"), "embedding": lists(VECTORS[2:]), "n": [None, 3]}
    assert load(write(tmp_path / "v.parquet", columns), uri).imported == 2
    stored = rows(uri)
    assert [(id_, stored[id_]["label"], stored[id_]["n"]) for id_ in "abc"] == [
        ("a", "a", 1),
        ("b", "b", None),
        ("c", None, 3),
    ]
    np.testing.assert_allclose(
        stored["b"]["vector"], VECTORS[2] / np.linalg.norm(VECTORS[2]), atol=1e-6
    )


def test_rows_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    nan = [np.nan] * 8
    vectors = [VECTORS[0], VECTORS[1][:5], nan, np.zeros(8), None, VECTORS[2]]
    path = write(tmp_path / "v.parquet", {"id": list("abcdef"), "embedding": lists(vectors)})
    summary = load(path, f"exact:{tmp_path / 'st'}")
    assert summary.imported == 2
    assert [skipped.reason for skipped in summary.skipped] == [
        "row 2: expected a vector of length 8, found length 5",
        "row 3: the vector has NaN, infinite or too large values",
        "row 4: the vector is all zero",
        "row 5: expected a vector of length 8, found none",
    ]
    columns = {"id": [f"{i}" for i in range(40)], "embedding": lists([VECTORS[0], *[nan] * 39])}
    skipped = load(write(tmp_path / "w.parquet", columns), f"exact:{tmp_path / 'st'}").skipped
    assert len(skipped) == 11 and skipped[-1].reason.startswith("29 more: the vector has NaN")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset: str, tmp_path: Path) -> None:
    day = dt.datetime(2023, 1, 19, 16, 18, 11)
    files: dict[str, dict[str, Any]] = {
        "major-tom": {
            "unique_id": ["u"], "embedding": lists(VECTORS[:1], pa.float16()),
            "timestamp": ["20230119T161811"], "grid_row_u": pa.array([5], pa.int16()),
            "geometry": [BOX.wkb], "centre_lat": pa.array([50.5], pa.float32()),
            "centre_lon": pa.array([11], pa.float32()), "utm_crs": ["EPSG:32632"],
            "pixel_bbox": [[1, 2, 3, 4]],
        },
        "earth-embeddings": {
            "grid_cell": ["9U"], "product_id": ["u"], "embedding": lists(VECTORS[:1]),
            "timestamp": pa.array([day], pa.timestamp("ns")), "centre_lat": [50.5],
            "centre_lon": [11.0], "geometry_wkt": [BOX.wkt], "parquet_row": [3],
        },
        "clay": {
            "source_url": ["u"], "date": pa.array([day.date()]), "geometry": [BOX.wkb],
            "embeddings": lists(VECTORS[:1], size=8),
        },
    }  # fmt: skip
    path, uri = write(tmp_path / "v.parquet", files[preset]), f"lancedb:{tmp_path / 'st'}"
    layout = PRESETS[preset]
    assert load(path, uri, layout).imported == 1
    (row,) = rows(uri).values()
    assert row["id"] == {"earth-embeddings": "u/9U"}.get(preset, "u")
    assert (row["lon"], row["lat"]) == (11, 50.5)
    assert shapely.from_wkb(row["geometry"]).equals(BOX)
    when = day.replace(tzinfo=dt.UTC)
    assert row["datetime"] == (
        when if preset != "clay" else dt.datetime(2023, 1, 19, tzinfo=dt.UTC)
    )
    kept = {"major-tom": "grid_row_u", "earth-embeddings": "parquet_row", "clay": "uri"}
    assert row[kept[preset]] is not None


def test_geoparquet_of_another_reference_system(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[BOX], crs=4326).to_crs(32632)
    frame["embedding"] = [VECTORS[0].tolist()]
    frame.rename_geometry("shape").to_parquet(tmp_path / "v.parquet")
    uri = f"exact:{tmp_path / 'st'}"
    load(tmp_path / "v.parquet", uri)
    row = rows(uri)["a"]
    assert shapely.hausdorff_distance(shapely.from_wkb(row["geometry"]), BOX) < 1e-8
    assert row["lon"] == pytest.approx(11, abs=1e-3)


def test_wrong_files_and_models_are_refused(
    tmp_path: Path, embedder: Embedder, pictures: Path
) -> None:
    uri = f"exact:{tmp_path / 'st'}"
    path = write(tmp_path / "v.parquet", {"id": ["a"], "embedding": lists(VECTORS[:1])})
    with pytest.raises(DatasetError, match="expected a column 'x', found id, embedding; name"):
        load(path, uri, VectorLayout("x"))
    with pytest.raises(DatasetError, match="expected lists of floats in 'id', found string"):
        load(path, uri, VectorLayout("id"))
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        load(pictures / "a.png", uri)
    with pytest.raises(FingerprintError, match=f"of length {embedder.dim}, as of .*, found 8"):
        load(path, uri, embedder=embedder)
    noise = np.random.default_rng(1).normal(size=(1, embedder.dim))
    columns = {"id": ["a"], "uri": [str(pictures / "a.png")], "embedding": lists(noise)}
    other = write(tmp_path / "w.parquet", columns)
    with pytest.raises(FingerprintError, match="median cosine"):
        load(other, uri, embedder=embedder)
    columns["embedding"] = lists(7 * embedder.embed_images([pictures / "a.png"]))
    assert load(write(other, columns), uri, embedder=embedder).imported == 1
    with pytest.raises(StoreError, match="someone/model"):
        load(path, uri)
    with rsicd_embed.open_store(uri) as store, pytest.raises(FingerprintError):
        require_same_model(store.provenance, provenance(embedder), uri)


def test_search_by_text_in_a_declared_store(tmp_path: Path, tiny_model: Path) -> None:
    model = rsicd_embed.load_embedder(tiny_model, backend="numpy")
    columns = {"key": ["a", "b"], "emb": lists(3 * model.embed_texts(["a port", "a beach"]))}
    path, uri = write(tmp_path / "v.parquet", columns), f"nmslib:{tmp_path / 'st'}"
    command = ("import", path, "--store", uri, "--vector-column", "emb", "--id-column", "key")
    assert "expected --model" in run(*command).stderr
    done = run(*command, "--model", tiny_model, "--json")
    assert done.document["imported"] == 2
    hits = run("search", "a beach", "--store", uri, "--json").document["hits"]
    assert (hits[0]["id"], round(hits[0]["score"], 4)) == ("b", 1)


def test_rows_with_the_id_of_another_are_counted(tmp_path: Path) -> None:
    """Ids that are not unique lose rows, also between files."""
    paths = [
        write(tmp_path / f"{name}.parquet", {"id": list(ids), "embedding": lists(VECTORS[:3])})
        for name, ids in (("one", "aab"), ("two", "bcd"))
    ]
    uri = f"exact:{tmp_path / 'st'}"
    summary = import_vectors(paths, uri, "someone/model", VectorLayout())
    assert summary.imported == len(rows(uri)) == 4
    assert summary.notes[1].startswith("2 rows have the id of a later row, which is kept")
    assert len(import_vectors(paths[1:], uri, "someone/model", VectorLayout()).notes) == 1


def test_columns_are_mapped_as_told(tmp_path: Path) -> None:
    columns = {
        "key": ["a"], "embedding": lists(VECTORS[:1]), "uri": ["own"], "x": [1.5],
        "width": [0.25], "__index_level_0__": [7],
    }  # fmt: skip
    path, uri = write(tmp_path / "v.parquet", columns), f"exact:{tmp_path / 'st'}"
    mapped = {"uri": "key", "lon": "x", "also": "x"}
    summary = load(path, uri, VectorLayout(ids=("key",), columns=mapped))
    row = rows(uri)["a"]
    assert (row["uri"], row["lon"], row["also"], row["width"]) == ("a", 1.5, 1.5, None)
    assert "__index_level_0__" not in row
    assert "uri, width; to keep one, rename it with --map NEW=OLD" in summary.notes[1]
    with pytest.raises(DatasetError, match="--id-column and --vector-column name their columns"):
        load(path, uri, VectorLayout(ids=("key",), columns={"id": "x"}))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [b"\xff"]}, "column 'id': Invalid UTF8"),
        ({"id": [["a"]]}, "expected texts or numbers as ids in 'id', found list"),
        ({"lon": ["east"]}, "column 'lon': Failed to parse string: 'east'"),
        ({"geometry": [b"no WKB"]}, "column 'geometry': expected geometries as WKB or WKT"),
        ({"geometry": [{"x": 1.0}]}, "column 'geometry': expected geometries as WKB or WKT"),
        ({"datetime": [7]}, "column 'datetime': expected times"),
        ({"datetime": ["2020-02-30"]}, "column 'datetime': expected times"),
        ({"datetime": ["20200230T000000"]}, "column 'datetime': expected times"),
        ({"datetime": pa.array([2**52], pa.timestamp("s"))}, "column 'datetime': Casting"),
    ],
)
def test_values_that_do_not_fit(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "v.parquet", {"id": ["a"], "embedding": lists(VECTORS[:1])} | columns)
    with pytest.raises(DatasetError, match=f"v.parquet: {message}"):
        load(path, f"exact:{tmp_path / 'st'}")


def test_ids_that_are_uuids(tmp_path: Path) -> None:
    key = uuid.UUID("6e8d91c6-7845-43ec-9350-1d74a2da4d32")
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([key.bytes], pa.binary(16)))
    columns = {"id": ids, "embedding": lists(VECTORS[:1])}
    load(write(tmp_path / "v.parquet", columns), uri := f"exact:{tmp_path / 'st'}")
    assert list(rows(uri)) == [str(key)]


def test_metadata_of_other_versions_of_geoparquet(tmp_path: Path) -> None:
    shape = shapely.transform(BOX, lambda xy: xy * 1000)
    columns = {"id": ["a"], "embedding": lists(VECTORS[:1]), "geometry": [shape.wkb]}
    for geo in ("{", "[]", '{"columns": 1}'):
        with pytest.raises(DatasetError, match="expected the metadata of GeoParquet"):
            load(write(tmp_path / "v.parquet", columns, geo=geo), f"exact:{tmp_path / 'st'}")
    crs = pyproj.CRS.from_epsg(3857).to_wkt()  # a text until version 0.4
    geo = json.dumps({"primary_column": "geometry", "columns": {"geometry": {"crs": crs}}})
    load(write(tmp_path / "w.parquet", columns, geo=geo), uri := f"exact:{tmp_path / 'st'}")
    assert rows(uri)["a"]["lon"] == pytest.approx(11_000 / 111_319.49, rel=1e-4)


def test_footprints_beside_the_antimeridian(tmp_path: Path) -> None:
    """Those in UTM cross it without a jump, and longitudes may be counted from 0 to 360."""
    x, y = pyproj.Transformer.from_crs(4326, 32660, always_xy=True).transform(180, 10)
    utm = json.loads(pyproj.CRS.from_epsg(32660).to_json())
    geo = json.dumps({"primary_column": "geometry", "columns": {"geometry": {"crs": utm}}})
    shapes = [shapely.box(x - 5000, y - 5000, x + 5000, y + 5000), shapely.box(x, y, x + 9, y + 9)]
    columns = {"id": ["a", "b"], "embedding": lists(VECTORS[:2])}
    file = write(tmp_path / "v.parquet", columns | {"geometry": shapely.to_wkb(shapes)}, geo=geo)
    load(file, uri := f"exact:{tmp_path / 'st'}")
    both, east = rows(uri)["a"], rows(uri)["b"]
    parts = [part.bounds[::2] for part in shapely.from_wkb(both["geometry"]).geoms]
    assert sorted(part for pair in parts for part in pair) == pytest.approx(
        [-180, -179.954, 179.954, 180], abs=1e-3
    )
    assert abs(both["lon"]) == pytest.approx(180, abs=1e-3) and both["lat"] == pytest.approx(10)
    assert -180 <= east["lon"] < -179.99

    shapes = [shapely.box(179, 0, 181, 1), shapely.Point(200, 5), shapely.box(1, 0, 2, 1)]
    columns = {"id": list("abc"), "embedding": lists(VECTORS[:3])}
    for name, geometry in (
        ("wkb", shapely.to_wkb(shapes)),
        ("wkt", [shape.wkt for shape in shapes]),
    ):
        uri = f"exact:{tmp_path / name}"
        load(write(tmp_path / "w.parquet", columns | {"geometry": geometry}), uri)
        stored = {id_: shapely.from_wkb(row["geometry"]) for id_, row in rows(uri).items()}
        split = shapely.union_all([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])
        assert stored["a"].equals(split)
        assert (stored["b"], stored["c"]) == (shapely.Point(-160, 5), shapes[2])
        assert [rows(uri)[id_]["lon"] for id_ in "abc"] == [180, -160, 1.5]


def test_a_first_row_without_a_vector(tmp_path: Path) -> None:
    columns = {"id": ["a", "b"], "embedding": pa.array([[], VECTORS[0].tolist()])}
    summary = load(write(tmp_path / "v.parquet", columns), f"exact:{tmp_path / 'st'}")
    assert (summary.imported, len(summary.skipped)) == (1, 1)


def test_a_column_that_occurs_twice(tmp_path: Path) -> None:
    table = pa.table([["a"], lists(VECTORS[:1]), [1], [2]], ["id", "embedding", "x", "x"])
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(DatasetError, match="expected each column once, found 'x' twice"):
        load(tmp_path / "v.parquet", f"exact:{tmp_path / 'st'}")


def test_rows_without_an_id_or_with_too_large_values(tmp_path: Path) -> None:
    vectors = pa.array([[1.0] * 8, [3e38] * 8, [2.0] * 8], pa.list_(pa.float64()))
    path = write(tmp_path / "v.parquet", {"id": ["", "b", "c"], "embedding": vectors})
    summary = load(path, uri := f"exact:{tmp_path / 'st'}")
    assert [skipped.reason for skipped in summary.skipped] == [
        "row 1: no id",
        "row 2: the vector has NaN, infinite or too large values",
    ]
    assert list(rows(uri)) == ["c"]


def test_times_as_text(tmp_path: Path) -> None:
    texts = [
        "2023-01-19", "20230119T161811", "2023-01-19T16:18:11", "2023-01-19 16:18:11.1234567",
        "2023-01-19T16:18:11Z", "2023-01-19T16:18:11+02:00", "2023-01-19T16:18:11-0200", None,
    ]  # fmt: skip
    ids = [str(i) for i in range(len(texts))]
    columns = {"id": ids, "embedding": lists([VECTORS[0]] * len(ids)), "datetime": texts}
    load(write(tmp_path / "v.parquet", columns), uri := f"exact:{tmp_path / 'st'}")
    time = dt.datetime(2023, 1, 19, 16, 18, 11, tzinfo=dt.UTC)
    hours = dt.timedelta(hours=2)
    assert [rows(uri)[id_]["datetime"] for id_ in ids] == [
        dt.datetime(2023, 1, 19, tzinfo=dt.UTC), time, time, time.replace(microsecond=123_456),
        time, time - hours, time + hours, None,
    ]  # fmt: skip


def test_the_centre_of_a_footprint_on_both_sides_of_the_antimeridian(tmp_path: Path) -> None:
    halves = shapely.MultiPolygon([shapely.box(178, 0, 180, 2), shapely.box(-180, 0, -177, 2)])
    shapes = [halves, shapely.box(-170, 0, 170, 2), shapely.Polygon(), None]
    ids = [str(i) for i in range(len(shapes))]
    wkb = [None if shape is None else shape.wkb for shape in shapes]
    columns = {"id": ids, "embedding": lists([VECTORS[0]] * len(ids)), "geometry": wkb}
    load(write(tmp_path / "v.parquet", columns), uri := f"exact:{tmp_path / 'st'}")
    places = [(row["lon"], row["lat"]) for row in (rows(uri)[id_] for id_ in ids)]
    assert places[0] == pytest.approx((-179.5, 1.0))
    assert places[1:] == [(0.0, 1.0), (None, None), (None, None)]
    with rsicd_embed.open_store(uri) as store:
        where = "st_x(st_centroid(geometry)) < -179 AND st_y(st_centroid(geometry)) = 1"
        assert store.scan(["id"], where).read_all()["id"].to_pylist() == ["0"]
