"""Request and response types of what only the search page needs: columns, the overview, state."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from rsicd_embed.curation.corrections import LabelState
from rsicd_embed.errors import RequestError
from rsicd_embed.query.area import Area
from rsicd_embed.server.conditions import Kind, Operator
from rsicd_embed.server.schemas import Count, Filters, Id, Within, area_of, utf8


class Column(TypedDict):
    """An attribute to filter by."""

    name: str
    kind: Kind
    operators: list[Operator]
    type: Annotated[str, Field(description="Arrow type.", examples=["timestamp[us, tz=UTC]"])]
    values: NotRequired[Annotated[list[str], Field(description="All values, if there are few.")]]
    names: NotRequired[Annotated[dict[str, str], Field(description="Readable names, by value.")]]
    min: NotRequired[float | str]
    max: NotRequired[float | str]


class Place(TypedDict):
    """The columns of longitudes and latitudes, in degrees."""

    lon: str
    lat: str


class StoreColumns(TypedDict):
    """The attributes of a store's rows."""

    rows: int
    columns: list[Column]
    place: Place | None


class LabelNames(TypedDict):
    """The columns of a label, its probability and its correction; they need not exist yet."""

    label: str
    probability: str
    corrected: str
    writable: Annotated[bool, Field(description="Whether clients may correct labels.")]


class ColumnList(StoreColumns):
    """The attributes to filter by."""

    labels: LabelNames | None

    originals: Annotated[
        bool, Field(description="Whether the original image files can be downloaded.")
    ]


class Ready(TypedDict):
    """The state of a server that is ready."""

    ready: bool
    rows: int
    model: str


class Browse(BaseModel):
    """What to show of the store without a query: only rows that meet the filters."""

    model_config = ConfigDict(extra="forbid")

    k: Count = 24
    within: Within = None
    view: Within = None
    filters: Filters = []

    def areas(self) -> tuple[Area, ...]:
        """The areas that rows intersect: a limit, and the visible part of a map.

        Raises:
            QueryError: one of them is not valid.
        """
        areas = (area_of(self.within), area_of(self.view))
        return tuple(area for area in areas if area is not None)


@with_config(ConfigDict(extra="allow"))
class SampleRow(TypedDict):
    """A row, with its attributes as additional fields."""

    id: str


class PlaceGroup(TypedDict):
    """Rows at about one place."""

    count: int
    lon: Annotated[float, Field(description="Mean longitude of these rows.")]
    lat: Annotated[float, Field(description="Mean latitude of these rows.")]
    box: Annotated[
        list[float],
        Field(min_length=4, max_length=4, description="minlon, minlat, maxlon, maxlat."),
    ]


class Overview(TypedDict):
    """A sample of rows, and the places of all rows on a grid of at most 72 by 36 cells."""

    rows: Annotated[int, Field(description="Rows that meet the conditions.")]
    complete: Annotated[bool, Field(description="False if only the first rows were counted.")]
    sample: list[SampleRow]
    places: list[PlaceGroup]


LabelText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(utf8)]


class LabelChange(BaseModel):
    """A person's label for a row; without `corrected`, it takes back an earlier correction."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    label: LabelText | None
    was: Annotated[LabelText | None, Field(description="The label that the person saw.")] = None
    corrected: bool = True
    probability: Annotated[float | None, Field(ge=0, le=1)] = None

    def state(self) -> LabelState:
        """The state to write.

        Raises:
            RequestError: 422: a correction without a label.
        """
        if not self.corrected:
            return LabelState(self.label, self.probability, None)
        if self.label is None:
            raise RequestError(422, "expected the label of a correction, found none")
        return LabelState(self.label, 1.0, self.label)


class LabelResponse(TypedDict):
    """A row's label after a change, and before it."""

    id: str
    label: str | None
    probability: float | None
    corrected: str | None
    before: Annotated[dict[str, Any], Field(description="The same three fields.")]
