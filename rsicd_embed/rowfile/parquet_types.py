"""Conversion of column types that Parquet lacks to types that preserve the values, and back."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.types as pt

from rsicd_embed.errors import SchemaError


def parquet_schema(schema: pa.Schema) -> pa.Schema:
    """The schema that rows of `schema` have in the file.

    Raises:
        SchemaError: a column has a type without an equivalent in Parquet.
    """
    fields = []
    for field in schema:
        if _is_empty(field.type):
            raise SchemaError(
                f"column {field.name!r}: Parquet cannot hold values of type {field.type}; "
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
