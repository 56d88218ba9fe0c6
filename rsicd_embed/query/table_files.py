"""Rows as files for other programs, written while they are read.

JSON, CSV, GeoJSON, Parquet (GeoParquet if rows have footprints), GeoPackage and FlatGeobuf. Vectors
are left out; `rowfile` writes files with vectors, which `import` reads.
"""

from __future__ import annotations

import csv
import errno
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rsicd_embed.errors import QueryError
from rsicd_embed.files import replace_file, storage_errors
from rsicd_embed.geography import vector_files
from rsicd_embed.geography.geoparquet import GeoParquetColumn
from rsicd_embed.geography.vector_files import geojson_geometries
from rsicd_embed.json_output import as_json
from rsicd_embed.query.area import FOOTPRINT, coordinate_columns, has_footprints
from rsicd_embed.records import VECTOR, python_rows, python_values

Format = Literal["json", "csv", "geojson", "parquet", "gpkg", "fgb"]
# Formats that `write` writes to open files; GeoPackage and FlatGeobuf need paths.
FORMATS: tuple[Format, ...] = ("json", "csv", "geojson", "parquet")

# By which `generated_files` recognises files.
JSON_HEAD = b'{"rows": ['
GEOJSON_HEAD = b'{"type": "FeatureCollection", "generator": "rsicd-embed", "features": ['
PARQUET_KEY = b"rsicd-embed-table"

_BATCH_ROWS = 4096
# Spreadsheets take a cell that begins with one of these for a formula, some of them for a command.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def save(
    rows: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    kind: Format,
    path: Path,
    note: Callable[[str], None] = lambda message: None,
) -> int:
    """Writes rows to a file, which appears when it is complete.

    Args:
        rows: batches of `schema`.
        schema: columns; a vector column is left out.
        kind: format of the file.
        path: the file, which is replaced if it exists; see `generated_files`.
        note: called with a message if rows with footprints become plain Parquet, columns get
            other names, or times become null.

    Returns:
        The number of rows.

    Raises:
        QueryError: GeoJSON, GeoPackage or FlatGeobuf of rows without coordinates.
        StoreError: the file cannot be written.
    """

    count = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal count
        for batch in rows:
            count += len(batch)
            yield batch

    if kind in vector_files.DRIVERS:
        _save_features(counted(), schema, kind, path, note)
    else:
        _replace(path, lambda file: write(counted(), schema, kind, file, note))
    return count


def save_pieces(pieces: Iterable[bytes], path: Path) -> None:
    """Writes bytes to a file, which appears when it is complete; StoreError if it cannot."""
    _replace(path, lambda file: file.writelines(pieces))


def _replace(path: Path, fill: Callable[[BinaryIO], None]) -> None:
    def write_aside(aside: Path) -> None:
        with aside.open("wb") as file:
            fill(file)

    with storage_errors(f"cannot write {path}"):
        replace_file(path, write_aside)


def _save_features(
    rows: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    kind: Format,
    path: Path,
    note: Callable[[str], None],
) -> None:
    coordinates = _require_places(schema, kind)
    messages: list[str] = []
    schema = _shown(schema)
    batches = (batch.select(schema.names) for batch in rows)
    with storage_errors(f"cannot write {path}"):
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "its folder does not exist")
        replace_file(
            path,
            lambda aside: messages.extend(
                vector_files.save_features(batches, schema, aside, kind, coordinates, _texts)
            ),
        )
    for message in messages:
        note(message)


def write(
    rows: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    kind: Format,
    file: BinaryIO,
    note: Callable[[str], None] = lambda message: None,
) -> None:
    """Writes rows to an open file, in one of `FORMATS`; see `save`."""
    if kind != "parquet":
        file.writelines(encoded(rows, schema, kind))
        return
    schema = _shown(schema)
    geo = GeoParquetColumn.of(schema)
    in_file = geo.schema(schema) if geo else schema
    with pq.ParquetWriter(file, in_file.with_metadata({PARQUET_KEY: b"{}"})) as writer:
        for batch in rows:
            batch = batch.select(schema.names)
            writer.write_batch(geo.add(batch) if geo else batch)
        if geo:
            writer.add_key_value_metadata(geo.metadata())
    if geo and geo.problem:
        note(f"not GeoParquet, but plain Parquet: {geo.problem}")


def encoded(rows: Iterable[pa.RecordBatch], schema: pa.Schema, kind: Format) -> Iterator[bytes]:
    """Encodes rows piece by piece, as JSON, CSV or GeoJSON; see `save`."""
    if kind == "geojson":
        _require_places(schema, kind)
    schema = _shown(schema)
    encode = {"json": _json, "csv": _csv, "geojson": _geojson}[kind]
    return encode(_pieces(batch.select(schema.names) for batch in rows), schema)


def _shown(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in (VECTOR, "query")])


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[list[dict[str, Any]]]:
    for batch in batches:
        for start in range(0, len(batch), _BATCH_ROWS):
            yield python_rows(batch.slice(start, _BATCH_ROWS))


def _json(pieces: Iterator[list[dict[str, Any]]], schema: pa.Schema) -> Iterator[bytes]:
    return _listed(JSON_HEAD, pieces, as_json)


def _require_places(schema: pa.Schema, kind: Format) -> tuple[str, str] | None:
    """The columns of coordinates, which rows with footprints may lack."""
    coordinates = coordinate_columns(schema)
    if coordinates is None and not has_footprints(schema):
        name = vector_files.DRIVERS.get(kind, "GeoJSON")
        raise QueryError(
            f"expected rows with coordinates for {name}, in columns lon and lat or geometry (WKB), "
            f"found the columns {', '.join(schema.names)}; use another format"
        )
    return coordinates


def _geojson(pieces: Iterator[list[dict[str, Any]]], schema: pa.Schema) -> Iterator[bytes]:
    """One feature per row (RFC 7946): its footprint, a point, or null without coordinates."""
    coordinates, footprints = coordinate_columns(schema), has_footprints(schema)
    lon, lat = coordinates or ("lon", "lat")

    def features() -> Iterator[list[dict[str, Any]]]:
        for rows in pieces:
            shapes: Sequence[dict[str, Any] | None] = [None] * len(rows)
            if footprints:
                shapes = geojson_geometries(pa.array([row.pop(FOOTPRINT) for row in rows]))
            yield [feature(row, shape) for row, shape in zip(rows, shapes, strict=True)]

    def feature(row: dict[str, Any], shape: dict[str, Any] | None) -> dict[str, Any]:
        # Those of points are not repeated among the properties.
        take = row.get if footprints else row.pop
        x, y = (take(lon), take(lat)) if coordinates else (None, None)
        if shape is None and x is not None and y is not None and abs(x) <= 180 and abs(y) <= 90:
            shape = {"type": "Point", "coordinates": [x, y]}
        id_ = row.pop("id", None)
        return {"type": "Feature", "id": id_, "geometry": shape, "properties": row}

    return _listed(GEOJSON_HEAD, features(), as_json)


def _listed(
    head: bytes,
    pieces: Iterator[list[dict[str, Any]]],
    encode: Callable[[dict[str, Any]], bytes],
) -> Iterator[bytes]:
    yield head
    separator = b"\n"
    for rows in pieces:
        yield separator + b",\n".join(map(encode, rows))
        separator = b",\n"
    yield b"\n]}\n"


def _csv(pieces: Iterator[list[dict[str, Any]]], schema: pa.Schema) -> Iterator[bytes]:
    """Comma-separated values in UTF-8, with a header."""

    def lines(rows: Iterable[Iterable[Any]]) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\r\n").writerows(rows)
        return text.getvalue().encode("utf-8", "replace")

    yield lines([map(_cell, schema.names)])
    for rows in pieces:
        yield lines([map(_cell, row.values()) for row in rows])


def _cell(value: Any) -> Any:
    """A value as a cell: lists and objects as JSON, and texts that no spreadsheet will execute."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal):
        return value
    if isinstance(value, bytes):
        return value.hex()
    text = _value_text(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _texts(column: pa.Array) -> list[str | None]:
    return [None if value is None else _value_text(value) for value in python_values(column)]


def _value_text(value: Any) -> str:
    return as_json(value).decode() if isinstance(value, list | dict) else str(value)
