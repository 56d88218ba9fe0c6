"""A store's columns as filters are built from them: how they compare, and what values there are."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.datasets.classes import readable
from rsicd_embed.server.conditions import OPERATORS, filterable, zone_of
from rsicd_embed.stores.base import VectorStore

# A column of more distinct texts is no choice but a text.
_CHOICES = 60
# Pairs of names under which places are kept, in degrees.
_PLACES = (("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"))
# Columns that hold class names, and names that are words: others may be codes or sentences.
_CLASSES = re.compile("label|class|category", re.IGNORECASE)
_CLASS_NAME = re.compile("[A-Za-z]+([ _-][A-Za-z]+)*")
# Columns that nobody filters by.
_UNINTERESTING = ("id", "uri", "sha256")
# What a source says of its pictures comes first.
_LAST = ("width", "height")


def describe(store: VectorStore) -> dict[str, Any]:
    """Columns to filter by, each with its type and its operators.

    Texts with few values have those too, the most frequent first, and class names in words where
    they differ; numbers and times have their least and their greatest. Also the names of the
    columns that hold longitudes and latitudes, None where there are none.
    """
    kinds = filterable(store.schema)
    names = [name for name in kinds if name not in _UNINTERESTING]
    chosen = {name: kinds[name] for name in sorted(names, key=lambda name: name in _LAST)}
    texts = [name for name, kind in chosen.items() if kind == "text"]
    numbers = [name for name, kind in chosen.items() if kind == "number"]
    moments = [name for name, kind in chosen.items() if kind == "time"]
    values, ranges, rows = _summaries(store, texts, [*numbers, *moments])
    columns = []
    for name, kind in chosen.items():
        type_ = store.schema.field(name).type
        column: dict[str, Any] = {"name": name, "kind": kind, "operators": list(OPERATORS[kind])}
        column["type"] = str(type_)
        if values.get(name):
            column["values"] = [value for value, _ in values[name].most_common()]
            if class_names := _class_names(name, column["values"]):
                column["names"] = class_names
        if name in ranges:
            column["min"], column["max"] = (_plain(value, type_) for value in ranges[name])
        columns.append(column)
    plain = {name.lower(): name for name in numbers}
    places = [
        {"lon": plain[lon], "lat": plain[lat]} for lon, lat in _PLACES if {lon, lat} <= set(plain)
    ]
    return {"rows": rows, "columns": columns, "place": places[0] if places else None}


def _class_names(column: str, values: list[str]) -> dict[str, str]:
    """`denseresidential` → `dense residential area`, for columns that hold classes."""
    if not _CLASSES.search(column):
        return {}
    named = {value: readable(value) for value in values if _CLASS_NAME.fullmatch(value)}
    return {value: name for value, name in named.items() if name != value}


def _plain(value: Any, type_: pa.DataType) -> Any:
    """A number as it is, a time in ISO 8601 and in its column's zone."""
    if isinstance(value, dt.datetime) and getattr(type_, "tz", None):
        with suppress(ValueError):  # a zone that this machine does not know; then in UTC
            return value.replace(tzinfo=dt.UTC).astimezone(zone_of(type_)).isoformat()
        return value.replace(tzinfo=dt.UTC).isoformat()
    return value.isoformat() if isinstance(value, dt.date) else value


def _summaries(
    store: VectorStore, texts: list[str], ordered: list[str]
) -> tuple[dict[str, Counter[str]], dict[str, tuple[Any, Any]], int]:
    """How often each text occurs, the least and the greatest of the others, and the row count."""
    values = {name: Counter[str]() for name in texts}
    ranges: dict[str, tuple[Any, Any]] = {}
    rows = 0
    with store.scan(["id", *texts, *ordered]) as reader:
        for batch in reader:
            rows += len(batch)
            for name in list(values):
                _count(values[name], batch.column(name))
                if len(values[name]) > _CHOICES:
                    del values[name]
            for name in ordered:
                _stretch(ranges, name, batch.column(name))
    return values, ranges, rows


def _count(counts: Counter[str], column: pa.Array) -> None:
    for one in pc.value_counts(column.drop_null()):
        counts[one["values"].as_py()] += one["counts"].as_py()


def _stretch(ranges: dict[str, tuple[Any, Any]], name: str, column: pa.Array) -> None:
    if pa.types.is_floating(column.type):
        column = column.filter(pc.is_finite(column))
    if pa.types.is_timestamp(column.type):
        # In UTC without a zone, which this machine need not know.
        plain = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        column = plain.cast(pa.timestamp("us"))
    try:
        found = pc.min_max(column).as_py()
    except (ValueError, OverflowError):  # a time beyond the year 9999
        return
    if found["min"] is not None:
        least, most = ranges.get(name, (found["min"], found["max"]))
        ranges[name] = min(least, found["min"]), max(most, found["max"])
