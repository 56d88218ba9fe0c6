"""`rsicd-embed serve`: start, shutdown, and failures to start."""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from .helpers import PATIENCE_S, run

# Dozens of patches, so that it is still running when the signal arrives.
FORM = b"text=a+port&id=a.png&patch=9"
FIND = (
    b"POST /api/find HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%b"
) % (len(FORM), FORM)


@contextmanager
def serving(store: str, model: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Runs a server in a separate process; yields the process and the URL."""
    command = [sys.executable, "-c", "from rsicd_embed.cli import main; main()", "serve"]
    command += [
        "--store",
        store,
        "--model",
        str(model),
        "--port",
        "0",
        "--backend",
        "numpy",
        *words,
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(f"serving {store} at http://127.0.0.1:"), line
            yield process, line.split()[-1]
        finally:
            process.kill()


def answer(url: str) -> Any:
    with urlopen(url, timeout=PATIENCE_S) as response:
        return json.load(response)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_signalled(stored: str, tiny_model: Path, sent: signal.Signals) -> None:
    with serving(stored, tiny_model) as (process, url):
        assert len(answer(f"{url}api/search?text=a+port")["hits"]) == 5
        process.send_signal(sent)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, errors) == (0, "")


def test_running_requests_are_answered_before_shutdown(stored: str, tiny_model: Path) -> None:
    with serving(stored, tiny_model) as (process, url):
        answer(f"{url}api/search?text=a")
        port = int(url.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as line:
            line.sendall(FIND)
            with urlopen(f"{url}healthz"):
                process.send_signal(signal.SIGTERM)
            got = b"".join(iter(lambda: line.recv(65536), b""))
        assert got.startswith(b"HTTP/1.1 200 OK")
        assert b'"patches"' in got
        assert process.wait(PATIENCE_S) == 0


def refusal(url: str, headers: dict[str, str]) -> tuple[int, str]:
    """Returns the status and the error of a refused request."""
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(url, headers=headers), timeout=PATIENCE_S)
    with caught.value as error:
        return error.code, json.load(error)["error"]


def test_other_hosts_and_sites_are_refused(stored: str, tiny_model: Path) -> None:
    with serving(stored, tiny_model, "--allowed-host", "tiles.example") as (_, url):
        search = f"{url}api/search?text=a"
        status, reason = refusal(search, {"Host": "evil.example"})
        assert status == 421
        assert reason.startswith("expected a Host of localhost, tiles.example, found 'evil.ex")
        assert refusal(search, {"Origin": "http://evil.example"})[0] == 403
        with urlopen(Request(search, headers={"Host": "tiles.example"})) as got:
            hits = json.load(got)["hits"]
        assert len(hits) == 5
        assert "uri" not in hits[0]  # hidden, since other machines may reach the server


def test_paths_are_shown_only_on_loopback(stored: str, tiny_model: Path) -> None:
    with serving(stored, tiny_model) as (_, url):
        assert all("uri" in hit for hit in answer(f"{url}api/search?text=a")["hits"])
    with serving(stored, tiny_model, "--hide-paths") as (_, url):
        assert not any("uri" in hit for hit in answer(f"{url}api/search?text=a")["hits"])


def test_start_failures(stored: str, tiny_model: Path, other_model: Path) -> None:
    error = run("serve", "--store", "exact:/nowhere/at/all", "--port", "0").error
    assert "no store at exact:/nowhere/at/all" in error
    error = run("serve", "--store", stored, "--port", "0", "--model", other_model).error
    assert f"contains vectors of model '{tiny_model}'" in error
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        error = run("serve", "--store", stored, "--port", port).error
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in error
    assert "cannot listen" in run("serve", "--store", stored, "--host", "no host").error
    assert run("serve", "--store", stored, "--port", "70000").status == 2


def test_missing_extra_is_named(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "fastapi" else find(name)
    )
    outcome = run("serve", "--store", stored)
    assert outcome.status == 1
    assert outcome.stderr.splitlines() == [
        "Error: expected fastapi, found none; install: pip install 'rsicd-embed[serve]'"
    ]
