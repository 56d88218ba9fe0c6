"""API keys: in headers of programs and logins of browsers, from a file or the environment."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.errors import RsicdEmbedError
from rsicd_embed.server.api_keys import ENVIRONMENT, ApiKeys, configured
from rsicd_embed.server.middleware import Access

from ..helpers import run
from .conftest import Archive

KEY, NEXT = "k" * 24, "n" * 24


def basic(password: str, user: str = "anyone") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_requests(archive: Archive, serve: Callable[..., Any]) -> None:
    client = serve(archive, access=Access(keys=ApiKeys.of([KEY, NEXT])))
    for good in (f"Bearer {KEY}", f"bearer  {NEXT}", basic(KEY), basic(NEXT, "")):
        for path in ("/", "/api/columns", "/metrics"):
            assert client.get(path, headers={"Authorization": good}).status_code == 200
    wrong = ["", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[1:]}", basic("x" * 24), "Basic ???"]
    for header in [*wrong, f"Digest {KEY}", KEY]:
        answer = client.get("/api/columns", headers={"Authorization": header} if header else {})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert "expected an API key" in answer.json()["error"]
    assert client.post("/api/search", json={"text": "x"}).status_code == 401
    for path in ("/healthz", "/readyz"):
        assert client.get(path).status_code in (200, 503)
    two = client.get("/", headers=[("Authorization", f"Bearer {KEY}")] * 2)
    assert two.status_code == 401


def test_without_keys(client: Any) -> None:
    assert client.get("/api/columns").status_code == 200


def test_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert configured(None) is None
    monkeypatch.setenv(ENVIRONMENT, KEY)
    assert configured(None) == ApiKeys.of([KEY])
    file = tmp_path / "keys"
    file.write_text(f"# two during a rotation\n{KEY}\n\n {NEXT} \n")
    assert configured(file) == ApiKeys.of([KEY, NEXT])
    assert KEY not in repr(configured(file))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "expected at least one API key, found none"),
        ("# only a comment\n", "expected at least one API key, found none"),
        ("short\n", "at least 16 printable ASCII characters, found one of 5; make one with"),
        ("ü" * 20, "at least 16 printable ASCII characters"),
        (None, "No such file or directory"),
    ],
)
def test_unsuitable_keys(archive: Archive, tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(RsicdEmbedError, match="API key"):
        configured(file)
    line = run("serve", "--store", archive.uri, "--api-key-file", file, "--port", "0").error
    assert words in line
