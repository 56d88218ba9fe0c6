"""STAC items whose bands are in assets of their own, read as one scene."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsicd_embed.errors import RequestError
from rsicd_embed.images import read_picture, read_rgb
from rsicd_embed.server import image_files
from rsicd_embed.server.engine import StoredFile

from ..helpers import rows, run
from .test_scenes import noise, tiles_of, write_scene
from .test_stac_sources import asset, item, opened, server, tree, write

__all__ = ["server", "tree"]  # fixtures

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("pystac")
# In affine, which rasterio calls.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

NAMES = {"B04": "red", "B03": "green", "B02": "blue"}
VALUES = noise(64, 96, kind="uint16")


def write_bands(folder: Path, values: Sequence[np.ndarray], **options: Any) -> Path:
    """An item with an asset for each band, and beside it a raster of all of them."""
    assets = {}
    for (name, common), band in zip(NAMES.items(), values, strict=True):
        write_scene(folder / f"{name}.tif", band, **options)
        bands = [{"name": name, "common_name": common}]
        assets[name] = asset(f"./{name}.tif", "data", **{"eo:bands": bands})
    write_scene(folder / "all.tif", np.concatenate(values, axis=2), **options)
    return write(folder / "item.json", item("s", {**assets, "all": asset("./all.tif")}))


def bands_of(values: np.ndarray) -> list[np.ndarray]:
    return [values[..., i : i + 1] for i in range(values.shape[2])]


@pytest.mark.parametrize("key", ["B04,B03,B02", "red,green,blue"])
def test_bands_in_several_files_are_one_scene(tmp_path: Path, key: str) -> None:
    masked = np.where(VALUES < 300, np.uint16(0), VALUES)
    path = write_bands(tmp_path, bands_of(masked), nodata=0)
    source = opened(path, key)
    whole = tiles_of(tmp_path / "all.tif", tile=32)
    assert len(source.examples) == len(whole.examples) == 6
    for example, other in zip(source.examples, whole.examples, strict=True):
        assert example.id == f"s/{key}#{other.attributes['window']}"
        found, expected = read_picture(example.file), read_picture(other.file)
        assert np.array_equal(np.asarray(found.image), np.asarray(expected.image))
        assert found.nodata == expected.nodata
        for name in ("lon", "lat", "gsd_m", "geometry", "crs"):
            assert example.attributes[name] == other.attributes[name]
    assert source.examples[0].attributes["bands"] == "B04,B03,B02"
    assert opened(path, "green").examples[0].attributes["asset"] == "green"


def test_into_a_store(tmp_path: Path, tiny_model: Path) -> None:
    path, uri = write_bands(tmp_path, bands_of(VALUES)), f"exact:{tmp_path / 'st'}"
    ingest = ("ingest", path, "--store", uri, "--model", tiny_model, "--tile", "32", "--json")
    options = ("--asset", "red,green,blue", "--prune")
    assert run(*ingest, *options).document["embedded"] == 6
    assert run(*ingest, *options).document["unchanged"] == 6
    address = rows(uri)["s/red,green,blue#0,0,32,32"]["uri"]
    heat = tmp_path / "heat.tif"
    assert run("find", "a port", address, "--model", tiny_model, "-o", heat).status == 0
    with rasterio.open(heat) as file, rasterio.open(tmp_path / "B04.tif") as band:
        assert (file.crs, file.transform[2], file.transform[5]) == (
            band.crs, band.transform[2], band.transform[5],
        )  # fmt: skip
    (tmp_path / "B04.tif").unlink()
    assert run(*ingest, *options).document["removed"] == 0  # not below the item's path


def test_coarser_bands_are_interpolated(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(96, dtype=np.uint16)[None, :, None] * 10, (64, 96, 1))
    path = write_bands(tmp_path, [ramp] * 3)
    with rasterio.open(tmp_path / "B03.tif") as file:
        coarse = file.transform @ rasterio.Affine.scale(2)
    write_scene(tmp_path / "B03.tif", ramp.reshape(64, 48, 2)[::2, :, :1] + 5, transform=coarse)
    shown = [np.asarray(read_picture(e.file).image) for e in opened(path, "B04,B03,B02").examples]
    for picture in shown:
        # Half a coarse pixel at the edge of the scene has no neighbour to interpolate with.
        assert np.abs(picture[..., 1].astype(int) - picture[..., 0])[:, 2:-2].max() <= 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crs": "EPSG:3857"}, "expected files in one coordinate reference system, found EPSG:3"),
        ({"values": noise(64, 64, 1)}, "expected files of one area, found others in"),
        ({"values": noise(64, 96, 3)}, "expected one band in each of several files, found 3 in"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = write_bands(tmp_path, bands_of(VALUES))
    write_scene(tmp_path / "B03.tif", **{"values": noise(64, 96, 1), **options})
    (skipped,) = opened(path, "B04,B03,B02").skipped
    assert skipped.reason.startswith(message)
    (tmp_path / "B03.tif").unlink()
    (skipped,) = opened(path, "B04,B03,B02").skipped
    assert skipped.reason == "cannot be read: No such file or directory"


def test_assets_that_are_not_there(tmp_path: Path) -> None:
    path = write_bands(tmp_path, bands_of(VALUES))
    (skipped,) = opened(path, "red,green,nir").skipped
    assert skipped.reason == "expected the asset 'nir', found B04, B03, B02, all"
    (skipped,) = opened(path, "red,green").skipped
    assert skipped.reason.startswith("expected one asset or three with commas, as red,green,blue")
    document = json.loads(path.read_text())
    document["assets"]["B4"] = document["assets"]["B04"]
    (skipped,) = opened(write(path, document), "red").skipped
    assert skipped.reason.endswith("; 2 of them have a band of that name")


def test_signed_bands_over_http(server: str, tree: Path) -> None:
    path = write_bands(tree.parent / "a", bands_of(VALUES))
    document = json.loads(path.read_text())
    for name in NAMES:
        document["assets"][name]["href"] = f"{server}/private/{name}.tif?se=1&sig=secret"
    source = opened(write(path, document), "red,green,blue")
    assert len(source.examples) == 6
    assert "secret" not in source.examples[0].uri
    whole = tiles_of(tree.parent / "a/all.tif", tile=32)
    expected = np.asarray(read_picture(whole.examples[0].file).image)
    picture = read_picture(source.examples[0].file).image
    assert np.array_equal(np.asarray(picture), expected)
    file = StoredFile(source.examples[0].uri, hashlib.sha256(picture.tobytes()).hexdigest())
    assert read_rgb(image_files.read(file, 1 << 10)).tobytes() == picture.tobytes()
    with pytest.raises(RequestError, match="hash is unknown"):
        image_files.read(StoredFile(file.uri, None), 1 << 10)
