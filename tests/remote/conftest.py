"""Fixtures: a server with buckets, and clients that do not wait between attempts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta

import pytest

from rsicd_embed.remote import object_client, transfer

from .faulty_s3 import FaultyS3, running

_numbers = itertools.count()


@pytest.fixture(scope="module")
def _server() -> Iterator[FaultyS3]:
    pytest.importorskip("obstore")
    with running() as server:
        yield server


@pytest.fixture
def s3(_server: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The server, without faults at first."""
    pause = timedelta(milliseconds=1)
    backoff = {"init_backoff": pause, "max_backoff": pause, "base": 2}
    retries = {"max_retries": 3, "retry_timeout": timedelta(seconds=30), "backoff": backoff}
    monkeypatch.setattr(object_client, "RETRIES", retries)
    monkeypatch.setattr(transfer, "FIRST_PAUSE_S", 0.001)
    transfer.client_of.cache_clear()
    _server.fault = _server.piece_bytes = None
    _server.requests.clear()
    yield _server
    _server.fault = _server.piece_bytes = None
    transfer.client_of.cache_clear()


@pytest.fixture
def bucket() -> str:
    """The name of a bucket that does not exist yet."""
    return f"tiles-{next(_numbers)}"
