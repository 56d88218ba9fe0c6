"""A LanceDB table in a bucket whose server fails: the right result, or one clear line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from ..helpers import IDS, run
from .faulty_s3 import SECRET, FaultyS3, error, failing_first

Start = Callable[..., Any]


def cutting_first(times: int) -> Callable[[str, str, Start], Iterable[bytes] | None]:
    """Cuts the first answers for each object off in their middle."""
    seen: dict[str, int] = {}

    def fault(method: str, path: str, start: Start) -> Iterable[bytes] | None:
        if method != "GET" or not Path(path).suffix:
            return None
        seen[path] = seen.get(path, 0) + 1
        if seen[path] > times:
            return None
        headers = {"ETag": '"x"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
        start("200 OK", [("Content-Length", "100000"), *headers.items()])
        return [b"half a file"]

    return fault


@pytest.fixture
def table(
    s3: FaultyS3,
    bucket: str,
    pictures: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A table with five rows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OBJECT_STORE_CLIENT_MAX_RETRIES", "3")
    monkeypatch.setenv("OBJECT_STORE_CLIENT_RETRY_TIMEOUT", "20")
    s3.client.create_bucket(Bucket=bucket)
    uri = f"lancedb:s3://{bucket}/x"
    assert run("ingest", pictures, "--store", uri, "--model", tiny_model).status == 0
    return uri


def hits(uri: str, model: Path) -> Any:
    outcome = run("search", "a port", "--store", uri, "--model", model, "--json")
    return outcome.document["hits"] if outcome.status == 0 else outcome.error


@pytest.mark.parametrize(
    "fault", [failing_first(2), failing_first(1, "500 Oops"), cutting_first(1)]
)
def test_passing_faults(s3: FaultyS3, table: str, tiny_model: Path, fault: Any) -> None:
    expected = hits(table, tiny_model)
    assert {hit["id"] for hit in expected} == set(IDS)
    s3.fault = fault
    assert hits(table, tiny_model) == expected
    counted = run("sql", "SELECT count(*) FROM images", "--store", table, "--json")
    assert counted.document["rows"] == [[5]]


def test_a_slow_server(s3: FaultyS3, table: str, tiny_model: Path) -> None:
    expected = hits(table, tiny_model)
    s3.piece_bytes = 7
    assert hits(table, tiny_model) == expected


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda method, path, start: error(start, "503 Slow Down", "SlowDown", SECRET), "SlowDown"),
        (cutting_first(1000), "the connection failed or broke off"),
    ],
)
def test_lasting_faults(s3: FaultyS3, table: str, tiny_model: Path, fault: Any, words: str) -> None:
    s3.fault = fault
    line = hits(table, tiny_model)
    assert isinstance(line, str)
    assert words in line
    assert SECRET not in line


@pytest.mark.parametrize("kept", [0, 3])
def test_writes_that_fail_leave_the_old_rows(
    s3: FaultyS3, table: str, tiny_model: Path, pictures: Path, kept: int
) -> None:
    """The server fails after some writes; the next ingest completes the rows."""
    written = 0

    def fault(method: str, path: str, start: Start) -> Iterable[bytes] | None:
        nonlocal written
        if method not in ("PUT", "POST"):
            return None
        written += 1
        return error(start, "503 Slow Down", "SlowDown") if written > kept else None

    (pictures / "new.png").write_bytes((pictures / "a.png").read_bytes() + b"!")
    s3.fault = fault
    outcome = run("ingest", pictures, "--store", table, "--model", tiny_model)
    s3.fault = None
    assert outcome.status in (0, 1)
    if outcome.status:
        assert len(outcome.error.splitlines()) == 1
    assert run("info", "--store", table, "--json").document["rows"] in (5, 6)
    again = run("ingest", pictures, "--store", table, "--model", tiny_model, "--json").document
    assert again["embedded"] + again["unchanged"] == 6
    assert {hit["id"] for hit in hits(table, tiny_model)} == {*IDS, "new.png"}
