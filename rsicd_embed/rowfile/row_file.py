"""Reading and writing Parquet files of rows in batches."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from rsicd_embed.errors import DatasetError, SchemaError, one_line
from rsicd_embed.files import storage_errors, sync_folder, write_file
from rsicd_embed.geography.geoparquet import GeoParquetColumn
from rsicd_embed.geography.geoparquet import Version as GeoParquetVersion
from rsicd_embed.records import VECTOR, Provenance, provenance_header, read_header

SUFFIX = ".parquet"
METADATA_KEY = b"rsicd-embed"
FORMAT = 1
_BATCH_ROWS = 8192
# Limits of a row group, which is written and read as a whole.
_GROUP_ROWS = 65_536
_GROUP_BYTES = 1 << 26


@dataclass(frozen=True)
class RowFile:
    """A Parquet file whose metadata names the model that made its vectors.

    Attributes:
        path: path of the file.
        provenance: the model that made the vectors.
        schema: schema of the rows, with the types that Parquet lacks.
        rows: number of rows.
    """

    path: Path
    provenance: Provenance
    schema: pa.Schema
    rows: int

    @classmethod
    def open(cls, path: Path) -> RowFile | None:
        """Opens the row file at `path`; returns None if it is another file or does not exist.

        Raises:
            DatasetError: the file's metadata is damaged or of another format version.
        """
        if path.suffix.lower() != SUFFIX or not _is_regular(path):
            return None
        try:
            with _opened(path) as file:
                parquet, rows = file.schema_arrow, file.metadata.num_rows
                raw = (file.metadata.metadata or {}).get(METADATA_KEY)
                names = parquet.names
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            return None
        if raw is None or VECTOR not in names:
            return None
        provenance, schema, covering = _decode_metadata(raw, path)
        for name in names:
            if names.count(name) > 1:
                raise DatasetError(f"{path}: expected each column once, found {name!r} twice")
        fields = [field for field in parquet if field.name != covering]
        arrays = [pa.nulls(0, field.type) for field in fields]
        empty = pa.RecordBatch.from_arrays(arrays, [field.name for field in fields])
        return cls(path, provenance, _restored(empty, schema).schema, rows)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields all rows in order; DatasetError if the file is damaged."""
        try:
            with _opened(self.path) as file:
                # One row group at a time, since a batch across several may be of any size.
                for group in range(file.metadata.num_row_groups):
                    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
                        batch.validate(full=True)  # also checks that text is UTF-8
                        yield _restored(batch.select(self.schema.names), self.schema)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = one_line(error, limit=300)
            raise DatasetError(
                f"{self.path} cannot be read as Parquet: {reason}; export it again"
            ) from error


def describe(path: Path) -> str:
    """Describes, for an error message, a path where there is no row file."""
    if not _is_regular(path):
        return "a folder" if os.path.isdir(path) else "nothing there"  # noqa: PTH112
    try:
        with _opened(path):
            return "another one"
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = one_line(error, limit=300).rstrip(".")
        return f"a file that cannot be read as Parquet: {reason}"


@dataclass(frozen=True)
class WrittenFile:
    """A file that was written: its number of rows, size, and SHA-256 in hex.

    Attributes:
        bounds: west, south, east, north of its footprints; west > east across the antimeridian;
            None without footprints.
        not_geo: why a file of rows with footprints is not GeoParquet; None otherwise.
    """

    rows: int
    bytes: int
    sha256: str
    bounds: tuple[float, float, float, float] | None = None
    not_geo: str | None = None


def write(
    path: Path,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    provenance: Provenance,
    progress: Callable[[int], None] = lambda rows: None,
    geoparquet: GeoParquetVersion = "1.1",
) -> WrittenFile:
    """Writes rows whose vectors `provenance` made, atomically and in bounded memory.

    Files of rows with footprints, WKB in a column geometry, are GeoParquet.

    Args:
        path: file to create or replace.
        batches: rows of `schema`.
        schema: schema of the rows.
        provenance: the model that made the vectors.
        progress: called with the number of rows just written.
        geoparquet: version of the format of files with footprints.

    Raises:
        DatasetError: GeoParquet 2.0 cannot have the geometries.
        SchemaError: a column has values that Parquet does not support.
        StoreError: the file cannot be written; an existing one is unchanged.
    """
    import pyarrow.parquet

    rows = 0
    geo = GeoParquetColumn.of(schema, geoparquet)
    written_schema = parquet_schema(schema)
    metadata = encode_metadata(provenance, schema, geo.covering if geo else None)
    file_schema = (geo.schema(written_schema) if geo else written_schema).with_metadata(metadata)

    def fill(aside: Path) -> None:
        nonlocal rows
        # A Python file has clearer errors than Arrow's own.
        with (
            aside.open("wb") as sink,
            pyarrow.parquet.ParquetWriter(
                sink,
                file_schema,
                compression="snappy",
                use_dictionary=False,
                write_page_checksum=True,
            ) as writer,
        ):
            for group in _groups(batches):
                converted = [_converted(batch, written_schema) for batch in group]
                if geo:
                    converted = [geo.add(batch) for batch in converted]
                table = pa.Table.from_batches(converted)
                writer.write_table(table, row_group_size=len(table))
                rows += len(table)
                progress(len(table))
            if geo:
                writer.add_key_value_metadata(geo.metadata())

    with storage_errors(f"cannot write {path}"):
        entry = write_file(path, fill)
        sync_folder(path.parent)
    bounds, not_geo = (geo.bounds(), geo.problem) if geo else (None, None)
    return WrittenFile(rows, entry.bytes, entry.sha256, bounds, not_geo)


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Groups batches within the limits of a row group; a larger row gets its own group."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        for piece in _pieces(batch):
            if group and (rows + len(piece) > _GROUP_ROWS or size + piece.nbytes > _GROUP_BYTES):
                yield group
                group, rows, size = [], 0, 0
            group.append(piece)
            rows, size = rows + len(piece), size + piece.nbytes
    if group:
        yield group


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if len(batch) > 1 and (len(batch) > _GROUP_ROWS or batch.nbytes > _GROUP_BYTES):
        half = len(batch) // 2
        yield from _pieces(batch.slice(0, half))
        yield from _pieces(batch.slice(half))
    elif len(batch):
        yield batch


def _converted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the column types that Parquet has."""
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns.append(to_parquet(column))
        except pa.ArrowInvalid as error:
            raise SchemaError(f"column {name!r} cannot be written as Parquet: {error}") from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _restored(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the column types of `schema`, which may lack some of its columns."""
    names = batch.schema.names
    columns = [
        from_parquet(column, schema.field(name).type) if name in schema.names else column
        for name, column in zip(names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names)


def encode_metadata(
    provenance: Provenance, schema: pa.Schema, covering: str | None = None
) -> dict[bytes, bytes]:
    """The file's metadata: provenance, original schema, GeoParquet's column, and a checksum."""
    serialized = base64.b64encode(schema.remove_metadata().serialize().to_pybytes()).decode()
    header = provenance_header(provenance, FORMAT) | {"schema": serialized}
    if covering is not None:
        header["covering"] = covering
    return {METADATA_KEY: json.dumps(header | {"sha256": _checksum(header)}).encode()}


def _decode_metadata(raw: bytes, path: Path) -> tuple[Provenance, pa.Schema, str | None]:
    try:
        provenance, header = read_header(raw, FORMAT, path, DatasetError)
        if header.pop("sha256") != _checksum(header):
            raise ValueError("checksum")
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(header["schema"])))
        return provenance, schema, header.get("covering")
    except (ValueError, KeyError, TypeError, AttributeError, OSError, pa.ArrowException):
        raise DatasetError(
            f"{path}: its metadata does not say which model made its vectors; export it again"
        ) from None


def _checksum(header: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(
        path, pre_buffer=False, page_checksum_verification=True
    ) as file:
        yield file


def _is_regular(path: Path) -> bool:
    """Whether `path` is a regular file; opening a pipe would wait for its other end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def parquet_schema(schema: pa.Schema) -> pa.Schema:
    """The schema that rows of `schema` have in the file.

    Raises:
        SchemaError: a column has a type without an equivalent in Parquet.
    """
    fields = []
    for field in schema:
        if _is_empty(field.type):
            raise SchemaError(
                f"column {field.name!r}: Parquet does not support values of type {field.type}; "
                "remove it from the store with rsicd-embed store drop-column"
            )
        fields.append(field.with_type(_in_parquet(field.type)))
    return pa.schema(fields)


def to_parquet(column: pa.Array) -> pa.Array:
    """Converts a column for writing; pa.ArrowInvalid if a time does not fit milliseconds."""
    kind = _in_parquet(column.type)
    if kind == column.type:
        return column
    return column.view(_without_date64(column.type)).cast(kind)


def from_parquet(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Undoes `to_parquet`; returns the column unchanged if it was not written from `kind`."""
    if isinstance(column, pa.ExtensionArray):  # GeoParquet 2.0, where its type is registered
        column = column.storage
    if column.type != _in_parquet(kind):
        return column
    if column.type != _without_date64(kind):
        column = column.cast(_without_date64(kind))
    return column.view(kind)  # also restores the name of list items


def _in_parquet(kind: pa.DataType) -> pa.DataType:
    kind = _without_date64(kind)
    if pt.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if pt.is_time32(kind):
        return pa.time32("ms")
    return _nested(kind, _in_parquet)


def _without_date64(kind: pa.DataType) -> pa.DataType:
    """Replaces date64, which may have a time of day, while Parquet's dates are days."""
    return pa.timestamp("ms") if pt.is_date64(kind) else _nested(kind, _without_date64)


def _is_empty(kind: pa.DataType) -> bool:
    """Whether a type contains structs without fields or lists of size zero."""
    if pt.is_fixed_size_list(kind) and not kind.list_size:
        return True
    if pt.is_struct(kind):
        return not kind.num_fields or any(_is_empty(field.type) for field in kind)
    return (pt.is_list(kind) or pt.is_fixed_size_list(kind)) and _is_empty(kind.value_type)


def _nested(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Applies `change` to the types nested in a type."""
    if pt.is_struct(kind):
        return pa.struct([field.with_type(change(field.type)) for field in kind])
    if pt.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(change(kind.value_type)), kind.list_size)
    if pt.is_list(kind):
        return pa.list_(kind.value_field.with_type(change(kind.value_type)))
    return kind
