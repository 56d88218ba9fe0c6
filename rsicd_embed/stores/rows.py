"""Record batches from anywhere → one Arrow table that fits a store, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.arguments import require_items
from rsicd_embed.errors import SchemaError
from rsicd_embed.records import (
    FIXED_COLUMNS,
    VECTOR,
    require_unit_vectors,
    row_schema,
    vector_array,
)
from rsicd_embed.stores.columns import canonical, cast, is_known, require_column_names

_RENORMALISE = 1e-6  # vectors nearer to unit norm than this are kept bit by bit


def conform(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Rows for a store of `schema`: its columns and the new ones, each id once.

    A repeated id: the last row wins. Missing columns become null. Columns that the store lacks
    are appended, unless all their values are null and nothing tells their type. Vectors off unit
    norm by 1e-6 to 1e-3 are normalised.

    Args:
        batches: record batches with at least id and vector; a table counts as its batches.
        schema: of the store's rows, see `records.row_schema`.

    Returns:
        A table of the merged schema, of one chunk; its first columns are those of `schema`.

    Raises:
        SchemaError: see `VectorStore.upsert`.
    """
    given = _as_batches(batches)
    merged = merge_schemas(schema, [batch.schema for batch in given])
    tables = [_conformed(batch, merged, index) for index, batch in enumerate(given)]
    table = pa.Table.from_batches(tables, merged).combine_chunks()
    return _last_of_each_id(table)


def merge_schemas(schema: pa.Schema, found: Sequence[pa.Schema]) -> pa.Schema:
    """A store's schema with the columns that rows bring appended, in order of appearance.

    Raises:
        SchemaError: a reserved name, or a type that stores do not hold.
    """
    fields = {field.name: field for field in schema}
    for one in found:
        require_column_names([*one.names])
        for field in one:
            if field.name not in fields:
                kind = canonical(field.type, field.name)
                if is_known(kind):
                    fields[field.name] = pa.field(field.name, kind)
    return pa.schema(list(fields.values()))


def attributes_of(schema: pa.Schema) -> pa.Schema:
    """The columns of a schema of rows beyond the six fixed ones."""
    return pa.schema([field for field in schema if field.name not in FIXED_COLUMNS])


def with_attributes(dim: int, attributes: pa.Schema) -> pa.Schema:
    """The opposite of `attributes_of`."""
    return row_schema(dim, attributes)


def checked_ids(ids: Iterable[str]) -> pa.Array:
    """Ids as an Arrow array of distinct strings.

    Raises:
        SchemaError: something in it is not a string.
    """
    require_items(ids, "ids")
    given = [one.as_py() if isinstance(one, pa.Scalar) else one for one in ids]
    for one in given:
        if not isinstance(one, str):
            raise SchemaError(f"expected ids that are strings, found {one!r}")
    return pa.array(dict.fromkeys(given), pa.string())


def _as_batches(batches: Iterable[pa.RecordBatch]) -> list[pa.RecordBatch]:
    if isinstance(batches, pa.Table):
        return list(batches.to_batches())
    if isinstance(batches, pa.RecordBatch):
        return [batches]
    require_items(batches, "Arrow record batches")
    given = list(batches)
    for one in given:
        if not isinstance(one, pa.RecordBatch):
            raise SchemaError(
                f"expected Arrow record batches, found {type(one).__name__}; "
                "make them with pyarrow.RecordBatch.from_pylist(rows)"
            )
    return given


def _conformed(batch: pa.RecordBatch, schema: pa.Schema, index: int) -> pa.RecordBatch:
    what = f"record batch {index}"
    for name in ("id", VECTOR):
        if name not in batch.schema.names:
            raise SchemaError(
                f"{what}: expected a column {name!r}, found {', '.join(batch.schema.names)}"
            )
        if batch.column(name).null_count:
            raise SchemaError(f"{what}: expected a value of {name!r} in each row, found nulls")
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(len(batch), field.type))
        elif field.name == VECTOR:
            dim = field.type.list_size
            columns.append(vector_array(unit_vectors(batch.column(VECTOR), dim, what)))
        else:
            columns.append(cast(batch.column(field.name), field.type, field.name))
    return pa.record_batch(columns, schema=schema)


def unit_vectors(column: pa.Array, dim: int, what: str) -> np.ndarray:
    """Arrow lists of numbers, without nulls → float32 (n, dim) of unit norm.

    Raises:
        SchemaError: not lists of `dim` numbers, not finite, or off unit norm by 1e-3.
    """
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    kind = column.type
    listed = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    if not listed or not (pt.is_floating(kind.value_type) or pt.is_integer(kind.value_type)):
        raise SchemaError(f"{what}: expected vectors as lists of {dim} float32, found {kind}")
    lengths = [kind.list_size] if pt.is_fixed_size_list(kind) else _lengths(column)
    if lengths not in ([], [dim]):
        wrong = next(length for length in lengths if length != dim)
        raise SchemaError(
            f"{what}: expected vectors of length {dim}, found length {wrong}; "
            "embed with the model that made the store"
        )
    values = column.flatten()
    if values.null_count:
        raise SchemaError(f"{what}: expected vectors of numbers, found nulls in them")
    matrix = values.to_numpy(zero_copy_only=False).reshape(len(column), dim)
    norms = require_unit_vectors(matrix, dim, what=what)
    narrow = np.ascontiguousarray(matrix, dtype=np.float32)
    off = np.abs(norms - 1.0) > _RENORMALISE
    if off.any():
        narrow = narrow.copy()
        narrow[off] = matrix[off].astype(np.float64) / norms[off, None]
    return narrow


def _lengths(column: pa.Array) -> list[int]:
    lengths: list[int] = pc.unique(pc.list_value_length(column)).to_pylist()
    return lengths


def _last_of_each_id(table: pa.Table) -> pa.Table:
    codes = table["id"].combine_chunks().dictionary_encode().indices.to_numpy()
    if not len(codes):
        return table
    _, last = np.unique(codes[::-1], return_index=True)
    if len(last) == len(codes):
        return table
    return table.take(pa.array(np.sort(len(codes) - 1 - last))).combine_chunks()
