"""Rows as JSON, CSV, GeoJSON and Parquet for other programs."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsicd_embed.errors import QueryError, StoreError
from rsicd_embed.query import table_files

ROWS = pa.table(
    {
        "query": pa.array([0, 0, 0], pa.int32()),
        "rank": pa.array([1, 2, 3], pa.int32()),
        "id": ["a.png", '=HYPERLINK("http://x")', "+1"],
        "score": pa.array([0.5, -0.25, float("nan")], pa.float32()),
        "lon": [10.5, None, 400.0],
        "lat": [-3.0, 4.0, 5.0],
        "label": ['say "hi", you', None, "@SUM(A1)\n-1"],
        "captions": [["a port"], [], None],
        "flag": [True, False, None],
        "at": [dt.datetime(2024, 5, 17), None, None],
    }
)


def written(kind: table_files.Format, rows: pa.Table = ROWS) -> bytes:
    file = io.BytesIO()
    table_files.write(rows.to_batches(max_chunksize=2), rows.schema, kind, file)
    return file.getvalue()


def test_csv_cannot_be_executed() -> None:
    head, *rows = csv.reader(io.StringIO(written("csv").decode(), newline=""))
    assert head == [name for name in ROWS.column_names if name != "query"]
    assert rows[0] == [
        "1", "a.png", "0.5", "10.5", "-3.0", 'say "hi", you', '["a port"]', "true",
        "2024-05-17 00:00:00",
    ]  # fmt: skip
    assert rows[1][1] == '\'=HYPERLINK("http://x")'
    assert rows[1][2] == "-0.25"  # a number, not a formula
    assert (rows[2][1], rows[2][5]) == ("'+1", "'@SUM(A1)\n-1")
    decimals = pa.table({"d": pa.array([Decimal("-3.10")])})
    assert written("csv", decimals) == b"d\r\n-3.10\r\n"
    hostile = pa.table({"=cmd": ["x"]})
    assert written("csv", hostile).startswith(b"'=cmd")


def test_geojson() -> None:
    document = json.loads(written("geojson"))
    assert document["type"] == "FeatureCollection"
    first, second, third = document["features"]
    assert first["geometry"] == {"type": "Point", "coordinates": [10.5, -3.0]}
    assert first["id"] == "a.png"
    assert first["properties"]["captions"] == ["a port"]
    assert set(first["properties"]).isdisjoint({"lon", "lat", "id", "query"})
    assert second["geometry"] is third["geometry"] is None
    with pytest.raises(QueryError, match="expected rows with coordinates"):
        written("geojson", ROWS.drop_columns(["lon"]))


def test_json_and_parquet(tmp_path: Path) -> None:
    rows = json.loads(written("json"))["rows"]
    assert [row["id"] for row in rows] == ROWS["id"].to_pylist()
    assert rows[2]["score"] is None
    assert table_files.save(ROWS.to_batches(), ROWS.schema, "parquet", tmp_path / "x.parquet") == 3
    read = pq.read_table(tmp_path / "x.parquet")
    assert read.column_names == ROWS.column_names[1:]
    names = [name for name in read.column_names if name != "score"]  # NaN equals nothing
    assert read.select(names).equals(ROWS.select(names))


@pytest.mark.parametrize("kind", table_files.FORMATS)
def test_no_rows(kind: table_files.Format) -> None:
    assert written(kind, ROWS.slice(0, 0))


def test_failed_writes_leave_the_file(tmp_path: Path) -> None:
    path = tmp_path / "hits.geojson"
    path.write_text("mine")
    with pytest.raises(QueryError):
        table_files.save([], pa.schema([("id", pa.string())]), "geojson", path)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(StoreError, match="No such file or directory; check the path, whose folder"):
        table_files.save(ROWS.to_batches(), ROWS.schema, "csv", tmp_path / "no" / "x.csv")


@pytest.mark.parametrize("kind", ["gpkg", "fgb"])
def test_features_keep_all_columns(kind: table_files.Format, tmp_path: Path) -> None:
    """GDAL crashes or mixes up columns whose names differ by case only."""
    pyogrio = pytest.importorskip("pyogrio")
    rows = pa.table(
        {
            "id": ["a"], "lon": [1.0], "lat": [2.0], "geometry": ["POINT (1 2)"],
            "Geometry": ["G"], "Name": ["N"], "name": ["n"], "name_2": ["n2"], "FID": ["F"],
            "fid": ["f"], "key": pa.array([b"abc"], pa.binary(3)),
            "late": pa.array([[10**18]], pa.list_(pa.timestamp("us"))),
        }
    )  # fmt: skip
    notes: list[str] = []
    file = tmp_path / f"x.{kind}"
    assert table_files.save(rows.to_batches(), rows.schema, kind, file, notes.append) == 1
    read = pyogrio.read_arrow(file)[1].to_pylist()[0]
    expected = {
        "id": "a", "lon": 1.0, "lat": 2.0, "geometry_2": "POINT (1 2)", "Geometry_3": "G",
        "Name": "N", "name_3": "n", "name_2": "n2", "FID": "F", "fid_2": "f", "key": b"abc",
    }  # fmt: skip
    assert {name: read[name] for name in expected} == expected
    assert len(notes) == 4 and notes[0].startswith("column 'geometry' is 'geometry_2' in the file")
    names = ROWS.column_names[2:]
    assert table_files.save(ROWS.to_batches(), ROWS.schema, "gpkg", tmp_path / "y.gpkg") == 3
    assert set(names) < set(pyogrio.read_arrow(tmp_path / "y.gpkg")[1].column_names)


@pytest.mark.parametrize("kind", ["gpkg", "fgb"])
@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_features_have_no_wrong_times(kind: table_files.Format, unit: str, tmp_path: Path) -> None:
    """GDAL writes times after the year 9999 as 1970."""
    pyogrio = pytest.importorskip("pyogrio")
    first, end, per_s = -62_135_596_800, 253_402_300_800, {"s": 1, "ms": 10**3, "us": 10**6}[unit]
    seconds = [first - 1, first, 0, end - 1, end, None]
    times = pa.array([s if s is None else s * per_s for s in seconds], pa.timestamp(unit, "UTC"))
    days = pa.array([s if s is None else s // 86_400 for s in seconds], pa.date32())
    place = {"lon": [1.0] * 6, "lat": [2.0] * 6}
    rows = pa.table({"id": list("abcdef"), "time": times, "day": days, **place})
    notes: list[str] = []
    file = tmp_path / f"x.{kind}"
    assert table_files.save(rows.to_batches(), rows.schema, kind, file, notes.append) == 6
    read = pyogrio.read_arrow(file)[1].sort_by("id")
    for name, step_s in (("time", 1), ("day", 86_400)):
        assert any(f"column '{name}': 2 times outside the years 1 to 9999" in n for n in notes)
        written = read[name].cast(pa.timestamp("ms")).cast(pa.int64()).to_pylist()
        kept = [s // step_s * step_s * 1000 for s in (first, 0, end - 1)]
        assert written == [None, *kept, None, None]


@pytest.mark.parametrize("kind", ["gpkg", "fgb"])
def test_features_have_whole_texts(kind: table_files.Format, tmp_path: Path) -> None:
    """GDAL ends texts at a NUL."""
    pyogrio = pytest.importorskip("pyogrio")
    texts = pa.array(["a\0b\0", None, "\0", ""])
    rows = pa.table({"id": list("abcd"), "lon": [1.0] * 4, "lat": [2.0] * 4, "note": texts})
    notes: list[str] = []
    file = tmp_path / f"x.{kind}"
    assert table_files.save(rows.to_batches(), rows.schema, kind, file, notes.append) == 4
    read = pyogrio.read_arrow(file)[1].sort_by("id")
    assert read["note"].to_pylist() == ["a\ufffdb\ufffd", None, "\ufffd", ""]
    (note,) = notes
    assert note.startswith("column 'note': 2 texts have the character NUL, which is U+FFFD")


def test_features_without_a_place_on_the_map(tmp_path: Path) -> None:
    """As in GeoJSON, NaN and numbers that are no degrees are no place."""
    pyogrio = pytest.importorskip("pyogrio")
    nan = float("nan")
    places = {"lon": [1, None, nan, 2, 181, 3], "lat": [2.0, 3.0, 4.0, nan, 5.0, -91.0]}
    rows = pa.table({"id": list("abcdef"), "lon": pa.array(places["lon"], pa.float64())})
    rows = rows.append_column("lat", pa.array(places["lat"], pa.float64()))
    table_files.save(rows.to_batches(), rows.schema, "gpkg", tmp_path / "x.gpkg")
    read = pyogrio.read_arrow(tmp_path / "x.gpkg")[1]
    assert [shape is not None for shape in read.columns[-1].to_pylist()] == [True] + [False] * 5
    with pytest.raises(QueryError, match="lon BETWEEN -180 AND 180 AND lat BETWEEN -90 AND 90"):
        table_files.save(rows.to_batches(), rows.schema, "fgb", tmp_path / "x.fgb")
