"""Rows of a LanceDB table, checked and turned into what the shared kernel searches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.records import VECTOR
from rsicd_embed.stores.columns import not_as_written
from rsicd_embed.stores.filters import matching
from rsicd_embed.stores.lancedb.lance_table import lance_errors
from rsicd_embed.stores.row_view import Rows, RowView, without_vector
from rsicd_embed.stores.rows import unit_vectors

STREAM_ROWS = 16_384
# Fetching a row by its number takes some three times as long as reading on to it.
_FETCHED_SHARE = 0.25


def part_of(
    batch: pa.RecordBatch, schema: pa.Schema, uri: str, where: str | None = None
) -> RowView:
    """A batch with the columns of `schema`, its vectors perhaps left out; rows refused are dead.

    Raises:
        StoreError: something else has written vectors that are not of unit length.
    """
    attribute_schema = without_vector(schema)
    columns = [batch.column(name) for name in attribute_schema.names]
    attributes = pa.table(columns, schema=attribute_schema)
    matrix = np.empty((len(batch), 0), dtype=np.float32)
    if VECTOR in batch.schema.names:
        matrix = unit_vectors(batch.column(VECTOR), schema.field(VECTOR).type.list_size, uri)
    live = None
    if where is not None:
        live = matching(attributes, where)
    return RowView(matrix, attributes, live)


def stream(
    table: Any,
    schema: pa.Schema,
    uri: str,
    where: str | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[Rows]:
    """Rows of the version that `table` is at, some thousand at a time; those refused are dead.

    All attributes come along, and the vectors if `columns` (None: all) has them.
    """
    if where is not None:  # to refuse a wrong one whether or not there are rows
        matching(without_vector(schema).empty_table(), where)
    names = [
        name for name in schema.names if name != VECTOR or columns is None or VECTOR in columns
    ]
    with _reading(schema, uri):
        batches = table.search().select(names).to_batches(batch_size=STREAM_ROWS)
    return _read(batches, schema, uri, where)


def selected(table: Any, schema: pa.Schema, uri: str, where: str) -> Iterator[Rows]:
    """Rows that `where` accepts; others too, but dead. Reads no vectors but theirs if they are few.

    `table` must stay at its version until all are read.
    """
    names = [name for name in schema.names if name != VECTOR]
    matching(without_vector(schema).empty_table(), where)
    with _reading(schema, uri):
        query = table.search().select(names).with_row_id(True)
        numbers, count = [np.zeros(0, np.uint64)], 0
        for batch in query.to_batches(batch_size=STREAM_ROWS):
            live = part_of(batch, schema, uri, where).live
            numbers.append(batch.column("_rowid").to_numpy()[live])
            count += len(batch)
    chosen = np.concatenate(numbers)
    if len(chosen) > _FETCHED_SHARE * count:
        yield from stream(table, schema, uri, where)
        return
    for start in range(0, len(chosen), STREAM_ROWS):
        with _reading(schema, uri):
            some = chosen[start : start + STREAM_ROWS].tolist()
            found = table.take_row_ids(some).select(schema.names).to_arrow().combine_chunks()
        yield Rows(schema, tuple(part_of(batch, schema, uri) for batch in found.to_batches()))


def _read(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, uri: str, where: str | None
) -> Iterator[Rows]:
    reader = iter(batches)
    while True:
        with _reading(schema, uri):
            batch = next(reader, None)
        if batch is None:
            return
        yield Rows(schema, (part_of(batch, schema, uri, where),))


def _reading(schema: pa.Schema, uri: str) -> AbstractContextManager[None]:
    """Turns what LanceDB raises while it reads into one line, which names columns to suspect."""
    suspects = not_as_written(without_vector(schema))
    if not suspects:
        return lance_errors(f"cannot read {uri}")
    remedy = (
        f"LanceDB may not be able to read columns of such types back ({', '.join(suspects)}): take "
        f"them out with rsicd-embed store drop-column, or restore the table from a backup"
    )
    return lance_errors(f"cannot read {uri}", remedy)


def in_one_part(schema: pa.Schema, parts: Iterable[RowView]) -> Rows:
    """Parts without dead rows, joined."""
    held = tuple(parts)
    if not held:
        return Rows(schema, ())
    attributes = pa.concat_tables([part.attributes for part in held]).combine_chunks()
    matrix = np.concatenate([part.matrix for part in held])
    return Rows(schema, (RowView(matrix, attributes),))
