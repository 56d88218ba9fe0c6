"""A Model Context Protocol server: search, find and sql over a store as read-only tools.

Tools name rows, never files: pictures are read through `image_files`, which checks that a row's
file is unchanged, and SQL must not read images by path.
"""

from __future__ import annotations

import base64
import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import ImageContent, TextContent, ToolAnnotations
from PIL import Image
from pydantic import Field

from rsicd_embed.embedder.base import word_warnings
from rsicd_embed.errors import RequestError, RsicdEmbedError, SQLError, StoreError
from rsicd_embed.find import finding, heatmap
from rsicd_embed.json_output import as_json
from rsicd_embed.query.area import Near
from rsicd_embed.query.composed import Part, Query, parse_all
from rsicd_embed.query.run import run
from rsicd_embed.query.search import search as run_query
from rsicd_embed.query.similarity import find_calls
from rsicd_embed.records import python_rows, python_values
from rsicd_embed.server import image_files
from rsicd_embed.server.engine import Engine, StoredFile
from rsicd_embed.server.schemas import LIMITS, Contained, Limits, NearPlace, area_of

Content = TextContent | ImageContent

_ROWS = 200  # rows of an SQL result, and hits
_PICTURES = 20
_READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)

_Texts = Annotated[list[str], Field(max_length=LIMITS.parts)]
_Pictures = Annotated[int, Field(ge=0, le=_PICTURES, description="Thumbnails to return.")]
_Count = Annotated[int, Field(ge=1, le=_ROWS)]
_Side = Annotated[int, Field(ge=64, le=1024, description="Longer side of a picture, in pixels.")]


def create_server(engine: Engine, limits: Limits = LIMITS) -> MCPServer:
    """Creates the server; `run()` serves standard input and output.

    Args:
        engine: the store and its model.
        limits: limits of texts and of images.
    """
    tools = _Tools(engine, limits)
    return MCPServer(
        "rsicd-embed",
        instructions=f"Search the satellite images of {engine.uri} in plain words. Read-only.",
        log_level="WARNING",
        tools=[_strict(tool) for tool in (tools.search, tools.find, tools.sql)],
    )


def _strict(function: Callable[..., list[Content]]) -> Tool:
    """A tool that refuses unknown arguments, which the SDK would ignore."""
    tool = Tool.from_function(function, annotations=_READ_ONLY, structured_output=False)
    arguments = tool.fn_metadata.arg_model
    arguments.model_config["extra"] = "forbid"
    arguments.model_rebuild(force=True)
    tool.parameters = arguments.model_json_schema(by_alias=True)
    return tool


class _Tools:
    """The tools; one call runs at a time, since embedders may be unsafe in several threads."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine, self._limits = engine, limits
        self._mutex = threading.Lock()

    def search(
        self,
        texts: Annotated[_Texts, Field(description="Texts that hits should match.")] = [],  # noqa: B006
        avoid: Annotated[_Texts, Field(description="Texts that hits should not match.")] = [],  # noqa: B006
        like: Annotated[_Texts, Field(description="Ids of similar images.")] = [],  # noqa: B006
        unlike: Annotated[_Texts, Field(description="Ids of dissimilar images.")] = [],  # noqa: B006
        k: _Count = 10,
        offset: Annotated[int, Field(ge=0, le=LIMITS.offset)] = 0,
        where: Annotated[str | None, Field(description="SQL condition on the columns.")] = None,
        within: Annotated[
            str | dict[str, Any] | None,
            Field(description="minlon,minlat,maxlon,maxlat, or a GeoJSON polygon."),
        ] = None,
        near: NearPlace = None,
        contained: Contained = False,
        min_score: Annotated[float | None, Field(ge=-1, le=1)] = None,
        merge: Annotated[
            float | None, Field(gt=0, le=1, description="Merge hits of overlapping footprints.")
        ] = None,
        hybrid: Annotated[bool, Field(description="Also search a text column.")] = False,
        text_column: str | None = None,
        prompts: Annotated[str | None, Field(description="aerial, photograph or none")] = None,
        pictures: _Pictures = 5,
        side: _Side = 256,
    ) -> list[Content]:
        """Find the images most similar to texts and to other images of the store.

        Returns the hits as JSON, then thumbnails of the first ones, each after its id.
        """
        with self._call():
            for text in (*texts, *avoid):
                self._require_usable(text)
            served = self._engine.open()
            query = Query(
                parse_all(texts=texts, like=like, avoided=avoid, unlike=unlike),
                k=k,
                offset=offset,
                where=where,
                within=area_of(within),
                near=None if near is None else Near.parse(near),
                contained=contained,
                min_score=min_score,
                merge=merge,
                prompts=prompts,
                hybrid=hybrid,
                text_column=text_column,
            )
            hits = python_rows(run_query(query, served.store, served.embedder))
            for hit in hits:
                del hit["query"]
            notes = word_warnings(served.embedder, query.texts)
            document = {"query": query.title, "hits": hits, "warnings": notes}
            return self._with_pictures(document, [hit["id"] for hit in hits[:pictures]], side)

    def find(
        self,
        text: Annotated[str, Field(description="The text to find.")],
        id: Annotated[str, Field(description="Id of an image of the store.")],
        k: _Count = 5,
        side: _Side = 512,
    ) -> list[Content]:
        """Find where in an image a text is: ranked boxes in pixels, and a heat map."""
        with self._call():
            self._require_usable(text)
            (file,) = self._engine.files([id])
            if not isinstance(file, StoredFile):
                raise file
            image = image_files.stored_picture(file, self._limits)
            model = self._engine.open().embedder
            question = finding.Question(text, most=self._limits.patches)
            result = finding.find(image, question, model)
            drawn = heatmap.draw(image, result)
            drawn.thumbnail((side, side), Image.Resampling.LANCZOS)
            encoded = io.BytesIO()
            drawn.convert("RGB").save(encoded, "JPEG", quality=85)
            document = {
                "query": text,
                "id": id,
                "width": image.width,
                "height": image.height,
                "patches": result.best(k),
                "warnings": word_warnings(model, [text]),
            }
            return [_text(document), _picture(encoded.getvalue())]

    def sql(
        self,
        query: Annotated[str, Field(description="One SELECT over the table images.")],
        pictures: _Pictures = 0,
        side: _Side = 256,
    ) -> list[Content]:
        """Query the rows with SQL in DataFusion's dialect; read-only.

        The rows are in the table images: SELECT * FROM images LIMIT 1 shows the columns.
        similarity('a text') is the score of a search. At most 200 rows are returned; with pictures,
        thumbnails of the first rows if the result has a column id.
        """
        with self._call():
            if any(part.image is not None for call in find_calls(query) for part in call.parts):
                raise SQLError(
                    "expected similarities to texts and ids, found a similarity to an image file"
                )
            served = self._engine.open()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with run(query, served.store, lambda: served.embedder) as reader:
                    names = reader.schema.names
                    rows = list(islice(_rows(reader), _ROWS + 1))
            document = {
                "columns": names,
                "rows": rows[:_ROWS],
                "truncated": len(rows) > _ROWS,
                "warnings": [str(warning.message) for warning in caught],
            }
            place = names.index("id") if "id" in names else None
            ids = [] if place is None else [str(row[place]) for row in rows[:pictures]]
            return self._with_pictures(document, ids, side)

    def _with_pictures(
        self, document: dict[str, Any], ids: Sequence[str], side: int
    ) -> list[Content]:
        """The document, then each picture after its id, or the reason why there is none."""
        contents: list[Content] = []
        for id_, file in zip(ids, self._engine.files(ids) if ids else (), strict=True):
            try:
                if not isinstance(file, StoredFile):
                    raise file
                data = image_files.read(file, self._limits.file_bytes)
                shown: list[Content] = [
                    _text({"id": id_}),
                    _picture(image_files.thumbnail(data, side)),
                ]
            except RequestError as error:
                shown = [_text({"id": id_, "error": str(error)})]
            contents += shown
        return [_text(document), *contents]

    def _require_usable(self, text: str) -> None:
        if len(text) > self._limits.text_chars:
            raise ToolError(
                f"expected texts of at most {self._limits.text_chars:,} characters, "
                f"found {len(text):,}"
            )
        Part(text)

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Waits for other calls, and reports errors in one line."""
        with self._mutex:
            try:
                yield
            except RsicdEmbedError as error:
                if isinstance(error, StoreError):
                    self._engine.close()  # the next call opens the store as it is then
                raise ToolError(" ".join(str(error).split())) from error


def _rows(reader: Any) -> Iterator[list[Any]]:
    for batch in reader:
        for row in range(0, len(batch), _ROWS):
            piece = batch.slice(row, _ROWS)
            columns = map(python_values, piece.columns)  # names may be repeated
            yield from map(list, zip(*columns, strict=True))


def _text(document: dict[str, Any]) -> TextContent:
    return TextContent(type="text", text=as_json(document).decode())


def _picture(jpeg: bytes) -> ImageContent:
    data = base64.b64encode(jpeg).decode()
    return ImageContent(type="image", data=data, mime_type="image/jpeg")


def serve(engine: Engine, started: Callable[[], None]) -> None:
    """Serves standard input and output until the client closes them."""
    engine.open()
    server = create_server(engine)
    started()
    server.run("stdio")
