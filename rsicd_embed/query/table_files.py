"""Rows as files for other programs: JSON, CSV, GeoJSON and Parquet, written while they are read.

Vectors are left out; `rowfile` writes files with vectors, which `import` reads.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rsicd_embed.errors import QueryError
from rsicd_embed.files import replace_file, storage_errors
from rsicd_embed.json_output import as_json
from rsicd_embed.query.area import coordinate_columns
from rsicd_embed.records import VECTOR, python_rows

Format = Literal["json", "csv", "geojson", "parquet"]
FORMATS: tuple[Format, ...] = ("json", "csv", "geojson", "parquet")

_BATCH_ROWS = 4096
# Spreadsheets take a cell that begins with one of these for a formula, some of them for a command.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def save(rows: Iterable[pa.RecordBatch], schema: pa.Schema, kind: Format, path: Path) -> int:
    """Writes rows to a file, which appears when it is complete.

    Args:
        rows: batches of `schema`.
        schema: columns; a vector column is left out.
        kind: format of the file.
        path: the file, which is replaced if it exists.

    Returns:
        The number of rows.

    Raises:
        QueryError: GeoJSON of rows without columns of coordinates.
        StoreError: the file cannot be written.
    """

    count = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal count
        for batch in rows:
            count += len(batch)
            yield batch

    _replace(path, lambda file: write(counted(), schema, kind, file))
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


def write(rows: Iterable[pa.RecordBatch], schema: pa.Schema, kind: Format, file: BinaryIO) -> None:
    """Writes rows to an open file; see `save`."""
    if kind != "parquet":
        file.writelines(encoded(rows, schema, kind))
        return
    schema = _shown(schema)
    with pq.ParquetWriter(file, schema) as writer:
        for batch in rows:
            writer.write_batch(batch.select(schema.names))


def encoded(rows: Iterable[pa.RecordBatch], schema: pa.Schema, kind: Format) -> Iterator[bytes]:
    """Encodes rows piece by piece, in any format but Parquet; see `save`."""
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
    return _listed(b'{"rows": [', pieces, as_json)


def _geojson(pieces: Iterator[list[dict[str, Any]]], schema: pa.Schema) -> Iterator[bytes]:
    """One feature per row, whose geometry is a point, or null without coordinates (RFC 7946)."""
    columns = coordinate_columns(schema)
    if columns is None:
        raise QueryError(
            "expected rows with coordinates for GeoJSON, in columns lon and lat, found the columns "
            f"{', '.join(schema.names)}; use another format"
        )
    lon, lat = columns

    def feature(row: dict[str, Any]) -> bytes:
        x, y = row.pop(lon), row.pop(lat)
        known = x is not None and y is not None and abs(x) <= 180 and abs(y) <= 90
        point = {"type": "Point", "coordinates": [x, y]} if known else None
        id_ = row.pop("id", None)
        return as_json({"type": "Feature", "id": id_, "geometry": point, "properties": row})

    return _listed(b'{"type": "FeatureCollection", "features": [', pieces, feature)


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
    if isinstance(value, int | float):
        return value
    if isinstance(value, bytes):
        return value.hex()
    text = as_json(value).decode() if isinstance(value, list | dict) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
