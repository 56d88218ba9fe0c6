"""Heat maps of georeferenced images as GeoTIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsicd_embed.find.finding import Finding
from rsicd_embed.find.heat_raster import PicturePlace, save_geotiff
from rsicd_embed.images import read_picture

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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["tif", "jpg"])
def test_the_map_of_a_turned_image_lies_on_its_file(
    tmp_path: Path, orientation: int, kind: str
) -> None:
    image = Image.new("RGB", (60, 40))
    image.paste((255, 255, 255), (0, 0, 20, 20))  # the upper left as stored
    path, heat = tmp_path / f"s.{kind}", tmp_path / "heat.tif"
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    stored = read_picture(path)
    assert stored.orientation == orientation
    bright = np.asarray(stored.image.convert("L"), np.float32)
    columns, rows = np.meshgrid(*(np.arange(0, side, 20) for side in stored.image.size))
    boxes = np.stack([columns, rows, columns + 20, rows + 20], axis=-1).reshape(-1, 4)
    scores = np.array([bright[t:b, l:r].mean() / 255 for l, t, r, b in boxes])  # noqa: E741
    finding = Finding(stored.image.size, ("light",), 100.0, boxes, scores, np.ones(len(boxes)))
    place = PicturePlace((60, 40), "EPSG:32633", rasterio.Affine(10, 0, 5e5, 0, -10, 5e6))
    save_geotiff(finding, place, heat, orientation=stored.orientation)
    with rasterio.open(heat) as file:
        assert file.bounds == (5e5, 5e6 - 400, 5e5 + 600, 5e6)
        values = file.read(1)
    assert values.shape == (40, 60)
    assert values[:20, :20].min() > 0.9 > 0.1 > values[:, 20:].max()
    assert values[20:].max() < 0.1


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
