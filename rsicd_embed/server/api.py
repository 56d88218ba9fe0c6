"""The HTTP API: searching, finding in a picture, thumbnails, and the server's state."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, File, Form, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rsicd_embed.errors import FindError, ModelError, RequestError, StoreError
from rsicd_embed.find.finding import OVERLAP, Question
from rsicd_embed.find.patches import MAX_OVERLAP
from rsicd_embed.json_output import as_json
from rsicd_embed.server import schemas as s
from rsicd_embed.server.conditions import Condition
from rsicd_embed.server.engine import Ask, Hits
from rsicd_embed.server.middleware import LOOPBACK, Access, App, Guard
from rsicd_embed.server.service import Service

_SEARCH_ERRORS = s.errors(404, 413, 422, 503)
_PICTURE_ERRORS = s.errors(404, 413, 415, 422, 503)

_Filters = Annotated[
    str,
    Form(
        max_length=s.LIMITS.body_bytes,
        description="A list of filters, as JSON.",
        examples=['[{"column": "label", "operator": "=", "value": "port"}]'],
    ),
]


def create_app(service: Service, access: Access = LOOPBACK) -> App:
    """The ASGI application that serves a store: the API under /api, and the page at /.

    Args:
        service: what the routes call.
        access: the hosts and origins that requests may name; this machine's own by default.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.close()

    # Its pages of documentation would load scripts from elsewhere.
    app = FastAPI(
        title="rsicd-embed",
        summary="Search satellite imagery in plain words.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    _install_error_handlers(app)
    app.include_router(_search_routes(service))
    app.include_router(_picture_routes(service))
    app.include_router(_state_routes(service))
    app.include_router(_page_routes())
    return Guard(app, service.metrics, service.limits, access)


def _search_routes(service: Service) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["search"])

    @router.get("/search", response_model=s.Hits, responses=_SEARCH_ERRORS)
    async def search_by_words(
        text: Annotated[s.Text, Query(examples=["a harbour full of boats"])],
        k: Annotated[s.Count, Query()] = 10,
    ) -> Response:
        """Pictures for a text."""
        hits = await service.search(Ask(k, text=text))
        return _hits(text, hits, service.warnings(text))

    @router.post("/search", response_model=s.Hits, responses=_SEARCH_ERRORS)
    async def search(query: s.Search) -> Response:
        """Pictures for a text, or like that of a row, with filters."""
        filters = _conditions(query.filters)
        hits = await service.search(Ask(query.k, text=query.text, id=query.id, filters=filters))
        texts = () if query.text is None else (query.text,)
        return _hits(query.text or query.id, hits, service.warnings(*texts))

    @router.post("/search/image", response_model=s.Hits, responses=_PICTURE_ERRORS)
    async def search_by_image(
        image: Annotated[UploadFile, File(description="The picture's file.")],
        k: Annotated[s.Count, Form()] = 10,
        filters: _Filters = "[]",
    ) -> Response:
        """Pictures like one that is brought."""
        ask = Ask(k, filters=_conditions(s.filters_of(filters)))
        hits = await service.search_picture(await image.read(), ask)
        return _hits(image.filename, hits, [])

    return router


def _picture_routes(service: Service) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["pictures"])

    @router.post("/find", response_model=s.FindResponse, responses=_PICTURE_ERRORS)
    async def find(
        text: Annotated[s.Text, Form()],
        image: Annotated[UploadFile | None, File(description="The picture's file.")] = None,
        id: Annotated[s.Id | None, Form(description="Or the id of a row.")] = None,
        against: Annotated[list[s.Text] | None, Form(max_length=s.LIMITS.against)] = None,
        patch: Annotated[
            list[s.Side] | None, Form(max_length=4, description="Sides of patches.")
        ] = None,
        overlap: Annotated[float, Form(ge=0, le=MAX_OVERLAP, allow_inf_nan=False)] = OVERLAP,
        k: Annotated[s.Count, Form()] = 10,
    ) -> Response:
        """Where in a picture a text is: patches, ranked, and a map to lay over the picture."""
        if (image is None) == (id is None):
            raise RequestError(422, "expected either image or id")
        question = Question(
            text,
            tuple(against) if against else None,
            tuple(patch) if patch else None,
            overlap,
            service.limits.patches,
        )
        source = await image.read() if image is not None else str(id)
        return _json(await service.find(source, question, k))

    @router.get(
        "/pictures",
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {}, "application/octet-stream": {}}},
            304: {},
            **_SEARCH_ERRORS,
            **s.errors(403),
        },
    )
    async def picture(
        request: Request,
        id: Annotated[s.Id, Query()],
        side: Annotated[int, Query(ge=16, le=s.LIMITS.thumbnail_side)] = 256,
        original: Annotated[
            bool, Query(description="The file itself, where the server shows paths.")
        ] = False,
    ) -> Response:
        """A row's picture as a JPEG whose longer side has at most `side` pixels."""
        if original:
            data, name = await service.original(id)
            attached = f"attachment; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
            headers = {"content-disposition": attached, "cache-control": "no-store"}
            return Response(data, 200, headers, "application/octet-stream")
        data, tag = await service.picture(id, side)
        headers = {"etag": tag, "cache-control": "private, max-age=60"}
        if request.headers.get("if-none-match") == tag:
            return Response(None, 304, headers)
        return Response(data, 200, headers, "image/jpeg")

    return router


def _state_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.get("/api/columns", response_model=s.ColumnList, responses=s.errors(503))
    async def columns() -> Response:
        """What there is to filter by."""
        return _json(await service.columns())

    @router.get("/healthz")
    async def health() -> dict[str, bool]:
        """Whether the server runs at all."""
        return {"alive": True}

    @router.get("/readyz", response_model=s.Ready, responses=s.errors(503))
    async def ready() -> Response:
        """Whether the model is warm and the store is there."""
        return _json(await service.ready())

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters in Prometheus's text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _conditions(filters: list[s.Filter]) -> tuple[Condition, ...]:
    return tuple(one.condition() for one in filters)


def _hits(query: str | None, hits: Hits, warnings: list[str]) -> Response:
    return _json({"query": query, "hits": hits, "warnings": warnings})


def _json(document: Any) -> Response:
    # Not through the response model, which takes longer than the search.
    return Response(as_json(document), media_type="application/json")


_FOLDER = Path(__file__).with_name("static")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


def _page_routes() -> APIRouter:
    """A route for each file, so that no path from a client is ever looked up in a folder."""
    router = APIRouter(include_in_schema=False)
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            url = "/" if path.name == "index.html" else f"/static/{path.name}"
            _serve(router, url, path.read_bytes(), _TYPES[path.suffix])
    return router


def _serve(router: APIRouter, url: str, data: bytes, kind: str) -> None:
    async def file() -> Response:
        # Always asked for anew: the files change with the server's version.
        return Response(data, 200, {"cache-control": "no-cache"}, kind)

    router.add_api_route(url, file, methods=["GET"])


_LOG = logging.getLogger("rsicd_embed.server")
# Waiting may help.
_RETRY = {"retry-after": "2"}


def _install_error_handlers(app: FastAPI) -> None:
    """Makes an application answer with JSON whatever is raised."""
    app.add_exception_handler(RequestError, _request)
    app.add_exception_handler(FindError, _find)
    app.add_exception_handler(StoreError, _unavailable)
    app.add_exception_handler(ModelError, _unavailable)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def _answer(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """An error as JSON."""
    body = as_json({"error": " ".join(text.split())})
    if status == 503:
        headers = {**_RETRY, **(headers or {})}
    return Response(body, status, headers, "application/json")


async def _request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _answer(error.status, str(error))


async def _find(_: Request, error: Exception) -> Response:
    return _answer(422, str(error))


async def _unavailable(_: Request, error: Exception) -> Response:
    # Its message names folders; that is for who runs the server.
    _LOG.warning("%s", error)
    return _answer(503, "the store is not available now; the server's log says why")


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(422, "; ".join(map(_told, error.errors()[:5])))


def _told(one: dict[str, Any]) -> str:
    place: Sequence[object] = one.get("loc", ())
    where = ".".join(str(part) for part in place if part not in ("body", "query"))
    message = str(one.get("msg", "not valid")).removeprefix("Value error, ")
    return f"{where[:100]}: {message}" if where else message


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return _answer(error.status_code, str(error.detail), headers)


async def _unexpected(_: Request, error: Exception) -> Response:
    _LOG.error("unexpected", exc_info=error)
    return _answer(500, "the server failed unexpectedly; its log says how")
