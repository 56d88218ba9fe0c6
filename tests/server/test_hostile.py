"""Malicious and invalid requests get a 4xx response with a one-line error."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import rsicd_embed
from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.server.schemas import LIMITS
from tests.conftest import picture
from tests.helpers import encoded

from .conftest import Archive


def refused(got: Any, status: int, words: str = "") -> None:
    """Checks an error response."""
    assert got.status_code == status, got.text
    (message,) = got.json().values()
    assert "\n" not in message
    assert words in message
    assert "/tmp" not in message


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """Creates a small file whose header states this size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


WHOLE = encoded(picture(1))
JPEG = encoded(picture(1), "JPEG")
IMAGES = {
    "bomb": (png_of(50_000, 50_000), 413),
    "large": (png_of(8_000, 8_000), 413),
    "empty": (b"", 422),
    "text": (b"hello", 415),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', 415),
    "html": (b"<!doctype html><script>alert(1)</script>", 415),
    "script in a gif": (b"GIF89a/*" + b"\0" * 30 + b"*/=1;alert(1)", 415),
    "truncated png": (WHOLE[: len(WHOLE) // 2], 422),
    "truncated jpeg": (JPEG[:-60], 422),
    "png and zip": (WHOLE + b"PK\x03\x04" + b"\0" * 40 + b"PK\x05\x06", 422),
    "jpeg and html": (JPEG + b"<script>alert(1)</script>", 422),
    "gif and js": (encoded(picture(1), "GIF") + b"alert(1)//", 422),
    "webp and php": (encoded(picture(1), "WEBP") + b"<?php system($_GET[0]);", 422),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    "icon": (encoded(picture(1), "ICO"), 415),
}


@pytest.mark.parametrize("name", IMAGES)
def test_hostile_images(client: Any, name: str) -> None:
    data, status = IMAGES[name]
    file = {"image": ("../../x.png", data, "image/png")}
    refused(client.post("/api/search/image", files=file), status)
    refused(client.post("/api/find", files=file, data={"text": "x"}), status)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_valid_images(client: Any, kind: str) -> None:
    data = encoded(picture(1), kind)
    for padded in (data, data + b"\0\0\n"):
        got = client.post("/api/search/image", files={"image": ("a", padded)})
        assert got.status_code == 200, got.text


def test_large_bodies_are_refused(client: Any) -> None:
    huge = "a" * 1_000_000
    refused(client.post("/api/search", json={"text": huge}), 413, "at most 65,536 bytes")
    refused(client.get("/api/search", params={"text": "a" * 2000}), 422, "at most 1000 characters")
    upload = {"image": ("a.png", b"\x89PNG" + b"\0" * LIMITS.upload_bytes)}
    refused(client.post("/api/search/image", files=upload), 413, "at most 20,971,520 bytes")
    form = {"text": huge, "id": "x"}
    refused(client.post("/api/find", data=form), 413, "at most 65,536 bytes")


def test_chunked_bodies_are_limited(client: Any) -> None:
    sent = 0

    def pieces() -> Any:
        nonlocal sent
        for _ in range(100):
            sent += 16_384
            yield b" " * 16_384

    got = client.post("/api/search", content=pieces(), headers={"content-type": "application/json"})
    refused(got, 413, "at most 65,536 bytes")


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"text": ""},
        {"text": "   "},
        {"text": 7},
        {"text": "a", "k": 0},
        {"text": "a", "k": 10**30},
        {"text": "a", "k": "many"},
        {"text": "a", "where": "1 = 1"},
        {"text": "a", "filters": {"label": "x"}},
        {"text": "a", "filters": [{"column": "label", "operator": "OR 1=1 --", "value": "x"}]},
        {"text": "a", "filters": [{"column": "vector", "value": 1}]},
        {"text": "a", "filters": [{"column": 'label" OR 1=1 --', "value": "x"}]},
        {"text": "a", "filters": [{"column": "year", "value": "2000 OR 1=1"}]},
        {"text": "a", "filters": [{"column": "year", "operator": "contains", "value": "2"}]},
        {"text": "a", "filters": [{"column": "cloudy", "value": "maybe"}]},
        {"text": "a", "filters": [{"column": "label", "value": None}]},
        {"text": "a", "filters": [{"column": "year", "value": 1}] * 17},
    ],
)
def test_invalid_searches(client: Any, query: dict[str, Any]) -> None:
    refused(client.post("/api/search", json=query), 422)


def test_invalid_json_and_text(client: Any) -> None:
    json_ = {"content-type": "application/json"}
    for body in (b"", b"{", b"\xff\xfe", b'{"text": "\\ud800"}', b"[" * 60_000, b'{"text": NaN}'):
        got = client.post("/api/search", content=body, headers=json_)
        assert got.status_code in (400, 422)
        refused(got, got.status_code)
    file = {"image": WHOLE}
    for filters in ("{", "[1]", "[" * 50_000, '[{"column": "label", "value": [1]}]'):
        got = client.post("/api/search/image", files=file, data={"filters": filters})
        refused(got, 422, "filters")


@pytest.mark.parametrize(
    "value", ["' OR '1'='1", "x'; DROP TABLE images; --", "\\", "%", "\0", "é木"]
)
def test_values_are_never_sql(client: Any, value: str) -> None:
    for operator in ("=", "contains", "starts with"):
        condition = {"column": "label", "operator": operator, "value": value}
        got = client.post("/api/search", json={"text": "a", "filters": [condition]})
        assert (got.status_code, got.json()["hits"]) == (200, []), got.text


def test_invalid_find_requests(client: Any, archive: Archive) -> None:
    both = {"text": "x", "id": archive.ids[0]}
    refused(client.post("/api/find", data=both, files={"image": WHOLE}), 422, "image or id")
    refused(client.post("/api/find", data={"text": "x"}), 422, "image or id")
    refused(client.post("/api/find", data=both | {"patch": "999"}), 422, "shorter side")
    refused(client.post("/api/find", data=both | {"patch": "1"}), 422, "at most 2,000 patches")
    refused(client.post("/api/find", data=both | {"overlap": "nan"}), 422)
    refused(client.post("/api/find", data={"text": "x", "id": "nowhere"}), 404, "nowhere")


PATHS = [
    "/etc/passwd",
    "../../etc/passwd",
    "%2e%2e%2fetc",
    "file:///etc/passwd",
    "sub",
    "\0",
    "x" * 4000,
]


@pytest.mark.parametrize("path", PATHS)
def test_client_paths_are_never_opened(client: Any, path: str) -> None:
    refused(client.get("/api/pictures", params={"id": path}), 404, "no row with the id")
    for url in (f"/static/{path}", f"/static/..%2f..%2f{path}", f"/api/pictures/{path}"):
        assert client.get(url.replace("\0", "%00")).status_code in (404, 405)


def rewritten(archive: Archive, changes: dict[str, dict[str, Any]]) -> None:
    """Changes the uri and sha256 of rows."""
    with rsicd_embed.open_store(archive.uri) as store:
        rows = store.scan().read_all()
        listed = [row | changes.get(row["id"], {}) for row in rows.to_pylist()]
        store.upsert(type(rows).from_pylist(listed, rows.schema).to_batches())


def test_rows_with_forbidden_paths(
    own_archive: Archive, serve: Callable[[Archive], Any], tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    picture(99).save(secret)
    link = tmp_path / "link.png"
    link.symlink_to(secret)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    unknown = {"sha256": None}
    odd = {
        "relative/a.png": "absolute path",
        f"{tmp_path}/x/../secret.png": "absolute path",
        secret.as_uri(): "not a file on this machine",
        "https://example.org/a.png": "not downloaded",
        "s3://bucket/a.png": "not downloaded",
        str(link): "path contains a link",
        str(pipe): "not a regular file",
        str(tmp_path): "not a regular file",
        str(tmp_path / "gone.png"): "gone",
        str(text): "cannot be shown",
        "/a\0b": "gone",
    }
    ids = own_archive.ids
    changes = {id_: unknown | {"uri": uri} for id_, uri in zip(ids, odd, strict=False)}
    changes[ids[-1]] = {"uri": str(secret)}  # with the hash of another file
    rewritten(own_archive, changes)
    client = serve(own_archive)
    for id_, words in zip(ids, [*odd.values(), "has changed since"], strict=True):
        refused(client.get("/api/pictures", params={"id": id_}), 404, words)
        refused(client.post("/api/find", data={"text": "x", "id": id_}), 404)
    rewritten(own_archive, {ids[0]: unknown | {"uri": str(secret)}})
    assert client.get("/api/pictures", params={"id": ids[0]}).status_code == 200


def test_replaced_files_are_not_served(
    own_archive: Archive, serve: Callable[[Archive], Any], tmp_path: Path
) -> None:
    client, id_ = serve(own_archive), own_archive.ids[1]
    path = own_archive.folder / id_
    secret = tmp_path / "secret.png"
    picture(99).save(secret)
    path.unlink()
    refused(client.get("/api/pictures", params={"id": id_}), 404, "gone")
    path.symlink_to(secret)
    refused(client.get("/api/pictures", params={"id": id_}), 404, "has changed since")


def test_unsupported_methods(client: Any) -> None:
    refused(client.delete("/api/search"), 405)
    refused(client.put("/readyz", json={}), 405)


def test_folders_are_not_revealed(client: Any, archive: Archive) -> None:
    assert str(archive.model.parent) not in client.get("/readyz").text
    text = json.dumps(client.get("/api/search", params={"text": "x", "k": 12}).json())
    assert str(archive.folder) not in text
    buffer = io.BytesIO(client.get("/api/pictures", params={"id": archive.ids[0]}).content)
    with Image.open(buffer) as shown:
        assert not shown.getexif()
    assert load_for_a_query(archive.model).name not in text
