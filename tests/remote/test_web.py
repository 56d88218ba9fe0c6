"""Ingest from web servers: images, manifests, tars and Parquet files, with signed addresses."""

from __future__ import annotations

import base64
import gzip
import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import rsicd_embed
from rsicd_embed.errors import DatasetError, RemoteAccessError, RemoteError, RequestError
from rsicd_embed.images import read_rgb
from rsicd_embed.remote import RemoteUrl, fetch, fetch_range, head, public_address, transfer
from rsicd_embed.server import image_files
from rsicd_embed.server.engine import StoredFile
from rsicd_embed.testing.embedders import picture

from ..helpers import Counting, counts, encoded, rows
from .test_buckets import images, table_of, tar_of

_LOGIN = f"Basic {base64.b64encode(b'ann:p w').decode()}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    failures: Counter[str]
    requests: list[str]
    odd: dict[str, str]  # headers of all answers, instead of the right ones

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path, _, query = self.path.partition("?")
        self.requests.append(self.path)
        data = self.files.get(path)
        etag = f'"{hashlib.md5(data or b"").hexdigest()}"'
        status, headers = 200, {"ETag": etag}
        if self.failures[path] > 0:
            self.failures[path] -= 1
            status, data = 503, b""
        elif data is None:
            status, data = 404, b""
        elif path.startswith("/private/") and self.headers.get("Authorization") != _LOGIN:
            status, data = 401, b""
        elif path.startswith("/signed/") and "signature=ok" not in query:
            status, data = 403, b""
        elif self.headers.get("If-None-Match") == etag:
            status, data = 304, b""
        elif given := self.headers.get("Range"):
            first, last = map(int, given.removeprefix("bytes=").split("-"))
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            status, data = 206, data[first : last + 1]
        self.send_response(status)
        for name, value in (headers | self.odd).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[_Handler]]]:
    """The address of a server, and its handler with the served files."""
    pytest.importorskip("httpx")
    monkeypatch.setattr(transfer, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    transfer.client_of.cache_clear()
    handler = type(
        "Handler", (_Handler,), {"files": {}, "failures": Counter(), "requests": [], "odd": {}}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    host, port = server.server_address[:2]
    yield f"http://{host}:{port}", handler
    client = transfer.client_of("http", f"{host}:{port}")
    client._client.close()  # type: ignore[attr-defined]
    transfer.client_of.cache_clear()
    server.shutdown()
    thread.join()
    server.server_close()


def ingest(embedder: Counting, uri: str, *sources: str) -> tuple[int, ...]:
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        opened = rsicd_embed.open_sources(sources)
        return counts(rsicd_embed.ingest(opened, embedder, store))


def test_manifest(web: tuple[str, Any], embedder: Counting, uri: str, tmp_path: Path) -> None:
    address, handler = web
    handler.files |= {f"/d/{name}": data for name, data in images(1, 2, 3).items()}
    handler.files["/d/list.csv"] = b"path,year\n1.png,2020\n2.png,2021\n/d/3.png,2022\ngone.png,0\n"
    handler.failures["/d/2.png"] = 2
    url = f"{address}/d/list.csv"
    assert ingest(embedder, uri, url) == (3, 0, 0, 0, 1)
    assert rows(uri)["2.png"]["uri"] == f"{address}/d/2.png"
    assert rows(uri)["/d/3.png"]["year"] == 2022
    embedder.taken()
    assert ingest(embedder, uri, url) == (0, 0, 3, 0, 1)
    local = tmp_path / "list.csv"
    local.write_text(f"path\n{address}/d/1.png\nftp://h/x.png\n")
    assert ingest(embedder, f"{uri}2", str(local)) == (1, 0, 0, 0, 1)


@pytest.mark.parametrize("name", ["a.tar", "a.parquet", "1.png"])
def test_files(web: tuple[str, Any], embedder: Counting, uri: str, name: str) -> None:
    address, handler = web
    content = {"a.tar": tar_of, "a.parquet": table_of}.get(name, lambda files: files[name])
    handler.files[f"/x/{name}"] = content(images(1))
    assert ingest(embedder, uri, f"{address}/x/{name}") == (1, 0, 0, 0, 0)
    (row,) = rows(uri).values()
    assert read_rgb(row["uri"]).size == picture(1).size
    assert ingest(embedder, uri, f"{address}/x/{name}") == (0, 0, 1, 0, 0)


def test_signed_addresses(
    web: tuple[str, Any],
    embedder: Counting,
    uri: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address, handler = web
    handler.files["/signed/1.png"] = encoded(picture(1))
    handler.files["/signed/2.png"] = encoded(picture(2))
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"id,path\na,{address}/signed/1.png?signature=ok\n")
    with caplog.at_level(logging.INFO):
        assert ingest(embedder, uri, str(manifest)) == (1, 0, 0, 0, 0)
        wrong = f"{address}/signed/2.png?signature=hush-hush"
        with pytest.raises(DatasetError, match="denies access; a signed address") as caught:
            rsicd_embed.open_sources([wrong])
    assert "hush" not in str(caught.value) + caplog.text
    assert rows(uri)["a"]["uri"] == f"{address}/signed/1.png"
    store = Path(uri.removeprefix("exact:"))
    assert all(b"signature" not in p.read_bytes() for p in store.rglob("*") if p.is_file())


def test_folders_cannot_be_listed(web: tuple[str, Any]) -> None:
    with pytest.raises(DatasetError, match="web servers cannot be listed; give a manifest"):
        rsicd_embed.open_sources([f"{web[0]}/folder/"])


def test_pictures_on_the_search_page(web: tuple[str, Any], tmp_path: Path) -> None:
    address, handler = web
    data = encoded(picture(1))
    handler.files["/1.png"] = data
    handler.files["/a.tar"] = tar_of({"1.png": data})
    sha256 = hashlib.sha256(data).hexdigest()
    tar = tmp_path / "a.tar"
    tar.write_bytes(handler.files["/a.tar"])
    for uri in (
        f"{address}/1.png",
        f"{address}/a.tar#member=1.png&range=512,{len(data)}",
        f"{tar}#member=1.png&range=512,{len(data)}",
    ):
        assert image_files.read(StoredFile(uri, sha256), 10**6) == data
        for wrong, most, words in [
            ("0" * 64, 10**6, "has changed since"),
            (None, 10**6, "not downloaded"),
            (sha256, 10, "has more than 10 bytes|cannot be read"),
        ]:
            with pytest.raises(RequestError, match=words):
                image_files.read(StoredFile(uri, wrong), most)
    with pytest.raises(RequestError, match="no such file on the server"):
        image_files.read(StoredFile(f"{address}/gone.png", sha256), 10**6)


def test_busy_servers_are_asked_again(web: tuple[str, Any]) -> None:
    address, handler = web
    handler.files["/x"] = b"x"
    handler.failures["/x"] = 3
    content = fetch(f"{address}/x")
    assert content is not None
    assert (content.data, len(handler.requests)) == (b"x", 4)


def test_odd_answers(web: tuple[str, Any]) -> None:
    address, handler = web
    handler.files["/x"] = gzip.compress(b"0123456789")
    handler.odd = {"Content-Encoding": "gzip", "ETag": "", "Last-Modified": "yesterday"}
    content = fetch(f"{address}/x")
    assert content is not None
    assert (content.data, content.object.etag) == (b"0123456789", "")
    assert head(f"{address}/x").etag == ""
    with pytest.raises(RemoteError, match="another part of the file"):
        fetch_range(f"{address}/x", 2, 5)
    handler.files["/x"], handler.odd = b"0123456789", {}
    assert fetch_range(f"{address}/x", 2, 5).data == b"234"
    handler.odd = {"Content-Range": "bytes 0-2/10"}
    with pytest.raises(RemoteError, match="another part of the file"):
        fetch_range(f"{address}/x", 2, 5)


def test_passwords(web: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, handler = web
    handler.files["/private/x"] = b"x"
    url, file = f"{address}/private/x", tmp_path / ".netrc"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)

    def renew() -> None:
        parts = RemoteUrl.parse(url)
        transfer.client_of(parts.scheme, parts.container)._client.close()  # type: ignore[attr-defined]
        transfer.client_of.cache_clear()

    for text, remedy in (
        (None, "give it in"),
        ("machine example.org login ann password secret", "check that of its host"),
        ("machine 127.0.0.1 logn secret", "malformed at line 1"),
        (b"\xff", "cannot be read"),
    ):
        if text is not None:
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
            file.chmod(0o600)
        renew()
        for request in (fetch, head):
            with pytest.raises(
                RemoteAccessError, match=f"asks for a password; .*{remedy}"
            ) as error:
                request(url)
            assert "secret" not in str(error.value)
    file.write_text('machine 127.0.0.1 login ann password "p w"')
    renew()
    assert (head(url).size, fetch_range(url, 0, 1).data) == (1, b"x")
    # A password in the URL is used instead, and otherwise without a file.
    file.write_text("machine 127.0.0.1 login ann password wrong")
    renew()
    public = public_address(url.replace("//", "//ann:p%20w@"))
    content = fetch(public)
    assert content is not None
    assert (public, content.data) == (url, b"x")
