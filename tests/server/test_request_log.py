"""Logs as JSON lines: requests, messages, and what must not be in them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rsicd_embed.server.api_keys import ApiKeys
from rsicd_embed.server.middleware import Access
from rsicd_embed.server.request_log import JsonLines, is_json, log_as_json

from .conftest import Archive

KEY = "k" * 24
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """The lines that are logged during the test, parsed."""
    parsed: list[dict[str, Any]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = self.format(record)
            assert "\n" not in text
            parsed.append(json.loads(text))

    handler, logger = Handler(), logging.getLogger("rsicd_embed.server")
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    requests = logger.getChild("requests")
    requests.setLevel(logging.INFO)
    yield parsed
    logger.removeHandler(handler)
    requests.setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def client(archive: Archive, serve: Callable[..., Any]) -> Any:
    return serve(archive, access=Access(keys=ApiKeys.of([KEY])))


def test_a_line_per_request(client: Any, lines: list[dict[str, Any]]) -> None:
    answer = client.get("/api/search?text=secret+harbour&k=3", headers=HEADERS)
    (line,) = lines
    assert line.pop("time").endswith("Z")
    assert line.pop("ms") > 0
    assert line.pop("pid") > 0
    assert line.pop("request_id") == answer.headers["x-request-id"]
    assert line == {
        "level": "info",
        "method": "GET",
        "path": "/api/search",
        "status": 200,
        "rows": 3,
    }
    client.get("/nowhere", headers=HEADERS)
    client.post("/api/search", json={"text": "secret"})
    assert [(line["status"], line["rows"]) for line in lines[1:]] == [(404, None), (401, None)]
    for word in ("secret", KEY, "earer"):
        assert word not in json.dumps(lines)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("a-1.B_2", True), ("", False), ("x" * 65, False), ("two words", False), ('"}', False)],
)
def test_request_ids(client: Any, lines: list[dict[str, Any]], given: str, kept: bool) -> None:
    answer = client.get("/healthz", headers={"X-Request-Id": given})
    (line,) = lines
    assert answer.headers["x-request-id"] == line["request_id"]
    assert (line["request_id"] == given) == kept
    assert line["request_id"].replace("-", "").replace(".", "").replace("_", "").isalnum()


def test_any_path_is_one_line(client: Any, lines: list[dict[str, Any]]) -> None:
    client.get("/%0A%22%7D%00" + "x" * 1000, headers=HEADERS)
    (line,) = lines
    assert line["path"].startswith('/\n"}')
    assert len(line["path"]) == 300


def test_messages_and_errors() -> None:
    formatter = JsonLines()
    try:
        raise ValueError("not\nthis")
    except ValueError:
        raised = sys.exc_info()
    record = logging.LogRecord("a", logging.ERROR, "", 0, "two\nlines %d", (7,), raised)
    line = formatter.format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["level"], parsed["message"]) == ("error", "two lines 7")
    assert "ValueError" in parsed["traceback"]
    assert "request_id" not in parsed


def test_setup() -> None:
    root, requests = logging.root, logging.getLogger("rsicd_embed.server.requests")
    handlers, level = list(root.handlers), root.level
    assert not is_json()
    try:
        root.handlers = []  # `basicConfig` closes those that it replaces
        log_as_json()
        assert is_json()
        assert requests.isEnabledFor(logging.INFO)
        assert not logging.getLogger("other").isEnabledFor(logging.INFO)
    finally:
        logging.captureWarnings(False)
        root.handlers, root.level = handlers, level
        requests.setLevel(logging.NOTSET)
