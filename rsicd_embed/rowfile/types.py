"""Column types that Parquet lacks, as others that hold the same values, and back."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.types as pt

from rsicd_embed.errors import SchemaError


def parquet_schema(schema: pa.Schema) -> pa.Schema:
    """How rows of `schema` are written.

    Raises:
        SchemaError: a column is of a type that Parquet has no place for.
    """
    fields = []
    for one in schema:
        if _is_hollow(one.type):
            raise SchemaError(
                f"column {one.name!r}: Parquet holds no values of type {one.type}; "
                "take it out of the store with rsicd-embed store drop-column"
            )
        fields.append(one.with_type(_in_parquet(one.type)))
    return pa.schema(fields)


def to_parquet(column: pa.Array) -> pa.Array:
    """A column as it is written; pa.ArrowInvalid where a time does not fit into milliseconds."""
    written = _in_parquet(column.type)
    if written == column.type:
        return column
    return column.view(_without_date64(column.type)).cast(written)


def from_parquet(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column as it was before `to_parquet`; as it is, if it was not written as of type `kind`."""
    if column.type != _in_parquet(kind):
        return column
    if column.type != _without_date64(kind):
        column = column.cast(_without_date64(kind))
    return column.view(kind)  # Parquet has another name for the items of lists, too


def _in_parquet(kind: pa.DataType) -> pa.DataType:
    kind = _without_date64(kind)
    if pt.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if pt.is_time32(kind):
        return pa.time32("ms")
    return _nested(kind, _in_parquet)


def _without_date64(kind: pa.DataType) -> pa.DataType:
    """Parquet's dates are days; those in milliseconds may have a time of the day."""
    return pa.timestamp("ms") if pt.is_date64(kind) else _nested(kind, _without_date64)


def _is_hollow(kind: pa.DataType) -> bool:
    """Whether values of a type may be made of nothing at all."""
    if pt.is_fixed_size_list(kind) and not kind.list_size:
        return True
    if pt.is_struct(kind):
        return not kind.num_fields or any(_is_hollow(field.type) for field in kind)
    return (pt.is_list(kind) or pt.is_fixed_size_list(kind)) and _is_hollow(kind.value_type)


def _nested(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """A type with `change` done to the types that it is made of."""
    if pt.is_struct(kind):
        return pa.struct([field.with_type(change(field.type)) for field in kind])
    if pt.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(change(kind.value_type)), kind.list_size)
    if pt.is_list(kind):
        return pa.list_(kind.value_field.with_type(change(kind.value_type)))
    return kind
