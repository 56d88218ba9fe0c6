"""Request and response types of the HTTP API, and their limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict

from rsicd_embed.errors import QueryError, RequestError
from rsicd_embed.query.area import Area, Near
from rsicd_embed.query.composed import WANTED, Part, Query
from rsicd_embed.server.conditions import Condition, Operator

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Limits of requests and connections.

    Attributes:
        text_chars: characters of a text; models read far fewer.
        id_chars: characters of an id.
        hits: hits of a search.
        offset: hits skipped before them.
        parts: texts, images and ids of a query.
        filters: filters of a search.
        against: alternative texts of `find`.
        body_bytes: size of a request without an image.
        upload_bytes: size of a request with an image.
        upload_pixels: pixels of an uploaded image; 120 MB as RGB.
        file_bytes: size of a stored image's file.
        patches: patches of `find`.
        thumbnail_side: longer side of a thumbnail, in pixels.
        jobs: images queued for decoding or `find`.
        connections: open connections; each needs a file descriptor, often limited to 1,024.
        head_bytes: size of a request's line and headers.
        head_s: time to receive a request's line and headers, in seconds.
        body_s: time to receive a request's body, in seconds.
        silence_s: time without receiving a byte of a request, or without the client reading its
            response, in seconds.
    """

    text_chars: int = 1000
    id_chars: int = 4096
    hits: int = 200
    offset: int = 10_000
    parts: int = 64
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


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("expected a text, found nothing but spaces")
    return utf8(value)


def utf8(value: str) -> str:
    """Returns the text; ValueError if it has lone surrogates."""
    if value.encode("utf-8", "replace").decode() != value:
        raise ValueError("expected text in UTF-8")
    return value


Text = Annotated[str, Field(min_length=1, max_length=LIMITS.text_chars), AfterValidator(_not_blank)]
Id = Annotated[str, Field(max_length=LIMITS.id_chars), AfterValidator(utf8)]
Count = Annotated[int, Field(ge=1, le=LIMITS.hits)]
Side = Annotated[int, Field(ge=1, le=1_000_000)]
Score = Annotated[float, Field(ge=-1, le=1, description="Cosine similarity.")]
Rank = Annotated[int, Field(ge=1)]


class Filter(BaseModel):
    """A condition on an attribute; only rows that meet it are searched."""

    model_config = ConfigDict(extra="forbid", strict=True)

    column: Annotated[str, Field(max_length=LIMITS.id_chars, examples=["label"])]
    operator: Operator = "="
    value: Annotated[str, Field(max_length=LIMITS.text_chars)] | int | float | bool | None = None

    def condition(self) -> Condition:
        """Converts the filter for the engine."""
        return Condition(self.column, self.operator, self.value)


Filters = Annotated[list[Filter], Field(max_length=LIMITS.filters)]
_FILTERS: TypeAdapter[list[Filter]] = TypeAdapter(Filters)


def conditions_of(filters: list[Filter]) -> tuple[Condition, ...]:
    """Converts filters for the engine."""
    return tuple(item.condition() for item in filters)


def parse_filters(text: str) -> list[Filter]:
    """Parses the JSON filters of a form field; RequestError 422 if they are not valid."""
    return _parse(_FILTERS, text, "filters")


def _parse(adapter: TypeAdapter[T], text: str, field: str) -> T:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([field, *map(str, first["loc"])])
        raise RequestError(422, f"{place}: {first['msg']}") from error


class QueryPart(BaseModel):
    """A text or the id of a row; a negative weight means that hits should not resemble it.

    All parts with negative weights together weigh as much as the strongest of them.
    """

    model_config = ConfigDict(extra="forbid")

    text: Text | None = None
    id: Id | None = None
    weight: Annotated[float, Field(allow_inf_nan=False)] = WANTED

    def part(self) -> Part:
        """Converts the part for the engine."""
        return Part(self.text, None, self.id, self.weight)


Parts = Annotated[list[QueryPart], Field(max_length=LIMITS.parts)]
_PARTS: TypeAdapter[list[QueryPart]] = TypeAdapter(Parts)


def parse_parts(text: str) -> list[QueryPart]:
    """Parses the JSON parts of a form field; RequestError 422 if they are not valid."""
    return _parse(_PARTS, text, "parts")


Offset = Annotated[int, Field(ge=0, le=LIMITS.offset, description="Best hits to skip.")]
Within = Annotated[
    list[float] | dict[str, Any] | None,
    Field(description="[minlon, minlat, maxlon, maxlat], or a GeoJSON polygon."),
]
WithinText = Annotated[
    str | None,
    Field(
        max_length=LIMITS.body_bytes,
        description="minlon,minlat,maxlon,maxlat, or a GeoJSON polygon.",
    ),
]


def area_of(within: list[float] | dict[str, Any] | str | None) -> Area | None:
    """The area of a request: numbers of a box, or GeoJSON, also as text.

    Raises:
        QueryError: it is not valid.
    """
    if isinstance(within, str) and within.lstrip()[:1] in ("{", "["):
        try:
            within = json.loads(within)
        except (ValueError, RecursionError):
            raise QueryError("within: expected GeoJSON, found something else") from None
    if isinstance(within, dict):
        return Area.of_geojson(within, "within")
    return None if within is None else Area.of_box(within)


Prompts = Annotated[
    str | None,
    Field(
        max_length=LIMITS.text_chars,
        description="Prompts of the texts: an ensemble such as `aerial`, or a template with "
        "`{category}`.",
    ),
]
NearPlace = Annotated[
    str | None, Field(max_length=200, description="lon,lat,radius", examples=["2.35,48.86,5km"])
]
Contained = Annotated[
    bool, Field(description="Only rows that are inside `within` and `near` as a whole.")
]

Merge = Annotated[
    float | None,
    Field(
        gt=0,
        le=1,
        description="Keep the best of hits whose footprints overlap by this (intersection divided "
        "by union).",
    ),
]


class Search(BaseModel):
    """A search by texts and ids of rows; `text` and `id` are parts of weight 1."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[Text | None, Field(examples=["a harbour full of boats"])] = None
    id: Id | None = None
    parts: Annotated[Parts, Field(examples=[[{"text": "oil tanks", "weight": -0.5}]])] = []
    k: Count = 10
    offset: Offset = 0
    min_score: Score | None = None
    within: Within = None
    near: NearPlace = None
    contained: Contained = False
    merge: Merge = None
    with_examples: Annotated[bool, Field(description="Rows given by id may be hits.")] = False
    prompts: Prompts = None
    hybrid: Annotated[bool, Field(description="Fuse similarity with full text.")] = False
    text_column: Annotated[str | None, Field(max_length=LIMITS.id_chars)] = None
    filters: Filters = []

    def query(self) -> Query:
        """Converts the search for the engine.

        Raises:
            QueryError: nothing to look for, an invalid area, or unknown prompts.
        """
        given = [Part(self.text)] if self.text is not None else []
        given += [Part(id=self.id)] if self.id is not None else []
        return make_query(
            [*given, *(item.part() for item in self.parts)],
            k=self.k,
            offset=self.offset,
            min_score=self.min_score,
            within=self.within,
            near=self.near,
            contained=self.contained,
            merge=self.merge,
            with_examples=self.with_examples,
            prompts=self.prompts,
            hybrid=self.hybrid,
            text_column=self.text_column,
        )


def make_query(
    parts: Sequence[Part],
    *,
    k: int,
    offset: int = 0,
    min_score: float | None = None,
    within: list[float] | dict[str, Any] | str | None = None,
    near: str | None = None,
    contained: bool = False,
    merge: float | None = None,
    with_examples: bool = False,
    prompts: str | None = None,
    hybrid: bool = False,
    text_column: str | None = None,
) -> Query:
    """Makes a query of a request's fields.

    Raises:
        QueryError: nothing to look for, an invalid area, or unknown prompts.
    """
    return Query(
        parts,
        k,
        offset,
        within=area_of(within),
        min_score=min_score,
        with_examples=with_examples,
        prompts=prompts,
        hybrid=hybrid,
        text_column=text_column,
        near=None if near is None else Near.parse(near),
        contained=contained,
        merge=merge,
    )


@with_config(ConfigDict(extra="allow"))
class SearchHit(TypedDict):
    """A row, with its attributes as additional fields."""

    rank: Rank
    id: str
    score: Score


Warnings = Annotated[
    list[str], Field(description="Query words that are rare in the model's training captions.")
]


class Hits(TypedDict):
    """The hits of a search, best first."""

    query: str | None
    hits: list[SearchHit]
    warnings: Warnings


class Patch(TypedDict):
    """A patch of an image."""

    rank: Rank
    score: Score
    probability: Annotated[
        float,
        Field(ge=0, le=1, description="Probability of the text against the alternatives."),
    ]
    box: Annotated[
        list[int],
        Field(min_length=4, max_length=4, description="Left, top, right, bottom, in pixels."),
    ]


class FindResponse(TypedDict):
    """The patches of an image that match a text best."""

    query: str
    width: int
    height: int
    against: list[str]
    logit_scale: float
    logit_bias: Annotated[float | None, Field(description="Bias of a SigLIP; null for a CLIP.")]
    count: Annotated[int, Field(description="Number of patches scored.")]
    patches: list[Patch]
    heat_map: Annotated[str, Field(description="A transparent PNG as a data URI.")]
    warnings: Warnings


class Error(BaseModel):
    """Why a request failed, in one line."""

    error: str


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses for error statuses of a route."""
    return {status: {"model": Error} for status in statuses}
