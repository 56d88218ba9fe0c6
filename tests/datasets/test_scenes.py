"""Scenes as sources: windows, footprints, stretches, and scenes that cannot be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer

import rsicd_embed
from rsicd_embed import Tiling
from rsicd_embed.datasets.base import Source
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import DatasetError, ImageError, RequestError
from rsicd_embed.geography.footprints import Georeference, footprints
from rsicd_embed.images import SceneWindow, Stretch, read_picture, read_rgb
from rsicd_embed.server import image_files
from rsicd_embed.server.engine import StoredFile

from ..helpers import rows, run

rasterio = pytest.importorskip("rasterio")
# In affine, which rasterio calls.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

PLACES = {
    "EPSG:4326": (10.0, 50.0, 0.0001),
    "EPSG:32633": (500_000.0, 5_500_000.0, 10.0),
    "EPSG:32733": (300_000.0, 6_200_000.0, 10.0),
    "EPSG:3857": (-8_000_000.0, 5_000_000.0, 1.2),
    "EPSG:3413": (-200_000.0, -1_500_000.0, 30.0),
}
DATA = Path(__file__).parents[3] / "shared/data/geo/tiff"


def transform_of(crs: str) -> Any:
    left, top, side = PLACES[crs]
    return rasterio.Affine(side, 0, left, 0, -side, top)


def write_scene(
    path: Path, values: np.ndarray, crs: str | None = "EPSG:32633", **options: Any
) -> Path:
    """Writes (height, width, bands) as a GeoTIFF."""
    options = {"transform": transform_of(crs or "EPSG:32633"), **options}
    height, width, count = values.shape
    shape = {"height": height, "width": width, "count": count, "dtype": values.dtype}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, **shape, **options) as file:
        file.write(values.transpose(2, 0, 1))
    return path


def noise(height: int, width: int, bands: int = 3, kind: str = "uint8") -> np.ndarray:
    most = min(np.iinfo(kind).max, 4000) if kind.startswith("u") else 1
    return (np.random.default_rng(0).random((height, width, bands)) * most).astype(kind)


def tiles_of(path: Path, **options: Any) -> Source:
    return rsicd_embed.open_sources([path], tiling=Tiling(**options))[0]


@pytest.mark.parametrize("crs", PLACES)
def test_places_equal_rasterio_and_pyproj(tmp_path: Path, crs: str) -> None:
    path = write_scene(tmp_path / "s.tif", noise(96, 130), crs)
    to_degrees = Transformer.from_crs(crs, 4326, always_xy=True)
    source = tiles_of(path, tile=64, stride=40)
    assert [example.attributes["window"] for example in source.examples] == [
        f"{left},{top},64,64" for top in (0, 32) for left in (0, 40, 66)
    ]
    with rasterio.open(path) as scene:
        for example in source.examples:
            tile = example.attributes
            left, top, width, height = map(int, tile["window"].split(","))
            place = scene.xy(top + height / 2 - 0.5, left + width / 2 - 0.5)
            assert (tile["lon"], tile["lat"]) == pytest.approx(
                to_degrees.transform(*place), abs=1e-9
            )
            corners = [(top + height, left), (top + height, left + width), (top, left + width)]
            ring = [
                to_degrees.transform(*(scene.transform @ (column, row)))
                for row, column in [*corners, (top, left)]
            ]
            polygon = shapely.from_wkb(tile["geometry"])
            assert polygon.is_valid
            assert shapely.hausdorff_distance(polygon, shapely.Polygon(ring)) < 1e-9
            metres = Geod(ellps="WGS84").geometry_area_perimeter(polygon)[0] ** 0.5
            assert tile["gsd_m"] * 64 == pytest.approx(metres, rel=1e-3)
            assert (tile["crs"], tile["scene"]) == (crs, str(path))


def test_footprints_across_the_antimeridian_and_the_poles() -> None:
    fiji = Georeference("EPSG:32701", (10, 0, 0, 0, -10, 8_000_000))  # zone 1 begins at 180°
    tile = footprints(fiji, np.array([[16_000, 0, 18_500, 2500]]))
    polygon = shapely.from_wkb(tile.geometry[0].as_py())
    assert polygon.is_valid and polygon.geom_type == "MultiPolygon"
    west, _, east, _ = polygon.bounds
    assert (west, east) == (-180, 180) and polygon.area < 0.2
    arctic = Georeference("EPSG:3413", (1000, 0, -500_000, 0, -1000, 500_000))
    boxes = np.array([[400, 400, 600, 600], [500, 300, 700, 500]])
    around, beside = shapely.from_wkb(footprints(arctic, boxes).geometry.to_pylist())
    assert around.is_valid and around.covers(shapely.Point(0, 90))
    assert around.bounds[:3:2] == (-180, 180) and around.covers(shapely.Point(33, 89.2))
    assert beside.is_valid and not beside.covers(shapely.Point(-100, 89))
    to_degrees = Transformer.from_crs(3413, 4326, always_xy=True)
    for x, y in [(100_000, 100_000), (190_000, 10_000), (10_000, 190_000)]:
        assert beside.covers(shapely.Point(to_degrees.transform(x, y)))
    ten = footprints(Georeference("EPSG:4326", (1, 0, 190, 0, -1, 0)), np.array([[0, 0, 20, 10]]))
    assert ten.lon.to_pylist() == [-160]
    beyond = footprints(
        Georeference("EPSG:32633", (1e6, 0, 1e9, 0, -1, 0)), np.array([[0, 0, 1, 1]])
    )
    assert beyond.geometry.to_pylist() == [None]


def test_windows_are_the_scene_s_pixels(tmp_path: Path) -> None:
    values = noise(70, 90, 5)
    path = write_scene(tmp_path / "s.tif", values)
    for example in tiles_of(path, tile=32, bands=(4, 3, 2)).examples:
        left, top, width, height = map(int, example.attributes["window"].split(","))
        expected = values[top : top + height, left : left + width, [3, 2, 1]]
        assert np.array_equal(np.asarray(read_rgb(example.uri)), expected)
    (whole,) = tiles_of(path, bands=(1,)).examples
    assert (whole.id, read_rgb(whole.path).size) == ("s.tif", (90, 70))


def test_a_scene_has_one_stretch(tmp_path: Path) -> None:
    values = noise(64, 96, 3, "uint16")
    path = write_scene(tmp_path / "s.tif", values, nodata=0)
    low, high = np.percentile(values[(values > 0).any(axis=2)], (2, 98))
    examples = tiles_of(path, tile=32).examples
    assert {SceneWindow.parse(example.file).stretch for example in examples} == {Stretch(low, high)}
    expected = np.rint(255 * np.clip((values[:32, :32] - low) / (high - low), 0, 1))
    assert np.array_equal(np.asarray(read_rgb(examples[0].file)), expected)
    fixed = tiles_of(path, tile=32, stretch="0:3000").examples[0]
    expected = np.rint(255 * np.clip(values[:32, :32] / 3000, 0, 1))
    assert np.array_equal(np.asarray(read_rgb(fixed.file)), expected)


def test_sizes_in_metres_and_overviews(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "s.tif", noise(300, 300))  # 10 m
    tile = tiles_of(path, tile="500m", stride="1 km").examples[1]
    assert tile.attributes["window"] == "100,0,50,50" and read_rgb(tile.file).size == (50, 50)
    coarse = tiles_of(path, tile=64, gsd_m=40).examples[0]
    assert coarse.attributes["window"] == "0,0,256,256"
    assert read_rgb(coarse.file).size == (64, 64)
    with rasterio.open(path) as scene:
        window = rasterio.windows.Window(0, 0, 256, 256)
        method = rasterio.enums.Resampling.average
        expected = scene.read(window=window, out_shape=(3, 64, 64), resampling=method)
    assert np.array_equal(np.asarray(read_rgb(coarse.file)), expected.transpose(1, 2, 0))


def test_ingest_reads_back_and_leaves_out_nodata(
    tmp_path: Path, embedder: Embedder, tiny_model: Path
) -> None:
    values = noise(64, 96)
    values[:, :40] = 0
    path = write_scene(tmp_path / "s.tif", values, nodata=0)
    uri, options = f"lancedb:{tmp_path / 'st'}", ("--tile", "32", "--store")
    first = run("ingest", path, *options, uri, "--model", tiny_model, "--json").document
    assert (first["embedded"], first["blank"], first["skipped"]) == (4, 2, [])
    again = run("ingest", path, *options, uri, "--model", tiny_model, "--json").document
    assert (again["embedded"], again["unchanged"], again["blank"]) == (0, 4, 2)
    stored = rows(uri)
    assert stored["s.tif#32,0,32,32"]["nodata"] == 0.25
    line = run("search", "a port", "--store", uri, "--model", tiny_model).stdout.splitlines()[0]
    assert line.count("s.tif") == 2  # in the id and the uri, which repeat the columns
    assert " scene=" not in line
    assert " window=" not in line
    for row in stored.values():
        picture = read_rgb(row["uri"])
        assert row["sha256"] == hashlib.sha256(picture.tobytes()).hexdigest()
        file = StoredFile(row["uri"], row["sha256"])
        assert read_rgb(image_files.read(file, 1 << 20)).tobytes() == picture.tobytes()
        np.testing.assert_allclose(embedder.embed_images([row["uri"]])[0], row["vector"], atol=1e-5)
    write_scene(path, values[::-1].copy(), nodata=0)
    with pytest.raises(RequestError, match="changed"):
        image_files.read(file, 1 << 20)
    write_scene(path, values * (np.arange(96) < 64)[:, np.newaxis].astype(np.uint8), nodata=0)
    ingest = ("ingest", path, *options, uri, "--model", tiny_model, "--json")
    assert any("'s.tif#64,0,32,32'; the store still" in n for n in run(*ingest).document["notes"])
    assert (run(*ingest, "--prune").document["removed"], len(rows(uri))) == (2, 2)


def test_images_without_georeference(tmp_path: Path) -> None:
    from PIL import Image

    plain = tmp_path / "p.png"
    Image.fromarray(noise(64, 64)).save(plain)
    source = tiles_of(plain, tile=32)
    assert "not georeferenced" in source.notes[0] and len(source.examples) == 4
    assert source.examples[0].attributes.get("lon") is None
    world = tiles_of(plain, tile=32, bounds=(10, 50, 12, 52)).examples[0].attributes
    assert (world["lon"], world["lat"], world["crs"]) == (10.5, 51.5, "EPSG:4326")
    (tmp_path / "q.pgw").write_text("10\n0\n0\n-10\n500005\n5499995\n")
    plain = plain.rename(tmp_path / "q.png")
    world = tiles_of(plain, tile=32, crs="EPSG:32633").examples[0].attributes
    assert world["lon"] == pytest.approx(15 + 160 / 111_320 / np.cos(np.deg2rad(49.65)), abs=1e-5)
    assert "PROJ knows" in tiles_of(plain, tile=32, crs="EPSG:999999").notes[0]


BAD: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "small": (lambda p: write_scene(p, noise(20, 90)), {"tile": 32}, "at least one tile"),
    "bands": (lambda p: write_scene(p, noise(64, 64)), {"bands": (1, 2, 9)}, "1 to 3, found 9"),
    "complex": (
        lambda p: write_scene(p, np.ones((64, 64, 1), np.complex64)), {"tile": 32}, "real samples",
    ),
    "nodata": (
        lambda p: write_scene(p, np.zeros((64, 64, 3), np.uint16), nodata=0), {"tile": 32},
        "no pixel has data",
    ),
    "nan": (
        lambda p: write_scene(p, np.full((64, 64, 1), np.nan, np.float32)), {"tile": 32},
        "no pixel has data",
    ),
    "metres": (
        lambda p: write_scene(p, noise(64, 64), None), {"tile": "500m"}, "georeferenced",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("kind", BAD)
def test_scenes_that_are_skipped(tmp_path: Path, kind: str) -> None:
    create, options, reason = BAD[kind]
    bad = create(tmp_path / "bad.tif")
    good = write_scene(tmp_path / "good.tif", noise(1000, 1000))
    options = {"tile": 100, **options}
    sources = rsicd_embed.open_sources([bad, good], tiling=Tiling(**options))
    assert [skipped.uri for skipped in sources[0].skipped] == [str(bad)]
    assert reason in sources[0].skipped[0].reason
    assert kind == "bands" or len(sources[1].examples) > 3


def test_a_pipe_is_skipped(tmp_path: Path) -> None:
    """Opening it would block for ever."""
    os.mkfifo(tmp_path / "a.tif")
    write_scene(tmp_path / "b.tif", noise(64, 64))
    (source,) = rsicd_embed.open_sources([tmp_path], tiling=Tiling(32))
    assert [(Path(skip.uri).name, skip.reason) for skip in source.skipped] == [
        ("a.tif", "not a regular file")
    ]
    assert len(source.examples) == 4


def test_a_damaged_block_only_costs_its_tiles(tmp_path: Path) -> None:
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
    path = write_scene(tmp_path / "s.tif", noise(64, 64), **tiled)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60] = b"\0" * 60
    path.write_bytes(data)
    outcomes = []
    for example in tiles_of(path, tile=32).examples:
        try:
            outcomes.append(read_picture(example.file).image.size)
        except ImageError as error:
            outcomes.append(str(error)[:14])
    assert sorted(map(str, outcomes)) == ["(32, 32)"] * 3 + ["damaged image:"]


def test_rotated_scenes_and_floats(tmp_path: Path) -> None:
    values = noise(64, 64, 1, "float32")
    values[0, :5] = np.nan
    rotated = rasterio.Affine(8, 6, 5e5, 6, -8, 5.5e6)
    path = write_scene(tmp_path / "s.tif", values, transform=rotated)
    tile = tiles_of(path, tile=64).examples[0]
    assert read_picture(tile.file).nodata == pytest.approx(5 / 64 / 64)
    x, y = Transformer.from_crs(32633, 4326, always_xy=True).transform(*(rotated @ (32, 32)))
    assert (tile.attributes["lon"], tile.attributes["lat"]) == pytest.approx((x, y), abs=1e-9)
    assert tile.attributes["gsd_m"] == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"tile": "5 miles"}, {"stride": 3}, {"bands": (1, 2)}, {"stretch": "98,2"},
     {"stretch": "2,101"}, {"gsd_m": 0.0}, {"max_nodata": 2.0}, {"bounds": (1, 1, 0, 2)},
     {"tile": 0}],
)  # fmt: skip
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"^expected .*, found "):
        Tiling(**options)


@given(
    st.text(min_size=1), st.tuples(*[st.integers(0, 10**6)] * 4),
    st.sampled_from([(1,), (4, 3, 2)]),
    st.none() | st.tuples(*[st.integers(1, 999)] * 2),
    st.none() | st.tuples(*[st.floats(-1e9, 1e9).map(lambda x: float(f"{x:.9g}"))] * 2),
)  # fmt: skip
def test_addresses_round_trip(file: str, box: Any, bands: Any, size: Any, limits: Any) -> None:
    window = SceneWindow(file, box, bands, size, limits and Stretch(*limits))
    assert SceneWindow.parse(str(window)) == window
    assert SceneWindow.parse(file) is None or "#window=" in file


PALETTE = {n: (250 - 20 * n, 30 * n, 200, 255) for n in range(8)}
STRIPES = np.repeat(np.arange(8, dtype=np.uint8), 8)[:, np.newaxis, np.newaxis].repeat(64, axis=1)


@pytest.mark.parametrize(
    ("values", "options", "brightness"),
    [
        pytest.param(STRIPES // 4, {"nbits": 1, "photometric": "minisblack"}, 255, id="one bit"),
        pytest.param(
            STRIPES // 4, {"nbits": 1, "photometric": "miniswhite"}, -255, id="0 is white"
        ),
        pytest.param(STRIPES, {"nbits": 4}, 17, id="four bits"),
        pytest.param(STRIPES * 20, {"photometric": "miniswhite"}, -1, id="eight bits, 0 is white"),
    ],
)
def test_scenes_of_few_bits_are_as_bright_as_pictures(
    tmp_path: Path, values: np.ndarray, options: dict[str, Any], brightness: int
) -> None:
    path = write_scene(tmp_path / "s.tif", values, **options)
    (tile,) = tiles_of(path, tile=64).examples
    expected = values[..., 0].astype(int) * abs(brightness)
    shown = np.asarray(read_rgb(tile.file))
    assert np.array_equal(shown[..., 1], 255 - expected if brightness < 0 else expected)
    assert np.array_equal(shown, np.asarray(read_rgb(path)))


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("stretch", [None, "0,100", "0:1400"])
def test_deep_scenes_of_which_0_is_white_are_inverted(
    tmp_path: Path, kind: str, stretch: str | None
) -> None:
    values = STRIPES.astype(kind) * 200
    path = write_scene(tmp_path / "s.tif", values, photometric="miniswhite")
    (tile,) = tiles_of(path, tile=64, stretch=stretch).examples
    shown = np.asarray(read_rgb(tile.file))
    assert np.array_equal(shown[..., 0], np.rint(255 * (1 - STRIPES[..., 0] / 7)))
    with_picture = np.asarray(read_rgb(path)).astype(int)[..., 0]
    assert (np.diff(with_picture, axis=0) <= 0).all()


def test_colours_of_which_0_is_white_are_inverted(tmp_path: Path) -> None:
    values = noise(64, 64)
    path = write_scene(tmp_path / "s.tif", values, photometric="miniswhite")
    (tile,) = tiles_of(path, tile=64).examples
    assert np.array_equal(np.asarray(read_rgb(tile.file)), 255 - values)
    assert np.array_equal(np.asarray(read_rgb(path)), 255 - values)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_palettes_give_colours(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.tif"
    shape = {"height": 64, "width": 64, "count": 1, "dtype": kind, "photometric": "palette"}
    place = {"crs": "EPSG:32633", "transform": transform_of("EPSG:32633")}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as file:
        file.write_colormap(1, PALETTE)
        file.write(STRIPES.transpose(2, 0, 1).astype(kind))
    colours = np.array([PALETTE[n][:3] for n in range(8)], np.uint8)
    (whole,) = tiles_of(path, tile=64).examples
    assert np.array_equal(np.asarray(read_rgb(whole.file)), colours[STRIPES[..., 0]])
    for gsd_m in (20.0, 5.0):  # colours are not mixed when tiles are resampled
        (resampled,) = tiles_of(path, tile="640m", gsd_m=gsd_m).examples
        shown = np.asarray(read_rgb(resampled.file))
        assert len(shown) != 64
        assert {tuple(pixel) for pixel in shown.reshape(-1, 3)} == set(map(tuple, colours))
    (numbers,) = tiles_of(path, tile=64, stretch="0:7").examples  # as asked
    assert np.asarray(read_rgb(numbers.file))[-1, -1].tolist() == [255] * 3


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/geo")
def test_real_scenes(tmp_path: Path) -> None:
    paths = [DATA / name for name in ("RGB.byte.tif", "cog-utm21n.tif", "Boadella_2020-01-13.tif")]
    sources = rsicd_embed.open_sources(paths, tiling=Tiling(300))
    assert [len(source.examples) for source in sources] == [9, 81, 4]
    for source in sources:
        assert read_picture(source.examples[-1].file).image.size == (300, 300)
    eurosat = tiles_of(DATA / "EuroSAT-small", bands=(4, 3, 2), stretch="0:3000")
    assert {e.attributes["label"] for e in eurosat.examples} == {"AnnualCrop", "Forest"}
    assert all(-180 <= e.attributes["lon"] <= 180 for e in eurosat.examples)
