"""What newcomers, broken disks and other people's files bring: never a traceback, nothing lost."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from safetensors.numpy import load_file, save_file

import rsicd_embed
from rsicd_embed.errors import ImageError, ModelError, WeightsError
from rsicd_embed.images import MAX_PIXELS, read_rgb

from .conftest import picture
from .helpers import SCHEMES, rows, run

load_embedder = rsicd_embed.load_embedder

pytestmark = pytest.mark.usefixtures("load_each_model_once")


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"exact:{tmp_path / 'store'}"


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    """A valid one-bit PNG of any size, some kilobytes long, without holding its pixels."""

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


# ------------------------------------------------------------------ pictures of every kind

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


# ------------------------------------------------------------------ broken pictures

JPEG = encoded(RGB, "JPEG")
BROKEN: dict[str, tuple[bytes, str]] = {
    "text.jpg": (b"this is a text, not a picture", "not a picture of a known format"),
    "zero.png": (b"", "empty file"),
    "cut.jpg": (JPEG[:-100], "broken picture: image file is truncated"),
    "cut.png": (encoded(RGB)[:200], "broken picture: "),
    "cut.tif": (encoded(RGB, "TIFF", compression="tiff_lzw")[:300], "broken picture: "),
    "head.jpg": (JPEG[:3], "not a picture of a known format"),
    "nulls.png": (bytes(1000), "not a picture of a known format"),
    "float.tif": (encoded(GREY.convert("F"), "TIFF"), "expected integer pixels, found floats"),
    "bomb.png": (png(30_000, 30_000), "expected at most 178,956,970 pixels"),
    "icon.png": (encoded(RGB, "ICO"), "not a picture of a known format"),
    "page.jpg": (b"<!DOCTYPE html><title>404 Not Found</title>", "not a picture"),
    "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
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
    told = {Path(one["uri"]).name: one["reason"] for one in outcome.document["skipped"]}
    assert told.keys() == expected.keys()
    for name, reason in expected.items():
        assert told[name].startswith(reason), name
        assert "\n" not in told[name]
    assert outcome.stderr.count("\n") == len(expected)
    again = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--json").document
    assert (again["embedded"], again["unchanged"]) == (0, 5)
    assert len(again["skipped"]) == len(expected)


def test_a_folder_of_nothing_but_broken_pictures(
    uri: str, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no")
    outcome = run("ingest", tmp_path, "--store", uri, "--model", tiny_model, "--json")
    assert (outcome.status, outcome.document["embedded"]) == (0, 0)
    assert len(outcome.document["skipped"]) == 1
    assert run("info", "--store", uri, "--json").document["rows"] == 0


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_no_query(name: str) -> None:
    data, reason = BROKEN[name]
    with pytest.raises(ImageError, match=reason):
        read_rgb(data)


def test_pictures_are_refused_by_pixels_not_by_pillows_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rsicd_embed.images.MAX_PIXELS", 40 * 36)
    assert read_rgb(encoded(RGB)).size == (40, 36)
    with pytest.raises(ImageError, match="expected at most 1,440 pixels, found 41×36"):
        read_rgb(encoded(RGB.resize((41, 36))))
    assert MAX_PIXELS == 178_956_970


def test_objects_that_are_no_pictures() -> None:
    for image, reason in [
        (Image.new("RGB", (0, 5)), "no pixels"),
        (Image.new("La", (5, 5)), "broken picture: conversion from La to L not supported"),
        (Image.new("F", (5, 5)), "expected integer pixels"),
    ]:
        with pytest.raises(ImageError, match=reason):
            read_rgb(image)
    for path, reason in [("/nowhere/a.png", "No such file"), ("nul\0.png", "null byte")]:
        with pytest.raises(ImageError, match=f"cannot be read: .*{reason}"):
            read_rgb(path)
    with pytest.raises(ImageError, match="Is a directory"):
        read_rgb(Path(__file__).parent)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of odd metadata, before it reads on
def test_damaged_files_are_read_or_refused(kind: str) -> None:
    """Whatever decoders trip over, it is told as an ImageError."""
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


# ------------------------------------------------------------------ names

NAMES = ["ülkü.png", "海港 🛰.png", "it's.png", 'a "b".png', "two\nlines.png", "a;b--.png", "%s.png"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_name_is_stored_found_and_pruned(scheme: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "folder"'
    folder.mkdir()
    uri = f"{scheme}:{tmp_path / 'störe'}"
    for number, name in enumerate(NAMES):
        picture(number).save(folder / name)
    ingest = ("ingest", folder, "--store", uri, "--model", tiny_model, "--json")
    assert run(*ingest).document["embedded"] == len(NAMES)
    for name in NAMES:
        quoted = name.replace("'", "''")
        search = ("search", "--image", folder / name, "--store", uri, "--json")
        (hit,) = run(*search, "--where", f"id = '{quoted}'").document["hits"]
        assert (hit["id"], hit["uri"]) == (name, str(folder / name))
        assert hit["score"] == pytest.approx(1, abs=1e-5)
    assert run(*ingest).document["unchanged"] == len(NAMES)
    for name in NAMES[1:]:
        (folder / name).unlink()
    assert run(*ingest, "--prune").document["removed"] == len(NAMES) - 1
    assert list(rows(uri)) == NAMES[:1]


def test_a_name_that_is_not_utf8_is_listed(uri: str, tiny_model: Path, pictures: Path) -> None:
    bad = os.fsencode(pictures) + b"/\xff.png"
    try:
        with open(bad, "wb") as file:  # noqa: PTH123
            file.write(encoded(RGB))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    outcome = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--json")
    assert outcome.document["embedded"] == 5
    assert outcome.document["skipped"] == [
        {"uri": f"{pictures}/\\xff.png", "reason": "expected a UTF-8 file name; rename it"}
    ]
    alone = run("ingest", os.fsdecode(bad), "--store", uri, "--model", tiny_model)
    assert alone.error.endswith("\\xff.png; rename it")
    strict = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--strict")
    assert strict.error == f"error: {pictures}/\\xff.png: expected a UTF-8 file name; rename it"


# ------------------------------------------------------------------ sources and stores


def test_sources_that_are_none(uri: str, tiny_model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("a")
    table = tmp_path / "m.csv"
    table.write_text("")
    for source, message in [
        (empty, "found nothing"),
        (texts, "found 1 other files"),
        (tmp_path / "absent", "found nothing at"),
        (table, "cannot be read as csv"),
    ]:
        error = run("ingest", source, "--store", uri, "--model", tiny_model, "--json").error
        assert message in error
        assert str(source) in error
    assert not (tmp_path / "store").exists()


def test_a_manifest_with_a_missing_file_lists_it(
    uri: str, tiny_model: Path, pictures: Path
) -> None:
    table = pictures / "m.jsonl"
    paths = ["a.png", "gone.png", "nul\0.png", "https://example.org/a.png"]
    table.write_text("".join(json.dumps({"path": path}) + "\n" for path in paths))
    outcome = run("ingest", table, "--store", uri, "--model", tiny_model, "--json")
    assert outcome.document["embedded"] == 1
    reasons = [one["reason"] for one in outcome.document["skipped"]]
    assert reasons == [
        "cannot be read: No such file or directory",
        "cannot be read: embedded null byte",
        "cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("tiles", "expected a store URI"),
        ("", "expected a store URI"),
        ("exact:", "expected a store URI"),
        (":tiles", "expected a store URI"),
        ("lancedb:", "expected a store URI"),
        ("lancedb:tiles#", "expected a store URI"),
        ("chroma:tiles", "no store 'chroma'"),
        ("exact:tiles#a", "exact stores have no tables"),
        ("nmslib:s3://bucket/tiles", "expected a local folder"),
        ("exact:a.png", "is a file"),
        ("nmslib:a.png", "is a file"),
        ("lancedb:a.png", "is a file"),
        ("exact:a.png/below", "is a file"),
    ],
)
def test_store_uris_that_are_none(
    store: str, message: str, tiny_model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    before = sorted(pictures.rglob("*"))
    assert message in run("ingest", pictures, "--store", store, "--model", tiny_model).error
    assert message in run("search", "port", "--store", store).error
    assert message in run("info", "--store", store).error
    assert sorted(pictures.rglob("*")) == before


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_absent_store_is_not_made_by_looking(scheme: str, tmp_path: Path) -> None:
    store = f"{scheme}:{tmp_path / 'absent'}"
    for arguments in (["search", "port"], ["info"]):
        error = run(*arguments, "--store", store).error
        assert error.startswith(f"error: no store at {store}")
        assert f"rsicd-embed ingest SOURCE --store {store}" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_empty_store_has_no_hits(scheme: str, tiny_model: Path, tmp_path: Path) -> None:
    store = f"{scheme}:{tmp_path / 'store'}"
    embedder = rsicd_embed.load_embedder(tiny_model)
    rsicd_embed.open_store(store, embedder=embedder).close()
    outcome = run("search", "port", "--store", store, "--json")
    assert (outcome.status, outcome.document["hits"]) == (0, [])
    assert run("info", "--store", store, "--json").document["rows"] == 0


@pytest.mark.filterwarnings("default:1 of 1 texts are longer")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_wrong_questions(scheme: str, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    store = f"{scheme}:{tmp_path / 'store'}"
    run("ingest", pictures, "--store", store, "--model", tiny_model)
    for where in ("colour = 'red'", "width >", "width = 'wide'", "1", "", "true; drop table x"):
        error = run("search", "port", "--store", store, "--where", where).error
        assert len(error) < 400, error
    image = run("search", "--image", tmp_path / "gone.png", "--store", store).error
    assert "gone.png" in image
    assert "No such file" in image
    all_of_them = run("search", "port", "--store", store, "-k", 10**9, "--json")
    assert len(all_of_them.document["hits"]) == 5
    for text in ("", " ", "x" * 10_000, "ü 🛰 \n"):
        assert len(run("search", text, "--store", store, "--json").document["hits"]) == 5


# ------------------------------------------------------------------ models


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be broken."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def weights(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], object]:
    def breaking(model: Path) -> None:
        tensors = load_file(model / "model.safetensors")
        change(tensors)
        save_file(tensors, model / "model.safetensors")

    return breaking


def content(name: str, text: str | bytes) -> Callable[[Path], object]:
    data = text.encode() if isinstance(text, str) else text
    return lambda model: (model / name).write_bytes(data)


def setting(name: str, **values: Any) -> Callable[[Path], object]:
    def breaking(model: Path) -> None:
        config = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps(config | values))

    return breaking


def without(name: str) -> Callable[[Path], object]:
    return lambda model: (model / name).unlink()


NAME = "text_model.final_layer_norm.bias"
BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing weight": (weights(lambda t: t.pop(NAME)), f"missing {NAME}"),
    "extra weight": (weights(lambda t: t.update(more=np.zeros(2, np.float32))), "unused more"),
    "misshapen weight": (
        weights(lambda t: t.update({NAME: np.zeros(3, np.float32)})), f"{NAME}: expected shape",
    ),
    "NaN weight": (weights(lambda t: t[NAME].__setitem__(0, np.nan)), f"{NAME}: NaN"),
    "no config": (without("config.json"), "expected config.json in"),
    "no weights": (without("model.safetensors"), "model.safetensors"),
    "no tokenizer": (without("tokenizer.json"), "expected tokenizer.json in"),
    "no preprocessor": (without("preprocessor_config.json"), "expected preprocessor_config.json"),
    "config of another model": (content("config.json", '{"model_type": "bert"}'), "found 'bert'"),
    "broken config": (content("config.json", "{"), "config.json is not JSON"),
    "config that is a list": (content("config.json", "[]"), "expected a JSON object, found list"),
    "config that is not text": (content("config.json", b"\xff\xfe"), "config.json is not JSON"),
    "broken preprocessor": (content("preprocessor_config.json", "{"), "is not JSON"),
    "crop of another size": (
        setting("preprocessor_config.json", crop_size=99), "expected pixels of 32×32",
    ),
    "broken weights": (content("model.safetensors", b"garbage"), "safetensors cannot be read"),
    "empty weights": (content("model.safetensors", b""), "safetensors cannot be read"),
    "broken tokenizer": (content("tokenizer.json", "{}"), "tokenizer.json is not a tokenizer"),
    "tokenizer of another model": (setting("config.json", text_config={}), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_model_that_is_broken_is_refused(name: str, model: Path) -> None:
    breaking, message = BREAKS[name]
    breaking(model)
    with pytest.raises(ModelError) as caught:
        load_embedder(model)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    if "weight" in name:
        assert isinstance(caught.value, WeightsError)


def test_a_tokenizer_with_more_words_than_the_model(model: Path) -> None:
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"].append(
        tokenizer["added_tokens"][0] | {"id": 4096, "content": "<more>"}
    )
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="vocabulary of 4096, found 4096; the tokenizer belongs"):
        load_embedder(model)


def test_a_broken_model_is_told_in_one_line_and_makes_no_store(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    without("config.json")(model)
    store = tmp_path / "store"
    error = run("ingest", pictures, "--store", f"exact:{store}", "--model", model).error
    assert error == f"error: expected config.json in {model}, found none"
    assert not store.exists()


def test_a_model_that_is_a_file_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_text("x")
    with pytest.raises(ModelError, match=r"found a file: .*model\.bin"):
        load_embedder(file)
    for name in ("a b", "no-slash", "/nowhere/at/all", "a/b/c", "../a"):
        with pytest.raises(ModelError, match="found no such directory"):
            load_embedder(name)
    with pytest.raises(ModelError, match="batch size ≥ 1, found 0"):
        load_embedder(file, batch_size=0)


def test_a_hub_id_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="no Hugging Face id"):
        load_embedder("some/bad--name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32@v1"):
        with pytest.raises(ModelError, match=f"^{name} is not a directory here, and") as caught:
            load_embedder(name)
        assert "cannot be reached" in str(caught.value)


def test_an_image_that_changes_while_it_is_read(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera or a download still writes to it: neither half a picture nor a wrong hash."""
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

    monkeypatch.setattr("rsicd_embed.images.os.fstat", grow)
    done = run("ingest", str(folder), "--store", uri, "--json").document
    assert done["embedded"] == 1
    assert [one["reason"] for one in done["skipped"]] == [
        "changed while it was read; try again when it is written"
    ]
    monkeypatch.undo()
    assert run("ingest", str(folder), "--store", uri, "--json").document["embedded"] == 1
