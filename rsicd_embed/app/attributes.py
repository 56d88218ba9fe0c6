"""A store's columns as filters are built from them: how they compare, and what values there are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.app.conditions import OPERATORS, filterable
from rsicd_embed.stores.base import VectorStore

# A column of more distinct texts is no choice but a text.
_CHOICES = 60
# Pairs of names under which places are kept, in degrees.
_PLACES = (("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"))
# Columns that nobody filters by.
_UNINTERESTING = ("id", "uri", "sha256")
# What a source says of its pictures comes first.
_LAST = ("width", "height")


def describe(store: VectorStore) -> dict[str, Any]:
    """Columns to filter by, each with its operators; texts with few values with those, by number.

    Also the names of the columns that hold longitudes and latitudes, None where there are none.
    """
    kinds = filterable(store.schema)
    names = [name for name in kinds if name not in _UNINTERESTING]
    chosen = {name: kinds[name] for name in sorted(names, key=lambda name: name in _LAST)}
    texts = [name for name, kind in chosen.items() if kind == "text"]
    numbers = [name for name, kind in chosen.items() if kind == "number"]
    values, ranges, rows = _summaries(store, texts, numbers)
    columns = []
    for name, kind in chosen.items():
        column: dict[str, Any] = {"name": name, "kind": kind, "operators": list(OPERATORS[kind])}
        if values.get(name):
            column["values"] = [value for value, _ in values[name].most_common()]
        if name in ranges:
            column["min"], column["max"] = ranges[name]
        columns.append(column)
    plain = {name.lower(): name for name in numbers}
    places = [
        {"lon": plain[lon], "lat": plain[lat]} for lon, lat in _PLACES if {lon, lat} <= set(plain)
    ]
    return {"rows": rows, "columns": columns, "place": places[0] if places else None}


def _summaries(
    store: VectorStore, texts: list[str], numbers: list[str]
) -> tuple[dict[str, Counter[str]], dict[str, tuple[Any, Any]], int]:
    """How often each value occurs, the least and the greatest number, and the number of rows."""
    values = {name: Counter[str]() for name in texts}
    ranges: dict[str, tuple[Any, Any]] = {}
    rows = 0
    with store.scan(["id", *texts, *numbers]) as reader:
        for batch in reader:
            rows += len(batch)
            for name in list(values):
                _count(values[name], batch.column(name))
                if len(values[name]) > _CHOICES:
                    del values[name]
            for name in numbers:
                _stretch(ranges, name, batch.column(name))
    return values, ranges, rows


def _count(counts: Counter[str], column: pa.Array) -> None:
    for one in pc.value_counts(column.drop_null()):
        counts[one["values"].as_py()] += one["counts"].as_py()


def _stretch(ranges: dict[str, tuple[Any, Any]], name: str, column: pa.Array) -> None:
    if pa.types.is_floating(column.type):
        column = column.filter(pc.is_finite(column))
    found = pc.min_max(column).as_py()
    if found["min"] is not None:
        least, most = ranges.get(name, (found["min"], found["max"]))
        ranges[name] = min(least, found["min"]), max(most, found["max"])
