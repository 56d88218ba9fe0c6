"""Exact search over rows that pass by once, such as a table too large for memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from rsicd_embed.stores import scoring
from rsicd_embed.stores.row_view import Rows, RowView

_SPARE_ROWS = 65_536  # held beyond what is wanted before the worse ones are dropped


def search_stream(
    stream: Iterable[Rows], schema: pa.Schema, queries: np.ndarray, k: int
) -> pa.Table:
    """The k best rows for each query, like `scoring.search` over all of `stream` at once.

    Args:
        stream: rows of `schema`, some at a time.
        schema: of a row.
        queries: float64 (q, dim) of unit norm.
        k: rows wanted for each query, at least 1.
    """
    best: tuple[RowView, ...] = ()
    most = 2 * k * len(queries) + _SPARE_ROWS
    for rows in stream:
        best += _best(rows, queries, k)
        if sum(len(part) for part in best) > most:
            best = _best(Rows(schema, best), queries, k)
    rows = Rows(schema, best)
    return scoring.hit_table(rows, queries, _candidates(rows, queries, k), k)


def _candidates(rows: Rows, queries: np.ndarray, k: int) -> scoring.Candidates:
    return scoring.nearest(rows, queries, k, rows.masks(None))


def _best(rows: Rows, queries: np.ndarray, k: int) -> tuple[RowView, ...]:
    """A copy of the rows that may be among the k best of any query."""
    positions = np.unique(_candidates(rows, queries, k).row)
    if not len(positions):
        return ()
    taken, schema = rows.take(positions), rows.attribute_schema
    columns = [taken.column(name) for name in schema.names]
    attributes = pa.Table.from_arrays(columns, schema=schema)
    return (RowView(rows.vectors(positions), attributes),)
