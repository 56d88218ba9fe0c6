"""JSON responses, and those of errors: one line each, without a traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rsicd_embed.errors import (
    FindError,
    ModelError,
    QueryError,
    RequestError,
    StoreError,
    UnknownRowError,
)
from rsicd_embed.json_output import as_json

_LOG = logging.getLogger("rsicd_embed.server")
_RETRY_AFTER = {"retry-after": "2"}


def add_error_handlers(app: FastAPI) -> None:
    """Makes the application answer errors with `{"error": …}`."""
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(FindError, _find_error)
    app.add_exception_handler(QueryError, _query_error)
    app.add_exception_handler(StoreError, _unavailable)
    app.add_exception_handler(ModelError, _unavailable)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)


def json_response(document: Mapping[str, Any]) -> Response:
    """A response with a JSON document."""
    # Validating the response model would take longer than the search.
    return Response(as_json(document), media_type="application/json")


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    body = as_json({"error": " ".join(text.split())})
    if status == 503:
        headers = {**_RETRY_AFTER, **(headers or {})}
    return Response(body, status, headers, "application/json")


async def _request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _error(error.status, str(error))


async def _find_error(_: Request, error: Exception) -> Response:
    return _error(422, str(error))


async def _query_error(_: Request, error: Exception) -> Response:
    return _error(404 if isinstance(error, UnknownRowError) else 422, str(error))


async def _unavailable(_: Request, error: Exception) -> Response:
    # The message names folders, which only the operator may see.
    _LOG.warning("%s", error)
    return _error(503, "the store is unavailable; see the server's log")


async def _validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _error(422, "; ".join(map(_validation_message, error.errors()[:5])))


def _validation_message(detail: dict[str, Any]) -> str:
    location: Sequence[object] = detail.get("loc", ())
    field = ".".join(str(part) for part in location if part not in ("body", "query"))
    message = str(detail.get("msg", "not valid")).removeprefix("Value error, ")
    return f"{field[:100]}: {message}" if field else message


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return _error(error.status_code, str(error.detail), headers)


async def _unexpected_error(_: Request, error: Exception) -> Response:
    _LOG.error("unexpected error", exc_info=error)
    return _error(500, "unexpected error; see the server's log")
