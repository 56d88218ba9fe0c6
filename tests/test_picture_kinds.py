"""Images of every kind are read as RGB and ingested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from rsicd_embed.errors import ImageError
from rsicd_embed.images import SUFFIXES, UNREAD_SUFFIXES, read_picture, read_rgb
from rsicd_embed.images.picture import has_plugin

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
    return encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), kind)


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
    "float.tif": (
        encoded(Image.fromarray(np.asarray(GREY, np.float32) / 255), "TIFF"), GREY
    ),
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
    image = read_rgb(data)
    assert (image.mode, image.size) == ("RGB", expected.size)
    np.testing.assert_allclose(
        np.asarray(image, np.int16), np.asarray(expected.convert("RGB"), np.int16), atol=1
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
def test_exif_orientation_is_applied(
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


def deep_ppm(values: np.ndarray, *, plain: bool) -> bytes:
    height, width = values.shape[:2]
    head = f"P{3 if plain else 6}\n# a comment\n{width} {height}\n65535\n".encode()
    body = " ".join(map(str, values.ravel())).encode() if plain else values.astype(">u2").tobytes()
    return head + body


@pytest.mark.parametrize("factor", [257, 16, 1])
def test_16_bit_colour_is_read_in_every_format(factor: int) -> None:
    """Full range, 12 bits, or byte-sized values; Pillow would keep only the high byte."""
    deep = np.asarray(RGB).astype(np.uint16) * factor
    alpha = np.dstack([deep, np.full(deep.shape[:2], 65_535, np.uint16)])
    for data in (
        imagecodecs.png_encode(deep),
        imagecodecs.png_encode(alpha),
        imagecodecs.jpeg2k_encode(deep, level=0),
        imagecodecs.jpeg2k_encode(deep, level=0, codecformat="jp2"),
        deep_ppm(deep, plain=False),
        deep_ppm(deep, plain=True),
    ):
        decoded = read_picture(data)
        difference = np.asarray(decoded.image, int) - np.asarray(RGB, int)
        assert np.abs(difference).max() <= 1
        assert decoded.stretch is not None
    with pytest.raises(ImageError, match="damaged image: image file is truncated"):
        read_rgb(deep_ppm(deep, plain=False)[:-9])


def test_exif_orientation_of_a_deep_png_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
    turned = np.asarray(read_rgb(encoded(deep, exif=exif)))[..., 0]
    assert np.array_equal(turned, np.rot90(np.asarray(GREY), -1))


def test_plugin_formats() -> None:
    """AVIF comes with Pillow; HEIC and JPEG XL name the extra that reads them."""
    if features.check("avif"):
        assert ".avif" in SUFFIXES
        pixels = np.asarray(read_rgb(encoded(RGB, "AVIF", quality=100)), float)
        assert np.abs(pixels - np.asarray(RGB, float)).mean() < 6
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50)
    for data, kind, suffix in [(heic, "HEIF", ".heic"), (b"\xff\n" + bytes(50), "JXL", ".jxl")]:
        if not has_plugin(kind):
            assert suffix in UNREAD_SUFFIXES
            with pytest.raises(ImageError, match=rf"{kind} needs a plug-in; pip install"):
                read_rgb(data)
        else:
            assert suffix in SUFFIXES
    assert not SUFFIXES & UNREAD_SUFFIXES
    assert {".mpo", ".jpf", ".jpx", ".tif"} <= SUFFIXES
    assert {".tga", ".psd", ".dng"} <= UNREAD_SUFFIXES


def test_tifffile_is_imported_only_for_tiffs(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    code = (
        "import sys; from rsicd_embed.images import read_rgb; read_rgb(sys.argv[1]); "
        "print([name for name in ('tifffile', 'imagecodecs') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
