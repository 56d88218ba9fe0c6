"""Heat maps of georeferenced images as GeoTIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsicd_embed.find.heat_raster import PicturePlace

from ..conftest import picture
from ..datasets.test_scenes import noise, write_scene
from ..helpers import run

rasterio = pytest.importorskip("rasterio")
# In affine, which rasterio calls.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


def test_a_map_lies_on_its_image(tmp_path: Path, tiny_model: Path) -> None:
    scene, heat = write_scene(tmp_path / "s.tif", noise(300, 600)), tmp_path / "new" / "heat.tif"
    find = ("find", "a port", scene, "--model", tiny_model, "--patch", "100", "-o", heat)
    assert [run(*find).status for _ in range(2)] == [0, 0]  # an earlier map is replaced
    with rasterio.open(scene) as image, rasterio.open(heat) as file:
        assert (file.crs, file.bounds) == (image.crs, image.bounds)
        assert (file.width, file.height, file.dtypes) == (256, 128, ("float32",))
        assert file.descriptions == ("probability: a port",)
        values = file.read(1)
    assert 0 <= values.min() < values.max() <= 1


def test_the_place_of_a_resampled_window(tmp_path: Path) -> None:
    rotated = rasterio.Affine(8, 6, 5e5, 6, -8, 5.5e6)
    scene = write_scene(tmp_path / "s.tif", noise(80, 90), transform=rotated)
    place = PicturePlace.of(f"{scene}#window=10,20,40,20&size=20,10&bands=1,2,3")
    assert place.size == (20, 10)
    for corner in [(0, 0), (20, 0), (20, 10), (7, 3)]:
        expected = rotated @ (10 + 2 * corner[0], 20 + 2 * corner[1])
        np.testing.assert_allclose(place.transform @ corner, expected)
        np.testing.assert_allclose(place.scaled(5, 5) @ (corner[0] / 4, corner[1] / 2), expected)


def test_other_files_stay(tmp_path: Path, tiny_model: Path) -> None:
    scene, other = write_scene(tmp_path / "s.tif", noise(64, 64)), tmp_path / "o.tif"
    write_scene(other, noise(64, 64))
    before = other.read_bytes()
    find = ("find", "a port", scene, "--model", tiny_model, "-o", other)
    assert "exists and was not written by rsicd-embed" in run(*find).error
    assert other.read_bytes() == before
    plain = tmp_path / "p.png"
    picture(1, (64, 64)).save(plain)
    find = ("find", "a port", plain, "--model", tiny_model, "-o", tmp_path / "h.tif")
    assert run(*find).error.endswith("found one without coordinates; use .png")
    assert run("find", "a port", tmp_path / "no.tif", "-o", tmp_path / "h.tif").status == 1
