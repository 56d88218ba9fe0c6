"""What went wrong, as an HTTP status and one line; never a path or a traceback."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rsicd_embed.errors import FindError, ModelError, RequestError, StoreError
from rsicd_embed.json_output import as_json

_LOG = logging.getLogger("rsicd_embed.server")
# Waiting may help.
_RETRY = {"retry-after": "2"}


def install(app: FastAPI) -> None:
    """Makes an application answer with JSON whatever is raised."""
    app.add_exception_handler(RequestError, _request)
    app.add_exception_handler(FindError, _find)
    app.add_exception_handler(StoreError, _unavailable)
    app.add_exception_handler(ModelError, _unavailable)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def answer(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """An error as JSON."""
    body = as_json({"error": " ".join(text.split())})
    if status == 503:
        headers = {**_RETRY, **(headers or {})}
    return Response(body, status, headers, "application/json")


async def _request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return answer(error.status, str(error))


async def _find(_: Request, error: Exception) -> Response:
    return answer(422, str(error))


async def _unavailable(_: Request, error: Exception) -> Response:
    # Its message names folders; that is for who runs the server.
    _LOG.warning("%s", error)
    return answer(503, "the store is not available now; the server's log says why")


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return answer(422, "; ".join(map(_told, error.errors()[:5])))


def _told(one: dict[str, Any]) -> str:
    place: Sequence[object] = one.get("loc", ())
    where = ".".join(str(part) for part in place if part not in ("body", "query"))
    message = str(one.get("msg", "not valid")).removeprefix("Value error, ")
    return f"{where[:100]}: {message}" if where else message


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return answer(error.status_code, str(error.detail), headers)


async def _unexpected(_: Request, error: Exception) -> Response:
    _LOG.error("unexpected", exc_info=error)
    return answer(500, "the server failed unexpectedly; its log says how")
