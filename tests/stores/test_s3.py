"""The whole contract for LanceDB tables in an object store (moto's S3 on loopback)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from rsicd_embed.errors import StoreError
from rsicd_embed.stores.base import open_store, require_versioned
from rsicd_embed.testing.stores import MADE_BY, StoreContract, batch, stored

BUCKET = "tiles-bucket"
_numbers = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """An S3 server with an empty bucket, which LanceDB finds by AWS's environment variables."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT", f"http://{host}:{port}")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "something")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket=BUCKET)
        yield
    running.stop()


@pytest.fixture
def uri() -> str:
    return f"lancedb:s3://{BUCKET}/{next(_numbers)}"


class TestLanceOnS3(StoreContract):
    @pytest.fixture
    def uri(self) -> str:
        return f"lancedb:s3://{BUCKET}/{next(_numbers)}"


def test_versions(uri: str) -> None:
    with open_store(uri, MADE_BY) as opened:
        store = require_versioned(opened)
        store.upsert([batch(["a", "b"])])
        before = stored(store)
        store.tag("before")
        store.delete(["a"])
        store.optimize()
        assert stored(store.as_of("before")) == before
        store.restore("before")
        assert stored(store) == before


def test_missing_bucket() -> None:
    with pytest.raises(StoreError, match="lancedb:s3://absent-bucket/x"):
        open_store("lancedb:s3://absent-bucket/x", MADE_BY)


def test_server_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="lancedb:s3://tiles-bucket/x"):
        open_store("lancedb:s3://tiles-bucket/x", MADE_BY)
