"""Pictures of every kind: how they are read as RGB, and that they are ingested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from rsicd_embed.images import read_rgb

from .conftest import picture
from .helpers import encoded, rows, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")

RGB = picture(0)
GREY = RGB.convert("L")
ALPHA = Image.linear_gradient("L").resize(RGB.size)


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(ALPHA)
    return image


def grey16(kind: str) -> bytes:
    return encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) << 8), kind)


def animated() -> bytes:
    return encoded(
        RGB.quantize(), "GIF", save_all=True, append_images=[picture(5).quantize()], loop=0
    )


PICTURES: dict[str, tuple[bytes, Image.Image]] = {
    "grey.png": (encoded(GREY), GREY),
    "bits.png": (encoded(GREY.convert("1")), GREY.convert("1")),
    "palette.png": (encoded(RGB.quantize()), RGB.quantize()),
    "palette_transparency.png": (encoded(RGB.quantize(), transparency=0), RGB.quantize()),
    "palette_transparencies.png": (
        encoded(RGB.quantize(16), transparency=bytes(range(0, 256, 16))), RGB.quantize(16),
    ),
    "rgb_transparency.png": (encoded(RGB, transparency=(0, 0, 0)), RGB),
    "la.png": (encoded(with_alpha(GREY)), GREY),
    "rgba.png": (encoded(with_alpha(RGB)), RGB),
    "rgba.webp": (encoded(with_alpha(RGB), "WEBP", lossless=True, exact=True), RGB),
    "cmyk.tif": (encoded(RGB.convert("CMYK"), "TIFF"), RGB),
    "grey16.png": (grey16("PNG"), GREY),
    "grey16.tif": (grey16("TIFF"), GREY),
    "grey16.ppm": (grey16("PPM"), GREY),
    "int32.tif": (encoded(Image.fromarray(np.asarray(GREY).astype(np.int32) << 8), "TIFF"), GREY),
    "lzw.tif": (encoded(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "x.bmp": (encoded(RGB, "BMP"), RGB),
    "x.jp2": (encoded(RGB, "JPEG2000"), RGB),
    "animated.gif": (animated(), RGB.quantize()),
    "animated.png": (encoded(RGB, save_all=True, append_images=[picture(5)]), RGB),
    "dot.png": (encoded(RGB.crop((0, 0, 1, 1))), RGB.crop((0, 0, 1, 1))),
    "line.png": (encoded(RGB.resize((3000, 1))), RGB.resize((3000, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_is_read_as_rgb(name: str) -> None:
    data, expected = PICTURES[name]
    found = read_rgb(data)
    assert (found.mode, found.size) == ("RGB", expected.size)
    np.testing.assert_allclose(
        np.asarray(found, np.int16), np.asarray(expected.convert("RGB"), np.int16), atol=1
    )


def test_every_kind_of_picture_is_ingested(uri: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, (data, _) in PICTURES.items():
        (folder / name).write_bytes(data)
    (folder / "cmyk.jpg").write_bytes(encoded(RGB.convert("CMYK"), "JPEG", quality=95))
    (folder / "two.jpg").write_bytes(
        encoded(RGB, "MPO", save_all=True, append_images=[picture(5)], quality=95)
    )
    document = run("ingest", folder, "--store", uri, "--model", tiny_model, "--json").document
    assert (document["embedded"], document["skipped"]) == (len(PICTURES) + 2, [])
    stored = {id_: np.array(row["vector"]) for id_, row in rows(uri).items()}
    for same in ("rgba.png", "rgb_transparency.png", "lzw.tif", "x.bmp", "animated.png"):
        assert stored[same] @ stored["rgba.webp"] == pytest.approx(1, abs=1e-5), same
    for near in ("cmyk.jpg", "two.jpg", "cmyk.tif"):
        assert stored[near] @ stored["x.bmp"] > 0.99, near


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(
    uri: str, tiny_model: Path, tmp_path: Path, orientation: int
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    RGB.save(folder / "turned.png", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(folder / "turned.png"))
    upright.info.clear()
    Image.fromarray(np.asarray(upright)).save(folder / "upright.png")
    assert run("ingest", folder, "--store", uri, "--model", tiny_model).status == 0
    stored = rows(uri)
    turned, plain = stored["turned.png"], stored["upright.png"]
    assert (turned["width"], turned["height"]) == ((36, 40) if orientation > 4 else (40, 36))
    assert (turned["width"], turned["height"]) == (plain["width"], plain["height"])
    assert turned["vector"] == plain["vector"]
    assert turned["sha256"] != plain["sha256"]
