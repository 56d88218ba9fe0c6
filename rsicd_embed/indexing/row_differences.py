"""Which rows differ from others, to the last bit, whatever their types."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

_INTEGERS = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


def differing(rows: pa.RecordBatch, others: pa.RecordBatch) -> np.ndarray:
    """bool (n,): which of two batches' rows are not the same in each column.

    Args:
        rows: n rows.
        others: n rows with the columns of `rows`; where a type is another, all rows differ.
    """
    columns = [(rows[name], others[name]) for name in rows.schema.names]
    if any(one.type != other.type for one, other in columns):
        return np.ones(len(rows), dtype=bool)
    pairs = [(_bits(one), _bits(other)) for one, other in columns]
    differs = np.zeros(len(rows), dtype=bool)
    # Whole batches are compared first, then halves of those that are not equal, and so on.
    spans = [(0, len(rows))]
    while spans:
        start, stop = spans.pop()
        length = stop - start
        if all(one.slice(start, length).equals(other.slice(start, length)) for one, other in pairs):
            continue
        if length == 1:
            differs[start] = True
        else:
            middle = start + length // 2
            spans += [(start, middle), (middle, stop)]
    return differs


def _bits(column: pa.Array) -> pa.Array:
    """A column with integers in place of floats: NaN equals NaN, and 0 is not -0."""
    return column.view(_integers(column.type))


def _integers(kind: pa.DataType) -> pa.DataType:
    if pt.is_floating(kind):
        return _INTEGERS[kind.bit_width]
    if pt.is_struct(kind):
        return pa.struct([one.with_type(_integers(one.type)) for one in kind])
    if pt.is_fixed_size_list(kind):
        return pa.list_(_integers(kind.value_type), kind.list_size)
    if pt.is_list(kind):
        return pa.list_(_integers(kind.value_type))
    return kind
