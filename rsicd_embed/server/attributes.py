"""Describe a store's columns for building filters: their operators and values."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.datasets.classes import readable
from rsicd_embed.query.area import coordinate_columns
from rsicd_embed.server.conditions import OPERATORS, filterable, zone_of
from rsicd_embed.stores.base import VectorStore

if TYPE_CHECKING:
    from rsicd_embed.server.page_schemas import Column, Place, StoreColumns

# A column with more distinct texts is not offered as a list of values.
_MOST_VALUES = 60
# Columns of class names, and values that are names; others may be codes or sentences.
_CLASSES = re.compile("label|class|category", re.IGNORECASE)
_CLASS_NAME = re.compile("[A-Za-z]+([ _-][A-Za-z]+)*")
_NOT_FILTERED = ("id", "uri", "sha256", "object_etag")
_LAST = ("width", "height")  # listed after the columns of the source


def describe(store: VectorStore) -> StoreColumns:
    """Lists the columns to filter by.

    Text columns with few values include them, the most frequent first, and readable names for
    classes; number and time columns include their minimum and maximum.
    """
    kinds = filterable(store.schema)
    names = [name for name in kinds if name not in _NOT_FILTERED]
    kinds = {name: kinds[name] for name in sorted(names, key=lambda name: name in _LAST)}
    texts = [name for name, kind in kinds.items() if kind == "text"]
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    times = [name for name, kind in kinds.items() if kind == "time"]
    values, ranges, rows = _summarise(store, texts, [*numbers, *times])
    columns: list[Column] = []
    for name, kind in kinds.items():
        type_ = store.schema.field(name).type
        column: Column = {
            "name": name,
            "kind": kind,
            "operators": list(OPERATORS[kind]),
            "type": str(type_),
        }
        if values.get(name):
            column["values"] = [value for value, _ in values[name].most_common()]
            if class_names := _class_names(name, column["values"]):
                column["names"] = class_names
        if name in ranges:
            column["min"], column["max"] = (_json_value(value, type_) for value in ranges[name])
        columns.append(column)
    names_of_place = coordinate_columns(store.schema)
    place: Place | None = None
    if names_of_place is not None:
        place = {"lon": names_of_place[0], "lat": names_of_place[1]}
    return {"rows": rows, "columns": columns, "place": place}


def _class_names(column: str, values: list[str]) -> dict[str, str]:
    """Readable names of classes, such as `dense residential area` for `denseresidential`."""
    if not _CLASSES.search(column):
        return {}
    names = {value: readable(value) for value in values if _CLASS_NAME.fullmatch(value)}
    return {value: name for value, name in names.items() if name != value}


def _json_value(value: Any, type_: pa.DataType) -> float | str:
    """A number unchanged, or a time in ISO 8601, in the column's time zone."""
    if isinstance(value, dt.datetime) and getattr(type_, "tz", None):
        with suppress(ValueError):  # an unknown zone: use UTC
            return value.replace(tzinfo=dt.UTC).astimezone(zone_of(type_)).isoformat()
        return value.replace(tzinfo=dt.UTC).isoformat()
    result: float | str = value.isoformat() if isinstance(value, dt.date) else value
    return result


def _summarise(
    store: VectorStore, texts: list[str], ordered: list[str]
) -> tuple[dict[str, Counter[str]], dict[str, tuple[Any, Any]], int]:
    """Counts of texts, (minimum, maximum) of ordered columns, and the number of rows.

    Columns with many texts, or with times that Python cannot represent, are left out.
    """
    values = {name: Counter[str]() for name in texts}
    ranges: dict[str, tuple[Any, Any]] = {}
    rows = 0
    with store.scan(["id", *texts, *ordered]) as reader:
        for batch in reader:
            rows += len(batch)
            for name in list(values):
                for entry in pc.value_counts(batch.column(name).drop_null()):
                    values[name][entry["values"].as_py()] += entry["counts"].as_py()
                if len(values[name]) > _MOST_VALUES:
                    del values[name]
            for name in list(ordered):
                try:
                    _extend(ranges, name, batch.column(name))
                except (ValueError, OverflowError):
                    ordered.remove(name)
                    ranges.pop(name, None)
    return values, ranges, rows


def _extend(ranges: dict[str, tuple[Any, Any]], name: str, column: pa.Array) -> None:
    """Extends the range of a column by a batch of its values.

    Raises:
        ValueError, OverflowError: a time after the year 9999.
    """
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())  # Arrow cannot compare the others
    if pa.types.is_floating(column.type):
        column = column.filter(pc.is_finite(column))
    if pa.types.is_timestamp(column.type):
        # Drop the zone, which this machine may not know; values are in UTC.
        in_zone = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        column = in_zone.cast(pa.timestamp("us"))
    extremes = pc.min_max(column).as_py()
    if extremes["min"] is not None:
        least, most = ranges.get(name, (extremes["min"], extremes["max"]))
        ranges[name] = min(least, extremes["min"]), max(most, extremes["max"])
