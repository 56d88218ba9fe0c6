"""The routes of the HTTP API and of the search page, and the JSON of their errors."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, File, Form, Query, Request, UploadFile
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field
from starlette.responses import Response

from rsicd_embed.errors import RequestError
from rsicd_embed.find.finding import OVERLAP, Question
from rsicd_embed.find.patches import MAX_OVERLAP
from rsicd_embed.query.composed import Part, parse_all
from rsicd_embed.query.composed import Query as ComposedQuery
from rsicd_embed.server import schemas as s
from rsicd_embed.server.engine import SearchQuery, SearchResult
from rsicd_embed.server.error_responses import add_error_handlers, json_response
from rsicd_embed.server.middleware import LOOPBACK, Access, App, Guard
from rsicd_embed.server.page_routes import page_routes
from rsicd_embed.server.page_schemas import ColumnList, Ready
from rsicd_embed.server.parameters import require_known_parameters
from rsicd_embed.server.request_log import count_rows
from rsicd_embed.server.service import Service

_SEARCH_ERRORS = s.errors(404, 413, 422, 503)
_IMAGE_ERRORS = s.errors(404, 413, 415, 422, 503)

_KNOWN = [Depends(require_known_parameters)]
_STATIC = Path(__file__).with_name("static")
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}

_Texts = Annotated[tuple[s.Text, ...], Field(max_length=s.LIMITS.parts)]
_Ids = Annotated[tuple[s.Id, ...], Field(max_length=s.LIMITS.parts)]
_Filters = Annotated[
    str,
    Form(
        max_length=s.LIMITS.body_bytes,
        description="A list of filters, as JSON.",
        examples=['[{"column": "label", "operator": "=", "value": "port"}]'],
    ),
]


def create_app(service: Service, access: Access = LOOPBACK) -> App:
    """Creates the ASGI application: the API under /api and the page at /.

    Args:
        service: the operations behind the routes.
        access: the hosts and origins that requests may use; only this machine by default.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.close()

    # FastAPI's documentation pages would load scripts from a CDN.
    app = FastAPI(
        title="rsicd-embed",
        summary="Search satellite imagery in plain words.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    add_error_handlers(app)
    app.include_router(_search_routes(service))
    app.include_router(_image_routes(service))
    app.include_router(_state_routes(service))
    app.include_router(page_routes(service))
    app.include_router(_static_routes())
    return Guard(app, service.metrics, service.limits, access)


def _search_routes(service: Service) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["search"], dependencies=_KNOWN)

    def response(query: str | None, hits: list[SearchResult], warnings: list[str]) -> Response:
        listed = [hit.as_json(with_paths=service.shows_paths) for hit in hits]
        count_rows(len(listed))
        return json_response({"query": query, "hits": listed, "warnings": warnings})

    @router.get("/search", response_model=s.Hits, responses=_SEARCH_ERRORS)
    async def search_by_words(
        text: Annotated[_Texts, Query(examples=["a harbour full of boats"])] = (),
        avoided: Annotated[_Texts, Query(alias="not", description="Texts to avoid.")] = (),
        like: Annotated[_Ids, Query(description="Ids of similar rows.")] = (),
        unlike: Annotated[_Ids, Query(description="Ids of dissimilar rows.")] = (),
        k: Annotated[s.Count, Query()] = 10,
        offset: Annotated[s.Offset, Query()] = 0,
        min_score: Annotated[s.Score | None, Query()] = None,
        within: Annotated[s.WithinText, Query()] = None,
        near: Annotated[s.NearPlace, Query()] = None,
        contained: Annotated[s.Contained, Query()] = False,
        merge: Annotated[s.Merge, Query()] = None,
        prompts: Annotated[s.Prompts, Query()] = None,
        hybrid: Annotated[bool, Query(description="Fuse similarity with full text.")] = False,
        text_column: Annotated[str | None, Query(max_length=s.LIMITS.id_chars)] = None,
    ) -> Response:
        """Search by texts and rows; `2*harbour` counts twice."""
        query = s.make_query(
            parse_all(texts=text, avoided=avoided, like=like, unlike=unlike),
            k=k,
            offset=offset,
            min_score=min_score,
            within=within,
            near=near,
            contained=contained,
            merge=merge,
            prompts=prompts,
            hybrid=hybrid,
            text_column=text_column,
        )
        hits = await service.search(SearchQuery(query))
        return response(query.title, hits, service.warnings(*query.texts))

    @router.post("/search", response_model=s.Hits, responses=_SEARCH_ERRORS)
    async def search(request: s.Search) -> Response:
        """Search by texts and rows, with weights and filters."""
        query = request.query()
        hits = await service.search(SearchQuery(query, s.conditions_of(request.filters)))
        return response(query.title, hits, service.warnings(*query.texts))

    @router.post("/search/image", response_model=s.Hits, responses=_IMAGE_ERRORS)
    async def search_by_image(
        image: Annotated[UploadFile, File(description="The query image.")],
        k: Annotated[s.Count, Form()] = 10,
        offset: Annotated[s.Offset, Form()] = 0,
        min_score: Annotated[s.Score | None, Form()] = None,
        within: Annotated[s.WithinText, Form()] = None,
        near: Annotated[s.NearPlace, Form()] = None,
        contained: Annotated[s.Contained, Form()] = False,
        merge: Annotated[s.Merge, Form()] = None,
        parts: Annotated[
            str, Form(max_length=s.LIMITS.body_bytes, description="Further parts, as JSON.")
        ] = "[]",
        prompts: Annotated[s.Prompts, Form()] = None,
        filters: _Filters = "[]",
    ) -> Response:
        """Search for images similar to an uploaded one, which may be one part of several."""
        more = [item.part() for item in s.parse_parts(parts)]
        texts = [part.text for part in more if part.text is not None]

        def query(uploaded: Part) -> ComposedQuery:
            return s.make_query(
                [uploaded, *more],
                k=k,
                offset=offset,
                min_score=min_score,
                within=within,
                near=near,
                contained=contained,
                merge=merge,
                prompts=prompts,
            )

        conditions = s.conditions_of(s.parse_filters(filters))
        hits = await service.search_image(await image.read(), query, conditions)
        title = ", ".join([image.filename or "an image", *map(str, more)])
        return response(title, hits, service.warnings(*texts))

    return router


def _image_routes(service: Service) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["pictures"], dependencies=_KNOWN)

    @router.post("/find", response_model=s.FindResponse, responses=_IMAGE_ERRORS)
    async def find(
        text: Annotated[s.Text, Form(description="The text to find.")],
        image: Annotated[UploadFile | None, File(description="The image.")] = None,
        id: Annotated[s.Id | None, Form(description="Id of a row, instead of an image.")] = None,
        against: Annotated[
            list[s.Text] | None,
            Form(max_length=s.LIMITS.against, description="Alternative texts."),
        ] = None,
        patch: Annotated[
            list[s.Side] | None, Form(max_length=4, description="Sides of patches, in pixels.")
        ] = None,
        overlap: Annotated[float, Form(ge=0, le=MAX_OVERLAP, allow_inf_nan=False)] = OVERLAP,
        k: Annotated[s.Count, Form()] = 10,
    ) -> Response:
        """Find a text in an image: ranked patches, and a heat map to lay over the image."""
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
        return json_response(await service.find(source, question, k))

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
            bool, Query(description="Return the original file, if the server shows paths.")
        ] = False,
    ) -> Response:
        """Return a row's image as a JPEG whose longer side has at most `side` pixels."""
        if original:
            data, name = await service.original(id)
            attachment = f"attachment; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
            headers = {"content-disposition": attachment, "cache-control": "no-store"}
            return Response(data, 200, headers, "application/octet-stream")
        data, etag = await service.thumbnail(id, side)
        return _unless_known(request, data, etag, "private, max-age=60", "image/jpeg")

    return router


def _state_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.get("/api/columns", response_model=ColumnList, responses=s.errors(503))
    async def columns() -> Response:
        """List the attributes to filter by."""
        return json_response(await service.columns())

    @router.get("/healthz")
    async def health() -> dict[str, bool]:
        """Whether the server is running."""
        return {"alive": True}

    @router.get("/readyz", response_model=Ready, responses=s.errors(503))
    async def ready() -> Response:
        """Whether the model is warm and the store is available."""
        return json_response(await service.ready())

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Metrics in Prometheus's text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _static_routes() -> APIRouter:
    """One route per static file, so that no client's path is ever looked up in a folder."""
    router = APIRouter(include_in_schema=False)
    for path in sorted(_STATIC.iterdir()):
        if path.suffix in _MEDIA_TYPES:
            url = "/" if path.name == "index.html" else f"/static/{path.name}"
            _add_file(router, url, path.read_bytes(), _MEDIA_TYPES[path.suffix])
    return router


def _add_file(router: APIRouter, url: str, data: bytes, media_type: str) -> None:
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'

    async def file(request: Request) -> Response:
        # Browsers must revalidate: the files change with the server's version.
        return _unless_known(request, data, etag, "no-cache", media_type)

    router.add_api_route(url, file, methods=["GET"])


def _unless_known(
    request: Request, data: bytes, etag: str, caching: str, media_type: str
) -> Response:
    """The data, or 304 without it if the client has it already."""
    headers = {"etag": etag, "cache-control": caching}
    if request.headers.get("if-none-match") == etag:
        return Response(None, 304, headers)
    return Response(data, 200, headers, media_type)
