"""Broken, oversized and incomplete images are reported, and the others embedded."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from rsicd_embed.errors import ImageError
from rsicd_embed.images import MAX_PIXELS, read_header, read_rgb

from .conftest import picture
from .helpers import encoded, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")


def png(width: int, height: int) -> bytes:
    """A valid one-bit PNG of any size, a few kilobytes long, built without its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


RGB = picture(0)
JPEG = encoded(RGB, "JPEG")
BROKEN: dict[str, tuple[bytes, str]] = {
    "text.jpg": (b"this is a text, not a picture", "not an image of a known format"),
    "zero.png": (b"", "empty file"),
    "cut.jpg": (JPEG[:-100], "damaged image: image file is truncated"),
    "cut.png": (encoded(RGB)[:200], "damaged image: "),
    "cut.tif": (encoded(RGB, "TIFF", compression="tiff_lzw")[:300], "damaged image: "),
    "head.jpg": (JPEG[:3], "not an image of a known format"),
    "nulls.png": (bytes(1000), "not an image of a known format"),
    "bomb.png": (png(30_000, 30_000), "expected at most 178,956,970 pixels"),
    "icon.png": (encoded(RGB, "ICO"), "not an image of a known format"),
    "page.jpg": (b"<!DOCTYPE html><title>404 Not Found</title>", "not an image"),
    "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
}


def test_broken_pictures_are_listed_and_the_others_embedded(
    uri: str, tiny_model: Path, pictures: Path
) -> None:
    for name, (data, _) in BROKEN.items():
        (pictures / name).write_bytes(data)
    (pictures / "dangling.jpg").symlink_to(pictures / "nothing")
    (pictures / "circle.jpg").symlink_to("circle.jpg")
    (pictures / "folder.jpg").mkdir()
    os.mkfifo(pictures / "pipe.jpg")
    expected = {name: reason for name, (_, reason) in BROKEN.items()} | {
        "dangling.jpg": "cannot be read: No such file or directory",
        "circle.jpg": "cannot be read: Too many levels of symbolic links",
        "pipe.jpg": "not a regular file",
    }
    outcome = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--json")
    assert outcome.status == 0
    assert outcome.document["embedded"] == 5
    reasons = {
        Path(skipped["uri"]).name: skipped["reason"] for skipped in outcome.document["skipped"]
    }
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reasons[name].startswith(reason), name
        assert "\n" not in reasons[name]
    assert outcome.stderr.count("\n") == len(expected)
    again = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--json").document
    assert (again["embedded"], again["unchanged"]) == (0, 5)
    assert len(again["skipped"]) == len(expected)


def test_a_folder_of_only_broken_pictures(uri: str, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no")
    outcome = run("ingest", tmp_path, "--store", uri, "--model", tiny_model, "--json")
    assert (outcome.status, outcome.document["embedded"]) == (1, 0)
    assert len(outcome.document["skipped"]) == 1
    assert run("info", "--store", uri, "--json").document["rows"] == 0


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_refused_as_a_query(name: str) -> None:
    data, reason = BROKEN[name]
    with pytest.raises(ImageError, match=reason):
        read_rgb(data)


def test_the_pixel_limit_is_enforced_without_pillows_warning() -> None:
    assert read_rgb(encoded(RGB), max_pixels=40 * 36).size == (40, 36)
    deep = Image.fromarray(np.zeros((36, 41), np.uint16))
    for image, kinds in [(RGB.resize((41, 36)), ("PNG", "TIFF", "JPEG2000")), (deep, ("PNG",))]:
        for kind in kinds:
            with pytest.raises(ImageError, match="expected at most 1,440 pixels, found 41×36"):
                read_rgb(encoded(image, kind), max_pixels=40 * 36)
    assert MAX_PIXELS == 178_956_970


def test_other_objects_are_refused() -> None:
    for image, reason in [
        (Image.new("RGB", (0, 5)), "no pixels"),
        (Image.new("La", (5, 5)), "damaged image: conversion from La to L not supported"),
    ]:
        with pytest.raises(ImageError, match=reason):
            read_rgb(image)
    for path, reason in [("/nowhere/a.png", "No such file"), ("nul\0.png", "null byte")]:
        with pytest.raises(ImageError, match=f"cannot be read: .*{reason}"):
            read_rgb(path)
    if Path("/dev/zero").exists():  # it never ends
        with pytest.raises(ImageError, match="not a regular file"):
            read_rgb(Path("/dev/zero"))
    with pytest.raises(ImageError, match="Is a directory"):
        read_rgb(Path(__file__).parent)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # about odd metadata, before reading on
def test_damaged_files_are_read_or_refused(kind: str) -> None:
    """Any exception of a decoder becomes an ImageError."""
    rng = np.random.default_rng(0)
    source = np.frombuffer(encoded(RGB, kind), np.uint8)
    refused = 0
    for _ in range(60):
        data = source.copy()
        places = rng.integers(0, min(len(data), 400), rng.integers(1, 12))
        data[places] = rng.integers(0, 256, len(places), dtype=np.uint8)
        try:
            assert read_rgb(data.tobytes()).mode == "RGB"
        except ImageError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused


def test_large_texts_and_profiles_of_a_png_are_ignored() -> None:
    """They are not part of the image and are not decompressed."""
    text, bomb = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    text.add_itxt("comment", "a word " * 300_000, zip=True)
    text.add_text("more", "another " * 200_000, zip=True)
    bomb.add(b"zTXt", b"comment\0\0" + zlib.compress(bytes(1 << 27), 9))
    for options in ({"pnginfo": text}, {"pnginfo": bomb}, {"icc_profile": bytes(3_000_000)}):
        data = encoded(RGB, **options)
        with pytest.raises(ValueError, match="too large"):
            Image.open(io.BytesIO(data)).load()
        tracemalloc.start()
        try:
            assert np.array_equal(np.asarray(read_rgb(data)), np.asarray(RGB))
            assert read_header(data).width == RGB.width
            assert tracemalloc.get_traced_memory()[1] < 8_000_000
        finally:
            tracemalloc.stop()
        with pytest.raises(ImageError, match="damaged image: "):
            read_rgb(data[: -len(encoded(RGB)) // 2])


def test_an_image_that_changes_while_it_is_read(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file still being written gives neither half an image nor a wrong hash."""
    folder = tmp_path / "images"
    folder.mkdir()
    picture(0).save(folder / "still.png")
    picture(1).save(folder / "growing.png")
    fstat = os.fstat

    def grow(descriptor: int) -> os.stat_result:
        state = fstat(descriptor)
        if os.path.samestat(state, (folder / "growing.png").stat()):
            with (folder / "growing.png").open("ab") as file:
                file.write(b"more")
        return state

    monkeypatch.setattr("rsicd_embed.images.picture.os.fstat", grow)
    done = run("ingest", str(folder), "--store", uri, "--json").document
    assert done["embedded"] == 1
    assert [skipped["reason"] for skipped in done["skipped"]] == [
        "changed while it was read; try again once it is complete"
    ]
    monkeypatch.undo()
    assert run("ingest", str(folder), "--store", uri, "--json").document["embedded"] == 1
