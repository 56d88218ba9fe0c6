"""TIFFs of every layout: correct pixels, or a precise reason for skipping."""

from __future__ import annotations

import io
import itertools
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from rsicd_embed.errors import ImageError, RequestError
from rsicd_embed.images import read_header, read_picture, read_rgb
from rsicd_embed.server import image_files

from .conftest import picture
from .helpers import encoded, rows, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")

RGB = np.asarray(picture(0).resize((80, 48)))
GREY = np.asarray(picture(0).resize((80, 48)).convert("L"))


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    options = {"photometric": "rgb" if values.ndim == 3 else "minisblack", **options}
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def with_tag(data: bytes, code: int, value: int) -> bytes:
    """A little-endian TIFF with the inline value of a tag changed."""
    changed = bytearray(data)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, place)[0] == code:
            struct.pack_into("<HII", changed, place + 2, 4, 1, value)
    return bytes(changed)


def expect(data: bytes, wanted: np.ndarray, tolerance: int = 0) -> None:
    pixels = np.asarray(read_rgb(data), np.int16)
    wanted = wanted if wanted.ndim == 3 else np.repeat(wanted[..., np.newaxis], 3, axis=2)
    assert pixels.shape == wanted.shape
    assert np.abs(pixels - wanted.astype(np.int16)).max() <= tolerance


LOSSLESS = [None, "lzw", "deflate", "packbits", "zstd"]
CONTAINERS: list[dict[str, Any]] = [
    {},
    {"bigtiff": True},
    {"tile": (32, 16)},
    {"rowsperstrip": 7},
]


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("order", "<>")
def test_bytes_keep_their_values_in_every_container(order: str, compression: str | None) -> None:
    for options, planar, predictor in itertools.product(
        CONTAINERS, ["contig", "separate"], [False, True]
    ):
        if predictor and compression in (None, "packbits"):
            continue
        layout = {**options, "byteorder": order, "compression": compression}
        if predictor:
            layout["predictor"] = True
        stored = RGB if planar == "contig" else np.moveaxis(RGB, 2, 0)
        data = tiff(stored, planarconfig=planar, **layout)
        expect(data, RGB)
        assert np.array_equal(tifffile.imread(io.BytesIO(data)), stored)  # the second reader
        if planar == "contig":
            expect(tiff(GREY, **layout), GREY)
            expect(tiff(GREY, **layout | {"photometric": "miniswhite"}), 255 - GREY)


SAMPLES = {
    "uint16": (lambda v: v.astype(np.uint16) * 257, RGB),
    "uint16 of 12 bits": (lambda v: np.rint(v / 255 * 4095).astype(np.uint16), RGB),
    "uint16 of 8 bits": (lambda v: v.astype(np.uint16), RGB),
    "uint32": (lambda v: v.astype(np.uint32) * 16_843_009, RGB),
    "uint64": (lambda v: v.astype(np.uint64) * 72_340_172_838_076_673, RGB),
    "int16": (lambda v: np.rint(v / 255 * 32_767).astype(np.int16), RGB),
    "int32": (lambda v: np.rint(v / 255 * (2**31 - 1)).astype(np.int32), RGB),
    "float16": (lambda v: (v / 255).astype(np.float16), RGB),
    "float32": (lambda v: (v / 255).astype(np.float32), RGB),
    "float64": (lambda v: v / 255, RGB),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_deep_samples_that_fill_their_range_give_the_same_image(name: str) -> None:
    """Except for the 0.1 % of samples clipped at each end."""
    convert, wanted = SAMPLES[name]
    values = convert(RGB)
    for order, options in itertools.product("<>", [{}, {"compression": "lzw"}, {"tile": (16, 16)}]):
        for planar in ("contig", "separate"):
            stored = values if planar == "contig" else np.moveaxis(values, 2, 0)
            data = tiff(stored, byteorder=order, planarconfig=planar, **options)
            pixels = np.asarray(read_rgb(data), np.int16)
            assert np.abs(pixels - wanted).max() <= 1
            assert read_picture(data).stretch is not None


@pytest.mark.parametrize(
    "kind", ["int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
)
@pytest.mark.parametrize(("low", "width"), [(0, 100), (20, 9), (-90, 160), (-100, 20)])
def test_contrast_is_preserved(kind: str, low: int, width: int) -> None:
    """For any part of the type's range that the image uses."""
    if kind.startswith("u") and low < 0:
        low += 3000
    ramp = np.linspace(low, low + width, 4096).reshape(64, 64).astype(kind)
    for photometric, sign in (("minisblack", 1), ("miniswhite", -1)):
        brightness = np.asarray(read_rgb(tiff(ramp, photometric=photometric)).convert("L"), float)
        assert np.ptp(brightness) >= 30
        assert np.corrcoef(brightness.ravel(), ramp.ravel().astype(float))[0, 1] * sign > 0.99


def test_unusual_bit_depths() -> None:
    for bits in (2, 3, 4, 5, 6, 7, 9, 10, 12, 14):
        values = (GREY.astype(np.uint32) * (2**bits - 1) // 255).astype("u1" if bits < 9 else "u2")
        data = tiff(values, bitspersample=bits)
        expect(data, np.rint(values / (2**bits - 1) * 255), 1)
    ink = GREY > 128
    for compression, photometric in itertools.product(
        [None, "ccitt_t4", "ccitt_t6", "ccitt_rle"], ["minisblack", "miniswhite"]
    ):
        wanted = np.where(ink == (photometric == "minisblack"), 255, 0)
        if compression is None:
            expect(tiff(ink, photometric=photometric), wanted)
        else:
            name = {"ccitt_t4": "group3", "ccitt_t6": "group4", "ccitt_rle": "tiff_ccitt"}
            data = encoded(Image.fromarray(ink), "TIFF", compression=name[compression])
            expect(data, np.where(ink, 255, 0))


def test_bands() -> None:
    """The first three or those that GDAL names; grey with fewer; alpha is excluded."""
    deep = RGB.astype(np.uint16) * 257
    blind = np.full((*GREY.shape, 1), 7, np.uint16)
    many = np.concatenate([deep, *[blind] * 10], axis=2)
    for values, options in [
        (many[..., :4], {"photometric": "minisblack", "extrasamples": [0] * 3}),
        (many, {"photometric": "minisblack", "extrasamples": [0] * 12}),
        (many, {"photometric": "rgb", "extrasamples": [0] * 10}),
        (many[..., :3], {"photometric": "minisblack", "extrasamples": [0] * 2}),
        (many[..., :4], {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    ]:
        expect(tiff(values, planarconfig="contig", **options), RGB, 1)
    two = np.stack([GREY, RGB[..., 0]], axis=2)
    for kind in ("unassalpha", "unspecified"):
        options = {"photometric": "minisblack", "extrasamples": [kind], "planarconfig": "contig"}
        expect(tiff(two, **options), GREY)
    names = "".join(
        f'<Item name="COLORINTERP" sample="{band}" role="colorinterp">{colour}</Item>'
        for band, colour in enumerate(["Undefined", "Blue", "Green", "Red"])
    )
    blue_first = np.concatenate([blind.astype(np.uint8), RGB[..., ::-1]], axis=2)
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [0] * 3}
    metadata = [(42112, "s", 0, f"<GDALMetadata>{names}</GDALMetadata>", True)]
    expect(tiff(blue_first, **options, extratags=metadata), RGB)
    expect(tiff(blue_first, **options), blue_first[..., :3])


def test_colours() -> None:
    palette = np.arange(768).reshape(3, 256).astype(np.uint16) * 85
    wanted = (palette >> 8).T[GREY]
    expect(tiff(GREY, photometric="palette", colormap=palette), wanted)
    expect(tiff(GREY, photometric="palette", colormap=palette >> 8), wanted)  # as some writers do
    image = Image.fromarray(RGB)
    cmyk = np.asarray(image.convert("CMYK"))
    expect(tiff(cmyk, photometric="separated"), RGB, 1)
    expect(tiff(cmyk.astype(np.uint16) * 257, photometric="separated"), RGB, 1)
    ycbcr = np.asarray(image.convert("YCbCr"))
    full = [(530, "H", 2, (1, 1), True)]
    expect(with_tag(tiff(ycbcr, extratags=full), 262, 6), RGB, 3)
    to_lab = ImageCms.buildTransform(*map(ImageCms.createProfile, ("sRGB", "LAB")), "RGB", "LAB")
    lab = ImageCms.applyTransform(image, to_lab)
    values = np.frombuffer(lab.tobytes(), np.uint8).reshape(RGB.shape)
    expect(with_tag(tiff(values), 262, 8), np.asarray(lab.convert("RGB")), 1)
    data = tiff(np.moveaxis(RGB, 2, 0), compression="jpeg", planarconfig="separate")
    expect(data, np.moveaxis(tifffile.imread(io.BytesIO(data)), 0, 2))
    for photometric, values in (("rgb", RGB), ("ycbcr", ycbcr)):
        data = tiff(values, compression="jpeg", photometric=photometric)
        expect(data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), 4)


def test_nodata_and_masks_are_excluded() -> None:
    """They become black, and the rest is scaled without them."""
    scene = np.linspace(3000, 5000, 64 * 64).reshape(64, 64)
    for kind, nodata in [("uint16", 0), ("int16", -9999), ("float32", -3.4e38), ("float64", "nan")]:
        values = scene.astype(kind)
        values[:16] = float(nodata)
        tag = [] if nodata == "nan" else [(42113, "s", 0, str(nodata), True)]
        grey = np.asarray(read_rgb(tiff(values, extratags=tag)))[..., 0]
        assert not grey[:16].any()
        alone = np.asarray(read_rgb(tiff(scene[16:].astype(kind))))[..., 0]
        assert np.array_equal(grey[16:], alone)
        assert np.ptp(alone) >= 40
    covered = np.where(np.arange(64)[:, np.newaxis] < 16, 65_535, scene).astype(np.uint16)
    opaque = np.where(covered < 65_535, 65_535, 0).astype(np.uint16)
    with_alpha = np.stack([covered, opaque], axis=2)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:  # as GDAL writes an internal mask
        writer.write(covered, photometric="minisblack", metadata=None)
        writer.write(opaque > 0, photometric=4, subfiletype=4, metadata=None)
    options = {"photometric": "minisblack", "extrasamples": ["unassalpha"]}
    for data in (tiff(with_alpha, planarconfig="contig", **options), file.getvalue()):
        grey = np.asarray(read_rgb(data))[..., 0]
        assert not grey[:16].any()
        expected = np.asarray(read_rgb(tiff(scene[16:].astype(np.uint16))))[..., 0]
        assert np.array_equal(grey[16:], expected)


def test_a_few_extreme_samples_do_not_hide_the_rest() -> None:
    scene = np.linspace(300, 3000, 64 * 64).reshape(64, 64).astype(np.uint16)
    plain = np.asarray(read_rgb(tiff(scene)))
    scene[0, 0], scene[0, 1] = 65_535, 0
    assert np.abs(np.asarray(read_rgb(tiff(scene)), int) - plain)[1:].max() == 0


def test_the_main_page_is_read() -> None:
    small, thumbnail = RGB[::2, ::2], RGB[::4, ::4]
    for first, second, wanted in [
        ((RGB, 0), (small, 1), RGB),  # overviews follow
        ((thumbnail, 1), (RGB, 0), RGB),  # a thumbnail leads
        ((RGB, 2), (small, 2), RGB),  # pages of a document
    ]:
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as writer:
            for values, kind in (first, second):
                writer.write(values, photometric="rgb", subfiletype=kind, metadata=None)
        expect(file.getvalue(), wanted)
        assert read_header(file.getvalue()).width == wanted.shape[1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    data = tiff(RGB, extratags=[(274, "H", 1, orientation, True)])
    upright = Image.open(io.BytesIO(data))
    upright.load()
    expect(data, np.asarray(upright.convert("RGB")))


@pytest.mark.parametrize("codec", ["webp", "lerc", "jpeg2000", "zstd"])
def test_compressions_of_cloud_optimised_files(codec: str) -> None:
    options: dict[str, Any] = {"compression": codec, "tile": (32, 32)}
    if codec == "webp":
        options["compressionargs"] = {"lossless": True}
    expect(tiff(RGB, **options), RGB, 1 if codec == "webp" else 0)
    if codec in ("lerc", "zstd"):
        expect(tiff((RGB / 255).astype(np.float32), **options), RGB, 1)
    if codec == "lerc":  # GDAL may compress LERC's output again
        blob = imagecodecs.lerc_encode(RGB)
        for number, wrap in ((1, imagecodecs.zlib_encode), (2, imagecodecs.zstd_encode)):
            file = io.BytesIO()
            tifffile.imwrite(
                file, iter([wrap(blob)]), shape=RGB.shape, dtype=RGB.dtype, photometric="rgb",
                compression="lerc", metadata=None, rowsperstrip=len(RGB),
            )  # fmt: skip
            plain, wrapped = struct.pack("<II", 4, 0), struct.pack("<II", 4, number)
            expect(file.getvalue().replace(plain, wrapped, 1), RGB)


REFUSED = {
    "compression": (with_tag(tiff(RGB), 259, 34_677),
                    "TIFF compression SGI LogLuv 24 is not supported"),
    "jxl": (with_tag(tiff(RGB), 259, 50_002), "TIFF compression JPEG XL is not supported"),
    "unknown": (with_tag(tiff(RGB), 259, 9999), "TIFF compression number 9999 is not supported"),
    "photometric": (with_tag(tiff(RGB), 262, 32_803), "TIFF colours of a colour filter array"),
    "complex": (tiff(GREY.astype(np.complex64)),
                "TIFF samples of complex numbers are not supported"),
    "subsampled": (with_tag(tiff(RGB), 262, 6), r"TIFF colours .* \(subsampled YCbCr\)"),
    "inks": (
        tiff(np.dstack([RGB, GREY]), photometric="separated", extratags=[(332, "H", 1, 2, True)]),
        "TIFF inks other than CMYK",
    ),
    "wide": (with_tag(tiff(RGB), 256, 2**31), "expected at most 178,956,970 pixels"),
    "empty": (with_tag(tiff(RGB), 257, 0), "no pixels"),
    "bands": (
        with_tag(with_tag(tiff(RGB), 277, 60_000), 256, 10_000),
        "expected at most .* bytes of pixels",
    ),
    "tiles": (with_tag(tiff(RGB, tile=(16, 16)), 322, 2**21), "TIFF tiles of .* pixels"),
    "strips": (with_tag(tiff(RGB, rowsperstrip=8), 278, 1), "expected 48 TIFF segments, found 6"),
    "cut": (tiff(RGB, compression="lzw")[:-2000], "damaged image: "),
    "loop": (b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0" + bytes(20), "no pixels"),
    "nowhere": (b"II*\0\xff\xff\xff\x7f" + bytes(20), "the TIFF's directory is cut off"),
    "nodata": (tiff(GREY * np.float32("nan")), "no pixel has data: all are nodata"),
    "none": (b"II*\0\0\0\0\0" + bytes(20), "no directory of pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_layouts_are_explained(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(ImageError, match=reason):
        read_rgb(data)


def test_hostile_files_are_refused_within_bounded_memory() -> None:
    """Small files that announce too much in tags, segments or directories."""
    zeros = imagecodecs.zlib_encode(bytes(1 << 25))
    bomb = io.BytesIO()
    tifffile.imwrite(
        bomb, iter([zeros]), shape=(16, 16), dtype="u1", compression="zlib", metadata=None,
        photometric="minisblack", rowsperstrip=16,
    )  # fmt: skip
    large = imagecodecs.webp_encode(np.zeros((2000, 2000, 3), np.uint8))
    webp = io.BytesIO()
    tifffile.imwrite(
        webp, iter([large]), shape=(16, 16, 3), dtype="u1", compression="webp", metadata=None,
        photometric="rgb", rowsperstrip=16,
    )  # fmt: skip
    many = struct.pack("<H", 4000) + b"".join(
        struct.pack("<HHII", 40_000 + i, 4, 12_000, 8) for i in range(4000)
    )
    for data, reason in [
        (bomb.getvalue(), "damaged image: .*INSUFFICIENT_SPACE"),
        (webp.getvalue(), "a TIFF segment announces another size"),
        (b"II*\0\x08\0\0\0" + many + bytes(4), "its TIFF tags overlap"),
    ]:
        tracemalloc.start()
        try:
            with pytest.raises(ImageError, match=reason):
                read_rgb(data)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 8_000_000, reason


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_refused_silently(
    seed: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(seed)
    sources = [
        tiff(RGB, compression="lzw", predictor=True),
        tiff(RGB.astype(np.uint16), tile=(16, 16), compression="zstd"),
        tiff(RGB, compression="jpeg"),
        encoded(Image.fromarray(GREY > 128), "TIFF", compression="group4"),
        tiff(RGB, compression="lerc"),
    ]
    for source in sources:
        for _ in range(40):
            data = np.frombuffer(source, np.uint8).copy()
            places = rng.integers(0, len(data), rng.integers(1, 12))
            if rng.random() < 0.5:  # in the directory, where damage matters most
                places %= 300
            data[places] = rng.integers(0, 256, len(places), dtype=np.uint8)
            try:
                assert read_rgb(data.tobytes()).mode == "RGB"
            except ImageError as error:
                assert "\n" not in str(error)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_uploads_go_through_the_same_reader_within_their_limit() -> None:
    deep = np.concatenate([RGB.astype(np.uint16) * 257] * 4, axis=2)
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [0] * 11}
    data = tiff(deep, rowsperstrip=8, **options)
    assert np.array_equal(np.asarray(image_files.decode(data, 48 * 80)), RGB)
    for hostile, limit, status in [
        (data, 48 * 80 - 1, 413),
        (with_tag(data, 256, 2**31), 10**6, 413),
        (with_tag(data, 277, 60_000), 48 * 80, 422),
        (data[:4] + bytes(500), 48 * 80, 415),
        (tiff(RGB)[:5000], 48 * 80, 422),
    ]:
        with pytest.raises(RequestError) as caught:
            image_files.decode(hostile, limit)
        assert caught.value.status == status


def test_the_summary_counts_stretched_images(uri: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "8.tif").write_bytes(tiff(RGB))
    (folder / "16.tif").write_bytes(tiff(RGB.astype(np.uint16) * 257))
    (folder / "float.tif").write_bytes(tiff((RGB / 255).astype(np.float32)))
    outcome = run("ingest", folder, "--store", uri, "--model", tiny_model, "--json")
    assert (outcome.document["embedded"], outcome.document["stretched"]) == (3, 2)
    assert "percentile" in outcome.document["stretch_rule"]
    assert "images scaled to 8 bits: 2; 0 to 255 is" in outcome.stderr
    vectors = {name: np.array(row["vector"]) for name, row in rows(uri).items()}
    for name in ("16.tif", "float.tif"):
        assert vectors[name] @ vectors["8.tif"] > 0.999
