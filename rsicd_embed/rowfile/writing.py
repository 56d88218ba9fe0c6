"""Writing a file of rows as they come, in bounded memory; it is there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from rsicd_embed.errors import SchemaError
from rsicd_embed.files import storage_errors, sync_folder, write_file
from rsicd_embed.records import Provenance
from rsicd_embed.rowfile import metadata, types

# What is written at once, and has to be read at once.
_GROUP_ROWS = 65_536
_GROUP_BYTES = 1 << 26


@dataclass(frozen=True)
class Written:
    """What a file holds: rows, its length, and its SHA-256 in hex."""

    rows: int
    bytes: int
    sha256: str


def write(
    path: Path,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    provenance: Provenance,
    progress: Callable[[int], None] = lambda rows: None,
) -> Written:
    """Makes `path` of rows of `schema` whose vectors `provenance` made.

    Raises:
        SchemaError: a column holds what Parquet does not.
        StoreError: the file cannot be written; an older one stays as it was.
    """
    import pyarrow.parquet

    rows = 0
    columns = types.parquet_schema(schema).with_metadata(metadata.encode(provenance, schema))

    def fill(aside: Path) -> None:
        nonlocal rows
        # Through a file of Python's: its errors say what the matter is.
        with (
            aside.open("wb") as sink,
            pyarrow.parquet.ParquetWriter(
                sink, columns, compression="snappy", use_dictionary=False, write_page_checksum=True
            ) as writer,
        ):
            for group in _groups(batches):
                table = pa.Table.from_batches([_converted(one, columns) for one in group])
                writer.write_table(table, row_group_size=len(table))
                rows += len(table)
                progress(len(table))

    with storage_errors(f"cannot write {path}"):
        entry = write_file(path, fill)
        sync_folder(path.parent)
    return Written(rows, entry.bytes, entry.sha256)


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches in groups of a bounded number of rows and of bytes, as far as single rows allow."""
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


def _converted(batch: pa.RecordBatch, columns: pa.Schema) -> pa.RecordBatch:
    converted = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            converted.append(types.to_parquet(column))
        except pa.ArrowInvalid as error:
            raise SchemaError(f"column {name!r} cannot be written as Parquet: {error}") from error
    return pa.RecordBatch.from_arrays(converted, schema=columns)
