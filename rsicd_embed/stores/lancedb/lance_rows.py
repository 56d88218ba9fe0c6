"""Rows of a LanceDB table, checked and streamed to the search kernel that all stores share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.records import VECTOR
from rsicd_embed.stores import scoring
from rsicd_embed.stores.columns import not_as_written
from rsicd_embed.stores.filters import listed_ids, matching
from rsicd_embed.stores.lancedb.lance_table import lance_errors
from rsicd_embed.stores.row_view import Rows, RowView, without_vector
from rsicd_embed.stores.rows import unit_vectors

STREAM_ROWS = 16_384
_STREAM_BYTES = 2**24
_BLOCK_QUERIES = 128  # compared with a block of rows at a time
_SPARE_ROWS = 65_536  # rows kept beyond those wanted before the worse ones are dropped


def stream_rows(schema: pa.Schema) -> int:
    """Number of rows to read at a time: fewer of long vectors, as LanceDB reads several batches
    ahead."""
    dim = int(schema.field(VECTOR).type.list_size)
    return max(1, min(STREAM_ROWS, _STREAM_BYTES // (4 * dim)))


def part_of(
    batch: pa.RecordBatch, schema: pa.Schema, uri: str, where: str | None = None
) -> RowView:
    """Converts a batch with the columns of `schema`, with or without the vector.

    Rows that do not match `where` are dead.

    Raises:
        StoreError: another program wrote vectors that are not of unit norm.
    """
    attribute_schema = without_vector(schema)
    columns = [batch.column(name) for name in attribute_schema.names]
    attributes = pa.table(columns, schema=attribute_schema)
    matrix = np.empty((len(batch), 0), dtype=np.float32)
    if VECTOR in batch.schema.names:
        matrix = unit_vectors(batch.column(VECTOR), schema.field(VECTOR).type.list_size, uri)
    return RowView(matrix, attributes, None if where is None else matching(attributes, where))


def stream(
    table: Any,
    schema: pa.Schema,
    uri: str,
    where: str | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[Rows]:
    """Reads the version that `table` is at in batches; rows that do not match `where` are dead.

    All attributes are read, and the vectors if they are in `columns` (default: all columns).
    """
    if where is not None:  # refuse an invalid one even if there are no rows
        matching(without_vector(schema).empty_table(), where)
    names = [
        name for name in schema.names if name != VECTOR or columns is None or VECTOR in columns
    ]
    query = table.search().select(names)
    if where is not None and listed_ids(where) is not None:
        query = query.where(where)  # LanceDB then reads only the vectors of these rows
    with reading(schema, uri):
        batches = query.to_batches(batch_size=stream_rows(schema))
    return _read(batches, schema, uri, where)


def _read(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, uri: str, where: str | None
) -> Iterator[Rows]:
    reader = iter(batches)
    while True:
        with reading(schema, uri):
            batch = next(reader, None)
        if batch is None:
            return
        yield Rows(schema, (part_of(batch, schema, uri, where),))


def reading(schema: pa.Schema, uri: str) -> AbstractContextManager[None]:
    """Turns LanceDB's read errors into one line that names columns which may be the cause."""
    suspects = not_as_written(without_vector(schema))
    if not suspects:
        return lance_errors(f"cannot read {uri}")
    remedy = (
        f"LanceDB may not be able to read columns of such types back ({', '.join(suspects)}): "
        "remove them with rsicd-embed store drop-column, or restore the table from a backup"
    )
    return lance_errors(f"cannot read {uri}", remedy)


def in_one_part(schema: pa.Schema, stream: Iterable[Rows]) -> Rows:
    """Concatenates a stream without dead rows."""
    parts = [part for rows in stream for part in rows.parts]
    if not parts:
        return Rows(schema, ())
    attributes = pa.concat_tables([part.attributes for part in parts]).combine_chunks()
    matrix = np.concatenate([part.matrix for part in parts])
    return Rows(schema, (RowView(matrix, attributes),))


def search_stream(
    stream: Iterable[Rows], schema: pa.Schema, queries: np.ndarray, k: int
) -> pa.Table:
    """Exact search over a table too large for memory; equals `scoring.search` over all its rows.

    Args:
        stream: blocks of rows of `schema`.
        schema: schema of the rows.
        queries: float64 (q, dim) of unit norm.
        k: number of rows wanted per query, at least 1.
    """
    best: tuple[RowView, ...] = ()
    limit = 2 * k * len(queries) + _SPARE_ROWS
    for rows in stream:
        best += _best(rows, queries, k)
        if sum(len(part) for part in best) > limit:
            best = _best(Rows(schema, best), queries, k)
    rows = Rows(schema, best)
    return scoring.hit_table(rows, queries, scoring.nearest(rows, queries, k, rows.masks(None)), k)


def _best(rows: Rows, queries: np.ndarray, k: int) -> tuple[RowView, ...]:
    """A copy of the rows that may be among the k best of any query."""
    positions = np.unique(scoring.nearest(rows, queries, k, rows.masks(None)).row)
    if not len(positions):
        return ()
    batch, schema = rows.take(positions), rows.attribute_schema
    columns = [batch.column(name) for name in schema.names]
    attributes = pa.Table.from_arrays(columns, schema=schema)
    return (RowView(rows.vectors(positions), attributes),)


def kth_scores(
    blocks: Iterable[tuple[slice, np.ndarray]],
    units: np.ndarray,
    k: int,
    masks: Sequence[np.ndarray | None],
) -> np.ndarray:
    """Scores the k-th best of some rows for each query, reading all vectors once.

    Args:
        blocks: positions of rows, and their float32 (n, dim) unit vectors.
        units: float64 (q, dim) unit queries.
        k: at least 1.
        masks: bool (rows,), the rows to search; None for all.

    Returns:
        float32 (masks, q), precise to 1e-6; -2 if there are fewer than k rows.
    """
    queries = units.astype(np.float32)
    best = np.full((len(masks), len(queries), k), -2, np.float32)
    parts = [slice(at, at + _BLOCK_QUERIES) for at in range(0, len(queries), _BLOCK_QUERIES)]
    for (rows, vectors), part in ((block, part) for block in blocks for part in parts):
        similarities = queries[part] @ vectors.T
        for kept, mask in zip(best[:, part], masks, strict=True):
            searched = similarities if mask is None else similarities[:, mask[rows]]
            # Soon few queries find better rows in a block.
            better = np.flatnonzero(searched.max(axis=1, initial=-2) > kept[:, 0])
            every = np.concatenate([kept[better], searched[better]], axis=1)
            kept[better] = np.sort(np.partition(every, -k, axis=1)[:, -k:], axis=1)
    kth: np.ndarray = best[:, :, 0]
    return kth
