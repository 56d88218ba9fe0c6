"""The page at /, and the few files that it is made of.

They are written by hand and served as they are: nothing is built, and nothing is loaded from
elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

_FOLDER = Path(__file__).with_name("static")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


def routes() -> APIRouter:
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
