"""Logs for collectors: one JSON line per request, and per message of the server."""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
from collections.abc import MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rsicd_embed.errors import one_line

_REQUESTS = logging.getLogger("rsicd_embed.server.requests")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADER = b"x-request-id"
_PATH_CHARS = 300
_RUNNING: ContextVar[RequestRecord | None] = ContextVar("running", default=None)


@dataclass
class RequestRecord:
    """What is logged about a request.

    Attributes:
        id: the client's `X-Request-Id` if it is a short word, else a new one.
        rows: number of rows in the response, if it has any.
    """

    id: str
    rows: int | None = None

    @classmethod
    def begin(cls, scope: MutableMapping[str, Any]) -> RequestRecord:
        """Begins the record of a request, which is the current one of this task.

        Args:
            scope: an ASGI scope of type http.
        """
        given = [value for name, value in scope["headers"] if name == _HEADER]
        is_usable = len(given) == 1 and _ID.fullmatch(given[0])
        record = cls(given[0].decode() if is_usable else uuid.uuid4().hex)
        _RUNNING.set(record)
        return record

    @property
    def header(self) -> tuple[bytes, bytes]:
        """The header that tells the client the id."""
        return _HEADER, self.id.encode()

    def log(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """Logs the request, without its query, its headers and its body."""
        fields = {
            "method": scope["method"],
            "path": scope["path"][:_PATH_CHARS],
            "status": status,
            "ms": round(seconds * 1000, 2),
            "rows": self.rows,
        }
        _REQUESTS.info("request", extra={"fields": fields})


def count_rows(rows: int) -> None:
    """Notes the number of rows in the response to the current request."""
    record = _RUNNING.get()
    if record is not None:
        record.rows = rows


class JsonLines(logging.Formatter):
    """Formats records as JSON objects, one per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a request or a message, with the id of the request that it belongs to."""
        time_ = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time_.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "pid": os.getpid(),
        }
        running = _RUNNING.get()
        if running is not None:
            line["request_id"] = running.id
        fields = getattr(record, "fields", None)
        line |= fields if fields is not None else {"message": one_line(record.getMessage())}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_as_json() -> None:
    """Logs requests, messages and Python's warnings as JSON lines on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], force=True)
    logging.captureWarnings(True)
    _REQUESTS.setLevel(logging.INFO)


def is_json() -> bool:
    """Whether this process logs as JSON lines."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.root.handlers)
