"""The routes that only the search page needs: the overview, and corrections of labels."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
from fastapi import APIRouter
from starlette.responses import Response

from rsicd_embed.query import table_files
from rsicd_embed.server import page_schemas
from rsicd_embed.server import schemas as s
from rsicd_embed.server.error_responses import json_response
from rsicd_embed.server.service import Service


def page_routes(service: Service) -> APIRouter:
    """Creates the routes."""
    router = APIRouter(prefix="/api", tags=["page"])

    @router.post(
        "/overview", response_model=page_schemas.Overview, responses=s.errors(413, 422, 503)
    )
    async def overview(request: page_schemas.Browse) -> Response:
        """Return a sample of the rows, and all places on a grid."""
        filters = s.conditions_of(request.filters)
        return json_response(await service.overview(request.k, filters, request.areas()))

    @router.post(
        "/labels",
        response_model=page_schemas.LabelResponse,
        responses=s.errors(403, 404, 409, 413, 422, 503),
    )
    async def set_label(request: page_schemas.LabelChange) -> Response:
        """Correct the label of a row, if the server was started with --allow-labels."""
        state = request.state()
        before = await service.set_label(request.id, request.was, state)
        after = {"id": request.id, **dataclasses.asdict(state)}
        return json_response({**after, "before": dataclasses.asdict(before)})

    @router.get(
        "/labels",
        response_class=Response,
        responses={200: {"content": {"text/csv": {}}}, **s.errors(403, 503)},
    )
    async def labels() -> Response:
        """Return the corrected labels as a CSV file for `label --examples`."""
        corrected = await service.corrected_labels()
        schema = pa.schema([("id", pa.string()), ("label", pa.string())])
        table = pa.table([list(corrected), list(corrected.values())], schema=schema)
        headers = {
            "content-disposition": 'attachment; filename="labels.csv"',
            "cache-control": "no-store",
        }
        content = b"".join(table_files.encoded(table.to_batches(), table.schema, "csv"))
        return Response(content, 200, headers, "text/csv; charset=utf-8")

    return router
