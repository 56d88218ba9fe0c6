"""Hosts and origins that requests may use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rsicd_embed.server.middleware import access, host_name, is_loopback
from tests.helpers import run

from .conftest import Archive

SEARCH = {"text": "a port"}


@pytest.fixture(scope="module")
def named(archive: Archive, serve: Callable[..., Any]) -> Any:
    """A client of a server that allows the host archive.example."""
    return serve(archive, access=access("127.0.0.1", ["Archive.example", "10.1.2.3"]))


def status(client: Any, host: str | None, origin: str | None = None, method: str = "GET") -> int:
    """Returns the status of a search with this method."""
    headers = {"host": host or ""} | ({"origin": origin} if origin else {})
    if method == "GET":
        got = client.get("/api/search", params=SEARCH, headers=headers)
    else:
        got = client.post("/api/search", json=SEARCH, headers=headers)
    if got.status_code != 200:
        assert list(got.json()) == ["error"]
        assert "hits" not in got.text
    return int(got.status_code)


LOOPBACK = ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8000"]
# The last two resolve to loopback addresses, or seem to.
OTHERS = ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io"]
NOT_HOSTS = ["", "local host", "localhost:x", "a@localhost", "localhost/..", "[::1", "[]", ":80"]


@pytest.mark.parametrize("host", [*LOOPBACK, "localhost."])
def test_loopback_names_are_answered(client: Any, host: str) -> None:
    assert status(client, host) == 200
    assert status(client, host, method="POST") == 200


@pytest.mark.parametrize("host", [*OTHERS, "archive.example", "10.1.2.3", *NOT_HOSTS])
def test_other_names_are_refused(client: Any, host: str) -> None:
    for method in ("GET", "POST"):
        assert status(client, host, method=method) == 421
    for url in ("/", "/static/app.js", "/api/columns", "/api/pictures?id=x", "/metrics"):
        assert client.get(url, headers={"host": host}).status_code == 421


def test_refusal_names_the_option(client: Any) -> None:
    error = client.get("/", headers={"host": "evil.example:80"}).json()["error"]
    assert error == (
        "expected a Host of localhost, found 'evil.example:80'; "
        "to serve that name, start with --allowed-host evil.example"
    )


@pytest.mark.parametrize("host", [*LOOPBACK, "archive.example", "ARCHIVE.example:443", "10.1.2.3"])
def test_allowed_hosts_are_answered(named: Any, host: str) -> None:
    assert status(named, host) == 200


@pytest.mark.parametrize("host", OTHERS)
def test_hosts_not_allowed_are_refused(named: Any, host: str) -> None:
    assert status(named, host) == 421


def test_connection_address_is_answered() -> None:
    """Even if the server listens on all addresses."""

    def refusal(listens_on: str, host: bytes, *allowed: str) -> int | None:
        scope = {"headers": [(b"host", host)], "server": ("192.0.2.7", 8000)}
        refused = access(listens_on, allowed).refusal(scope)
        return refused[0] if refused else None

    for wildcard in ("0.0.0.0", "::"):
        assert refusal(wildcard, b"192.0.2.7:8000") is None
        assert refusal(wildcard, b"192.0.2.8:8000") == 421
        assert refusal(wildcard, b"evil.example") == 421
        assert refusal(wildcard, b"any.example", "*") is None
    assert refusal("tiles.example", b"tiles.example:8000") is None


def test_repeated_host_headers_are_refused() -> None:
    scope = {"type": "http", "headers": [(b"host", b"localhost"), (b"host", b"evil.example")]}
    refusal = access("127.0.0.1").refusal(scope)
    assert refusal is not None
    assert refusal[0] == 421


FOREIGN = [
    "http://evil.example",
    "http://localhost:8000",
    "http://127.0.0.1",
    "null",
    "x",
    "http://",
]


@pytest.mark.parametrize("origin", [*FOREIGN, "file://", "http://localhost:port", "https://[::1"])
def test_other_sites_are_refused(client: Any, origin: str) -> None:
    """With any method: such pages cannot read responses, but could make the server work."""
    for method in ("GET", "POST"):
        assert status(client, "localhost:9000", origin, method) == 403
    form = {"text": "x", "id": "y"}
    for url in ("/api/find", "/api/search/image"):
        got = client.post(url, data=form, headers={"origin": origin})
        assert got.status_code == 403
    # Browsers send a preflight request before requests that are not simple.
    preflight = {"origin": origin, "access-control-request-method": "POST"}
    got = client.options("/api/search", headers=preflight)
    assert got.status_code == 403
    assert not [name for name in got.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://LOCALHOST"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("archive.example", "https://archive.example"),
        ("localhost:8000", "https://archive.example"),  # behind a proxy
    ],
)
def test_own_page_is_answered(named: Any, host: str, origin: str) -> None:
    for method in ("GET", "POST"):
        assert status(named, host, origin, method) == 200


def test_other_port_of_allowed_host_is_another_origin(named: Any) -> None:
    assert status(named, "archive.example", "http://archive.example:3000") == 403


def test_host_names() -> None:
    assert host_name("[0:0::1]:80") == "::1"
    assert host_name("A.Example.") == "a.example"
    assert not is_loopback("localhost.example")
    assert access("Tiles.example").hosts == {"tiles.example"}
    assert access("127.0.0.1", ["LOCALHOST"]).hosts == frozenset()


@pytest.mark.parametrize("name", ["a.example:80", "http://a.example", "", "a b", "a/b"])
def test_invalid_allowed_hosts_are_usage_errors(stored: str, name: str) -> None:
    outcome = run("serve", "--store", stored, "--port", "0", "--allowed-host", name)
    assert outcome.status == 2
    assert "expected a host name or address without a port" in outcome.stderr
