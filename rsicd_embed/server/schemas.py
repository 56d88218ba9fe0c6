"""What requests and answers of the HTTP API look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from rsicd_embed.errors import RequestError
from rsicd_embed.server.conditions import Condition


@dataclass(frozen=True)
class Limits:
    """What is refused beyond.

    Attributes:
        text_chars: of a text; models read far less.
        id_chars: of an id.
        hits: asked for at once.
        filters: conditions in a search.
        against: texts that a patch is compared with.
        body_bytes: of a request that brings no picture.
        upload_bytes: of one that does.
        upload_pixels: of a picture that is brought; 120 MB as RGB.
        file_bytes: of a stored picture's file.
        patches: of a picture that is searched.
        thumbnail_side: of a picture that is shown, in pixels.
        jobs: pictures that wait to be decoded or searched.
        connections: open at once; each takes a file descriptor, of which there are often 1,024.
        head_bytes: of a request's line and headers.
        head_s: for a request's line and headers, in seconds.
        body_s: for the rest of a request.
        silence_s: without a byte of a request, or while a client reads nothing of its response.
    """

    text_chars: int = 1000
    id_chars: int = 4096
    hits: int = 200
    filters: int = 16
    against: int = 20
    body_bytes: int = 64 * 1024
    upload_bytes: int = 20 * 1024 * 1024
    upload_pixels: int = 40_000_000
    file_bytes: int = 256 * 1024 * 1024
    patches: int = 2000
    thumbnail_side: int = 1600
    jobs: int = 64
    connections: int = 512
    head_bytes: int = 64 * 1024
    head_s: float = 10.0
    body_s: float = 120.0
    silence_s: float = 10.0


LIMITS = Limits()


def _text(value: str) -> str:
    """Text that a model can be given."""
    if not value.strip():
        raise ValueError("expected a text, found nothing but spaces")
    return _utf8(value)


def _utf8(value: str) -> str:
    if value.encode("utf-8", "replace").decode() != value:
        raise ValueError("expected text in UTF-8")
    return value


Text = Annotated[str, Field(min_length=1, max_length=LIMITS.text_chars), AfterValidator(_text)]
Id = Annotated[str, Field(max_length=LIMITS.id_chars), AfterValidator(_utf8)]
Count = Annotated[int, Field(ge=1, le=LIMITS.hits)]
Side = Annotated[int, Field(ge=1, le=1_000_000)]
Operator = Literal[
    "=", "!=", "<", "<=", ">", ">=", "contains", "starts with", "is empty", "is not empty"
]


class Filter(BaseModel):
    """A condition on an attribute: only rows for which it is true are searched."""

    model_config = ConfigDict(extra="forbid", strict=True)

    column: Annotated[str, Field(max_length=LIMITS.id_chars, examples=["label"])]
    operator: Operator = "="
    value: Annotated[str, Field(max_length=LIMITS.text_chars)] | int | float | bool | None = None

    def condition(self) -> Condition:
        """As the engine takes it."""
        return Condition(self.column, self.operator, self.value)


Filters = Annotated[list[Filter], Field(max_length=LIMITS.filters)]
_FILTERS: TypeAdapter[list[Filter]] = TypeAdapter(Filters)


def filters_of(text: str) -> list[Filter]:
    """Filters from a form, where they are JSON in a field.

    Raises:
        RequestError: 422: they are not.
    """
    try:
        return _FILTERS.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(["filters", *map(str, first["loc"])])
        raise RequestError(422, f"{place}: {first['msg']}") from error


class Search(BaseModel):
    """A search by a text, or by the id of a row."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[Text | None, Field(examples=["a harbour full of boats"])] = None
    id: Id | None = None
    k: Count = 10
    filters: Filters = []

    @model_validator(mode="after")
    def _one_of_two(self) -> Search:
        if (self.text is None) == (self.id is None):
            raise ValueError("expected either text or id")
        return self


class SearchHit(BaseModel):
    """A row, with its attributes as further fields."""

    model_config = ConfigDict(extra="allow")

    rank: Annotated[int, Field(ge=1)]
    id: str
    score: Annotated[float, Field(ge=-1, le=1, description="Cosine similarity.")]


Warnings = Annotated[
    list[str], Field(description="Words of the query that the model was hardly trained on.")
]


class Hits(BaseModel):
    """Hits, best first."""

    query: str | None
    hits: list[SearchHit]
    warnings: Warnings


class Patch(BaseModel):
    """A part of a picture."""

    rank: Annotated[int, Field(ge=1)]
    score: Annotated[float, Field(ge=-1, le=1, description="Cosine similarity.")]
    probability: Annotated[
        float, Field(ge=0, le=1, description="That it shows the text, not one of `against`.")
    ]
    box: Annotated[
        list[int], Field(min_length=4, max_length=4, description="Left, top, right, bottom.")
    ]


class FindResponse(BaseModel):
    """Where in a picture a text is."""

    query: str
    width: int
    height: int
    against: list[str]
    logit_scale: float
    count: Annotated[int, Field(description="Patches that were looked at.")]
    patches: list[Patch]
    heat_map: Annotated[str, Field(description="A transparent PNG as a data URI.")]
    warnings: Warnings


class Column(BaseModel):
    """An attribute that filters may name."""

    name: str
    kind: Literal["text", "number", "truth", "time"]
    operators: list[Operator]
    type: Annotated[str, Field(description="Of Arrow.", examples=["timestamp[us, tz=UTC]"])]
    values: Annotated[list[str] | None, Field(description="All there are, if few.")] = None
    names: Annotated[
        dict[str, str] | None, Field(description="Class names in words, by value.")
    ] = None
    min: float | str | None = None
    max: float | str | None = None


class Place(BaseModel):
    """The columns that hold coordinates, in degrees."""

    lon: str
    lat: str


class ColumnList(BaseModel):
    """What there is to filter by."""

    rows: int
    columns: list[Column]
    place: Place | None
    originals: Annotated[bool, Field(description="Whether files can be downloaded unchanged.")]


class Ready(BaseModel):
    """What is served."""

    ready: bool
    rows: int
    model: str


class Error(BaseModel):
    """Why a request was not answered, in one line."""

    error: str


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The part of an OpenAPI document that tells which errors a route may give."""
    return {status: {"model": Error} for status in statuses}
