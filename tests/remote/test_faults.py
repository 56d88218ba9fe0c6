"""Servers that fail, credentials that expire, objects that change: one line, and nothing lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import rsicd_embed
from rsicd_embed.datasets import remote_sources
from rsicd_embed.datasets.sources import open_source
from rsicd_embed.errors import DatasetError, RemoteAccessError, RemoteError
from rsicd_embed.indexing import Summary
from rsicd_embed.remote import fetch, fetch_range, object_client, remote_url, transfer
from rsicd_embed.remote.byte_budget import ByteBudget, Reservation
from rsicd_embed.testing.embedders import picture

from ..helpers import Counting, encoded, rows, run
from .faulty_s3 import SECRET, FaultyS3, error, failing_first


def images(count: int) -> dict[str, bytes]:
    return {f"{number:02}.png": encoded(picture(number)) for number in range(count)}


def ingest(embedder: Counting, uri: str, source: str) -> Summary:
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        return rsicd_embed.ingest(rsicd_embed.open_sources([source]), embedder, store)


@pytest.mark.parametrize("status", ["503 Slow Down", "500 Internal Server Error"])
def test_failed_requests_are_repeated(
    s3: FaultyS3, bucket: str, embedder: Counting, uri: str, status: str
) -> None:
    s3.put(bucket, images(6))
    s3.fault = failing_first(2, status)
    summary = ingest(embedder, uri, f"s3://{bucket}")
    assert (summary.embedded, summary.skipped) == (6, [])


def test_broken_connections_are_repeated(
    s3: FaultyS3, bucket: str, embedder: Counting, uri: str
) -> None:
    s3.put(bucket, images(4))
    broken: set[str] = set()

    def fault(method: str, path: str, start: Callable[..., Any]) -> Iterable[bytes] | None:
        if method != "GET" or not path.endswith(".png") or path in broken:
            return None
        broken.add(path)
        headers = {"ETag": '"x"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
        start("200 OK", [("Content-Length", "100000"), *headers.items()])
        return [b"half an image"]

    s3.fault = fault
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        source = rsicd_embed.open_sources([f"s3://{bucket}"])
        summary = rsicd_embed.ingest(source, embedder, store)
    assert broken
    assert (summary.embedded + len(summary.skipped), len(rows(uri))) == (4, summary.embedded)
    again = ingest(embedder, uri, f"s3://{bucket}")
    assert (again.embedded + again.unchanged, again.skipped) == (4, [])


def test_one_object_that_stays_broken_is_skipped(
    s3: FaultyS3, bucket: str, embedder: Counting, uri: str
) -> None:
    s3.put(bucket, images(3))
    s3.fault = lambda method, path, start: (
        error(start, "503 Slow Down") if path.endswith("01.png") else None
    )
    summary = ingest(embedder, uri, f"s3://{bucket}")
    assert summary.embedded == 2
    (skip,) = summary.skipped
    assert (skip.uri, skip.reason) == (
        f"s3://{bucket}/01.png",
        "the server answered 503; try again later",
    )


def test_changed_and_vanished_objects_are_skipped(
    s3: FaultyS3, bucket: str, embedder: Counting, uri: str
) -> None:
    s3.put(bucket, images(3))
    opened = rsicd_embed.open_sources([f"s3://{bucket}"])
    s3.client.put_object(Bucket=bucket, Key="01.png", Body=encoded(picture(9)))
    s3.client.delete_object(Bucket=bucket, Key="02.png")
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        summary = rsicd_embed.ingest(opened, embedder, store)
    assert summary.embedded == 1
    assert {Path(skip.uri).name: skip.reason for skip in summary.skipped} == {
        "01.png": "changed while it was read; run the same command again",
        "02.png": "no such object",
    }


def test_credentials_that_expire_half_way(
    s3: FaultyS3, bucket: str, tiny_model: Path, uri: str
) -> None:
    s3.put(bucket, images(8))
    expired = threading.Event()

    def fault(method: str, path: str, start: Callable[..., Any]) -> Iterable[bytes] | None:
        if path.endswith("05.png"):
            expired.set()
        if not expired.is_set():
            return None
        return error(start, "400 Bad Request", "ExpiredToken", f"{SECRET} has expired")

    s3.fault = fault
    command = ("ingest", f"s3://{bucket}", "--store", uri, "--model", tiny_model)
    failed = run(*command, "--batch-size", "1", "--json").error
    assert "have expired; renew them and run the same command again" in failed
    assert SECRET not in failed
    s3.fault = None
    outcome = run(*command, "--json").document
    assert (outcome["embedded"] + outcome["unchanged"], len(rows(uri))) == (8, 8)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        ("403 Forbidden", "AccessDenied", "denies access; check the permissions"),
        ("403 Forbidden", "InvalidAccessKeyId", "refuses the credentials (InvalidAccessKeyId)"),
        ("403 Forbidden", "SignatureDoesNotMatch", "refuses the credentials"),
        ("301 Moved Permanently", "PermanentRedirect", "is in another region; set AWS_REGION"),
        ("503 Slow Down", "SlowDown", "the server answered SlowDown"),
    ],
)
def test_listing_refused(
    s3: FaultyS3, bucket: str, uri: str, tiny_model: Path, status: str, code: str, words: str
) -> None:
    s3.fault = lambda method, path, start: error(start, status, code, f"{SECRET} is wrong")
    line = run("ingest", f"s3://{bucket}/a", "--store", uri, "--model", tiny_model, "--json").error
    assert line.startswith(f"error: s3://{bucket}/a cannot be read: ")
    assert words in line
    assert SECRET not in line


def test_missing_buckets_and_folders(s3: FaultyS3, bucket: str) -> None:
    with pytest.raises(DatasetError, match=f"there is no bucket s3://{bucket}$"):
        remote_sources.open_remote(f"s3://{bucket}")
    s3.put(bucket, {"readme.txt": b"", ".hidden/a.png": b""})
    with pytest.raises(DatasetError, match=f"in s3://{bucket}/x/, found nothing"):
        remote_sources.open_remote(f"s3://{bucket}/x/")
    with pytest.raises(DatasetError, match=f"in s3://{bucket}/, found 2 other files"):
        remote_sources.open_remote(f"s3://{bucket}")
    for name in ("a.png", "a.csv", "a.tar", "a.parquet"):
        with pytest.raises(DatasetError, match=f"nothing at s3://{bucket}/{name}|no such object"):
            remote_sources.open_remote(f"s3://{bucket}/{name}")
    assert remote_sources.open_remote(f"s3://{bucket}/x", allow_empty=True)[0].examples == ()


@pytest.mark.parametrize("name", ["a.tar", "a.parquet", "a.csv", "a.jsonl"])
def test_damaged_files(s3: FaultyS3, bucket: str, name: str) -> None:
    s3.put(bucket, {name: b"\xff\xfe no such format" * 100})
    with pytest.raises(DatasetError, match=f"s3://{bucket}/{name}"):
        remote_sources.open_remote(f"s3://{bucket}/{name}")


def test_nobody_listens(s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(DatasetError, match="the connection failed or broke off"):
        remote_sources.open_remote("s3://tiles/a")


def test_no_credentials(
    s3: FaultyS3, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s3.put(bucket, images(1))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(object_client, "_is_amazon_machine", lambda: False)
    with pytest.raises(DatasetError, match="found none; for a public bucket set RSICD_EMBED_ANON"):
        remote_sources.open_remote(f"s3://{bucket}")
    monkeypatch.setenv("RSICD_EMBED_ANONYMOUS", "1")
    transfer.client_of.cache_clear()
    assert len(remote_sources.open_remote(f"s3://{bucket}")[0].examples) == 1
    monkeypatch.delenv("RSICD_EMBED_ANONYMOUS")
    transfer.client_of.cache_clear()
    profiles = tmp_path / ".aws" / "credentials"
    profiles.parent.mkdir()
    profiles.write_text("[default]\naws_access_key_id = x\naws_secret_access_key = y\n")
    assert len(remote_sources.open_remote(f"s3://{bucket}")[0].examples) == 1


def test_without_obstore(s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(DatasetError, match=r"needs obstore; pip install 'rsicd-embed\[remote\]'"):
        remote_sources.open_remote("s3://tiles/a")


@pytest.mark.parametrize("url", ["s3://", "s3:///a", "gs:///x.png"])
def test_no_bucket_in_the_url(url: str) -> None:
    with pytest.raises(DatasetError, match="expected a bucket or host"):
        remote_sources.open_remote(url)


def test_credentials_in_the_url() -> None:
    with pytest.raises(DatasetError) as caught:
        remote_sources.open_remote(f"s3://somebody:{SECRET}@bucket/a.png")
    assert "found credentials in the URL" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"http://somebody:{SECRET}@[::1/x.png", "found a malformed one"),
        (f"http://somebody:{SECRET}@\u2100.com/x.png", "found a malformed one"),
        ("s3://bu[cket/x.png", "found a malformed one"),
        ("http://.../x.png", "cannot be requested"),
    ],
)
def test_malformed_urls(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        rsicd_embed.open_sources([url])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://h/a.png?X-Amz-Signature=1&X-Amz-Credential=2&X-Amz-Date=3", "https://h/a.png"),
        ("https://h/a.png?AWSAccessKeyId=1&Expires=2&Signature=3", "https://h/a.png"),
        ("https://h/a.png?st=1&se=2&sp=r&sv=2020&sr=b&skoid=3&sks=b&sig=abc", "https://h/a.png"),
        ("https://h/a.png?versionId=1&X-Amz-Signature=2", "https://h/a.png?versionId=1"),
        ("https://h/get?file=b.png&se=1&sig=2", "https://h/get?file=b.png"),
        ("https://h/get?key=tiles/a.png&api_key=1", "https://h/get?key=tiles/a.png"),
        ("https://user:word@h/a.png", "https://h/a.png"),
        ("https://h/a.png?z=1&token=abc&y=2", "https://h/a.png?z=1&y=2"),
        ("https://h/a.png?api_key=abc", "https://h/a.png"),
        ("https://h/a.png?z=1&x=2", "https://h/a.png?z=1&x=2"),
        ("s3://bucket/a?sig=b#c.png", "s3://bucket/a?sig=b#c.png"),
    ],
)
def test_secrets_are_not_part_of_addresses(url: str, public: str) -> None:
    assert remote_url.public_address(url) == public
    assert remote_url.given_url(public).partition("#")[0] == url.partition("#")[0] or (
        "://bucket" in url
    )


def test_addresses_that_differ_in_a_secret(tmp_path: Path) -> None:
    for signature in "ab":  # signed again
        assert remote_url.public_address(f"https://h/s.png?sig={signature}") == "https://h/s.png"
        remote_url.public_address(f"https://h/s.png?token={signature}")
    assert remote_url.given_url("https://h/s.png") == "https://h/s.png?token=b"
    path = tmp_path / "m.csv"
    path.write_text("id,path\nx,https://h/k?key=1\ny,https://h/k?key=2\n", "utf-8")
    with pytest.raises(DatasetError, match=r"row 2: expected addresses that differ in more than"):
        open_source(path)


def test_secrets_are_not_part_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"path\nhttps://h/a.png?sig={SECRET}\nHTTPS://h/b.png?v=1\nc.png\n", "utf-8")
    source = open_source(path)
    assert [e.id for e in source.examples] == ["https://h/a.png", "https://h/b.png?v=1", "c.png"]
    path.write_text(f"id,path\nx,https://h/a.png?sig={SECRET}\n", "utf-8")
    assert [e.id for e in open_source(path).examples] == ["x"]


def test_ranges(s3: FaultyS3, bucket: str) -> None:
    s3.put(bucket, {"x": b"0123456789"})
    url = f"s3://{bucket}/x"
    assert fetch_range(url, 2, 5).data == b"234"
    with pytest.raises(RemoteError, match="ends too early"):
        fetch_range(url, 8, 12)
    with pytest.raises(RemoteError, match="changed while it was read"):
        fetch_range(url, 2, 5, etag="another")
    with pytest.raises(RemoteError, match="more than 5 bytes"):
        fetch(url, most_bytes=5)
    content = fetch(url)
    assert content is not None
    assert fetch(url, known=content.object.etag) is None


def test_bytes_in_flight_are_limited() -> None:
    budget, most, order = ByteBudget(100), [0], threading.Lock()

    def work(count: int) -> None:
        with Reservation(budget) as reservation:
            reservation.take(count)
            reservation.take(count)  # another attempt
            with order:
                most[0] = max(most[0], budget.used)

    sizes = [60, 50, 40, 500, 10, 30] * 5
    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert budget.used == 0
    assert most[0] in {*range(101), 500}


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_other_stores(
    scheme: str, monkeypatch: pytest.MonkeyPatch, embedder: Counting, uri: str
) -> None:
    memory = pytest.importorskip("obstore.store").MemoryStore()
    import obstore

    for name, data in images(2).items():
        obstore.put(memory, f"in/{name}", data)
    monkeypatch.setattr(object_client, "_open", lambda scheme, bucket: memory)
    transfer.client_of.cache_clear()
    summary = ingest(embedder, uri, f"{scheme}://bucket/in")
    transfer.client_of.cache_clear()
    assert summary.embedded == 2
    assert {row["uri"] for row in rows(uri).values()} == {
        f"{scheme}://bucket/in/{name}" for name in images(2)
    }


def test_access_errors_are_remote_errors() -> None:
    assert issubclass(RemoteAccessError, RemoteError)
