"""Rate limits: token buckets, who counts as a client, and refused requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rsicd_embed.server.api_keys import ApiKeys
from rsicd_embed.server.middleware import Access
from rsicd_embed.server.rate_limit import Buckets, RateLimit, client_of

from ..helpers import run
from .conftest import Archive

KEY, OTHER = "k" * 24, "o" * 24


def test_a_bucket_empties_and_fills() -> None:
    buckets, now = Buckets.of(RateLimit(2, 3)), 100.0

    def wait_s() -> int:
        return buckets.wait_s(b"client", lambda: now)

    assert [wait_s() for _ in range(5)] == [0, 0, 0, 1, 1]
    now += 0.5  # one token
    assert [wait_s(), wait_s()] == [0, 1]
    now += 60  # full, but no fuller
    assert [wait_s() for _ in range(4)] == [0, 0, 0, 1]
    assert buckets.wait_s(b"another", lambda: now) == 0


def test_waiting_times_are_whole_seconds_that_suffice() -> None:
    buckets, now = Buckets.of(RateLimit(0.3, 1)), 0.0
    assert buckets.wait_s(b"client", lambda: now) == 0
    wait_s = buckets.wait_s(b"client", lambda: now)
    assert wait_s == 4
    now += wait_s
    assert buckets.wait_s(b"client", lambda: now) == 0


def scope(address: str, key: str | None = None) -> dict[str, Any]:
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    return {"client": (address, 1), "headers": headers, "path": "/"}


def test_clients() -> None:
    keys = ApiKeys.of([KEY, OTHER])
    first = client_of(scope("192.0.2.1", KEY), keys)
    assert first == client_of(scope("192.0.2.2", KEY), keys)
    assert first != client_of(scope("192.0.2.1", OTHER), keys)
    # A wrong key is limited by its address, so guessing one is slow.
    wrong = client_of(scope("192.0.2.1", "x" * 24), keys)
    assert wrong == client_of(scope("192.0.2.1"), keys) == client_of(scope("192.0.2.1", KEY), None)
    assert wrong == client_of(scope("::ffff:192.0.2.1"), keys)
    assert wrong != client_of(scope("192.0.2.2"), keys)
    subscriber = client_of(scope("2001:db8:1:2::1"), None)
    assert subscriber == client_of(scope("2001:db8:1:2:ffff::9"), None)
    assert subscriber != client_of(scope("2001:db8:1:3::1"), None)
    assert client_of({**scope(""), "client": None}, None) == client_of(scope(""), None)


def test_refused_requests(archive: Archive, serve: Callable[..., Any]) -> None:
    access = Access(keys=ApiKeys.of([KEY, OTHER]), buckets=Buckets.of(RateLimit(0.01, 2)))
    client = serve(archive, access=access)
    headers = {"Authorization": f"Bearer {KEY}"}
    statuses = [client.get("/api/columns", headers=headers).status_code for _ in range(2)]
    assert statuses == [200, 200]
    answer = client.get("/api/columns", headers=headers)
    assert answer.status_code == 429
    assert 90 <= int(answer.headers["retry-after"]) <= 100
    assert answer.json()["error"].startswith(
        "expected at most 0.01 requests per second, or 2 at once, found more; wait "
    )
    assert client.get("/healthz", headers=headers).status_code == 200
    other = {"Authorization": f"Bearer {OTHER}"}
    assert client.get("/api/columns", headers=other).status_code == 200
    assert [client.get("/").status_code for _ in range(3)] == [401, 401, 429]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--rate-limit", "0"], "0.0 is not in the range x>0"),
        (["--rate-limit", "-1"], "-1.0 is not in the range x>0"),
        (["--rate-limit", "nan"], "expected a finite number, found 'nan'"),
        (["--rate-limit", "inf"], "expected a finite number, found 'inf'"),
        (["--rate-limit", "fast"], "'fast' is not a valid float"),
        (["--rate-limit", "1", "--rate-burst", "0"], "0 is not in the range x>=1"),
        (["--rate-burst", "5"], "--rate-burst needs --rate-limit"),
        (["--workers", "0"], "0 is not in the range"),
    ],
)
def test_wrong_options(archive: Archive, words: list[str], reason: str) -> None:
    outcome = run("serve", "--store", archive.uri, "--port", "0", *words)
    assert outcome.status == 2
    assert reason in outcome.stderr


def test_representations_hide_the_clients() -> None:
    buckets = Buckets.of(RateLimit(1, 1))
    assert repr(buckets) == "Buckets(limit=RateLimit(per_s=1, burst=1))"
