"""Commands on a LanceDB table in a bucket, with images from another; and faults of its server."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.errors import StoreError
from rsicd_embed.remote.failure_reasons import FailureKind, request_failure
from rsicd_embed.server.api import create_app
from rsicd_embed.server.engine import Engine
from rsicd_embed.server.middleware import LOOPBACK
from rsicd_embed.server.service import Service
from rsicd_embed.stores.base import open_store

from ..helpers import IDS, run
from .faulty_s3 import SECRET, FaultyS3, error, failing_first


@pytest.mark.slow
def test_commands(
    s3: FaultyS3,
    bucket: str,
    pictures: Path,
    tiny_model: Path,
    other_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    s3.put(bucket, pictures)
    store = ("--store", f"lancedb:s3://{bucket}-store/tiles")
    s3.client.create_bucket(Bucket=f"{bucket}-store")
    source = f"s3://{bucket}"
    first = run("ingest", source, *store, "--model", tiny_model, "--json").document
    assert (first["embedded"], first["skipped"]) == (5, [])
    again = run("ingest", source, *store, "--model", tiny_model, "--json").document
    assert (again["embedded"], again["unchanged"]) == (0, 5)
    hits = run("search", "a port", *store, "--model", tiny_model, "-k", "3", "--json").document
    assert [hit["uri"].startswith(source) for hit in hits["hits"]] == [True] * 3
    table = run("sql", "SELECT count(*) FROM images", *store, "--json").document
    assert table["rows"] == [[5]]
    assert run("store", "tag", "first", *store).status == 0
    s3.client.delete_object(Bucket=bucket, Key="a.png")
    assert run("ingest", source, *store, "--model", tiny_model, "--prune").status == 0
    assert run("store", "restore", "first", *store).status == 0
    assert run("info", *store, "--json").document["rows"] == 5
    s3.put(bucket, {"a.png": (pictures / "a.png").read_bytes()})
    switched = run("reembed", *store, "--model", other_model, "--json")
    assert switched.document["rows"] == 5, switched.stderr
    rows = tmp_path / "rows.parquet"
    assert run("export", *store, "-o", rows).status == 0
    copy = f"lancedb:s3://{bucket}-store/copy"
    assert run("import", rows, "--store", copy, "--json").document["imported"] == 5


def test_search_page(s3: FaultyS3, bucket: str, pictures: Path, tiny_model: Path) -> None:
    s3.put(bucket, pictures)
    uri = f"lancedb:s3://{bucket}/store"
    assert run("ingest", f"s3://{bucket}", "--store", uri, "--model", tiny_model).status == 0
    app = create_app(Service(Engine(uri, load_for_a_query), threads=2), LOOPBACK)
    with TestClient(app, "http://localhost") as client:
        found = client.get("/api/search", params={"text": "a port"}).json()
        assert {hit["id"] for hit in found["hits"]} == set(IDS)
        s3.client.delete_object(Bucket=bucket, Key="c.jpg")
        for id_ in [id_ for id_ in IDS if id_ != "c.jpg"]:
            answer = client.get("/api/pictures", params={"id": id_})
            assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
        gone = client.get("/api/pictures", params={"id": "c.jpg"})
        assert (gone.status_code, "no such object" in gone.text) == (404, True)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        ("403 Forbidden", "AccessDenied", "denies access; check the permissions"),
        ("400 Bad Request", "ExpiredToken", "have expired; renew them"),
        ("403 Forbidden", "InvalidAccessKeyId", "refuses the credentials (InvalidAccessKeyId)"),
    ],
)
def test_refused(s3: FaultyS3, bucket: str, status: str, code: str, words: str) -> None:
    s3.fault = lambda method, path, start: error(start, status, code, SECRET)
    with pytest.raises(StoreError) as caught:
        open_store(f"lancedb:s3://{bucket}/x")
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"cannot open lancedb:s3://{bucket}/x: ")
    assert SECRET not in str(caught.value)


def test_missing_bucket(s3: FaultyS3, bucket: str) -> None:
    with pytest.raises(StoreError, match=f"there is no bucket s3://{bucket}-absent$"):
        open_store(f"lancedb:s3://{bucket}-absent/x")


def test_busy_server(s3: FaultyS3, bucket: str, pictures: Path, tiny_model: Path) -> None:
    s3.client.create_bucket(Bucket=bucket)
    s3.fault = failing_first(1)
    uri = f"lancedb:s3://{bucket}/x"
    assert run("ingest", pictures, "--store", uri, "--model", tiny_model).status == 0
    with open_store(uri) as store:
        assert len(store) == 5


def test_unknown_failures_have_no_reason() -> None:
    assert request_failure("a file is damaged", "s3://b") is None
    failure = request_failure("error sending request", "s3://b")
    assert failure is not None
    assert failure.kind is FailureKind.TRANSIENT
