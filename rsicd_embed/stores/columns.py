"""Column types of a store: their canonical forms, and which values fit which column."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.arguments import require_items
from rsicd_embed.errors import SchemaError
from rsicd_embed.records import FIXED_COLUMNS, HIT_COLUMNS, is_list

_REMEDY = "cast it, or give the column another name"
_OF_VECTORS = tuple(name for name in FIXED_COLUMNS if name != "uri")
_RESERVED = tuple(name for name in HIT_COLUMNS if name != "id")


def require_column_names(names: list[str]) -> None:
    """Raises SchemaError for a repeated, reserved or unprintable name."""
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(f"expected each column once, found {name!r} twice; rename one")
        if name in _RESERVED or name.startswith("_"):
            raise SchemaError(
                f"column {name!r} is reserved (hits have the columns {', '.join(_RESERVED)}, "
                "and stores may add columns that begin with _); rename it"
            )
        # LanceDB reads all columns for one called *, each of them twice.
        if not name.isprintable() or name in ("", "*") or set(name) & set(".`"):
            raise SchemaError(
                f"column {name!r}: expected a printable name without dots or backticks, other than "
                "*; rename it"
            )


def canonical(kind: pa.DataType, column: str) -> pa.DataType:
    """The type that stores use for values of `kind`, which are equal when read back.

    Dictionaries and views become strings, all kinds of lists become plain lists (LanceDB loses
    values in fixed-size lists of structs and strings, and rejects NaN in those of floats). Struct
    fields without information are dropped: those of null type, and structs without fields.

    Raises:
        SchemaError: stores do not support such values.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return canonical(kind.storage_type, column)
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return canonical(kind.value_type, column)
    if pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind):
        return pa.string()
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind):
        return pa.binary()
    if is_list(kind):
        return pa.list_(canonical(kind.value_type, column))
    if pt.is_struct(kind):
        _require_field_names([field.name for field in kind], column)
        fields = [pa.field(field.name, canonical(field.type, column)) for field in kind]
        return pa.struct([field for field in fields if is_known(field.type)])
    if pt.is_null(kind) or pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_floating(kind):
        return kind
    if pt.is_decimal128(kind) or pt.is_decimal256(kind) or pt.is_fixed_size_binary(kind):
        return kind
    if pt.is_date(kind) or pt.is_time(kind) or pt.is_timestamp(kind) or pt.is_duration(kind):
        return kind
    raise SchemaError(
        f"column {column!r}: stores do not support values of type {kind}; "
        "cast it, for example to string or to a list"
    )


def is_known(kind: pa.DataType) -> bool:
    """Whether a canonical type can have values, unlike that of all-null columns and of `{}`."""
    if is_list(kind):
        return is_known(kind.value_type)
    return bool(kind.num_fields) if pt.is_struct(kind) else not pt.is_null(kind)


def cast(column: pa.Array, expected: pa.DataType, name: str) -> pa.Array:
    """Casts values to a column's type without changing them.

    Fields that a struct lacks become null, and so do all fields of a null struct.

    Raises:
        SchemaError: the values do not fit; names the column and both types.
    """
    kind = canonical(column.type, name)
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if pt.is_null(kind):
        return pa.nulls(len(column), expected)
    problem = _misfit(kind, canonical(expected, name), f"column {name!r}")
    if problem is None:
        try:
            return with_nulls_pushed_down(column).cast(expected)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            problem = (
                f"column {name!r}: expected {expected}, found {column.type} "
                f"({' '.join(str(error).split())}); {_REMEDY}"
            )
    raise SchemaError(problem)


def not_as_written(schema: pa.Schema) -> list[str]:
    """Names of the columns whose types this version would write differently, or not at all."""
    names = []
    for field in schema:
        try:
            kind = canonical(field.type, field.name)
        except SchemaError:
            names.append(field.name)
            continue
        if kind != field.type or not is_known(kind):
            names.append(field.name)
    return names


def without_columns(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """Removes columns from the schema of a store's rows.

    Raises:
        ArgumentError: a single name instead of a list.
        SchemaError: an unknown or fixed column, or no names at all.
    """
    require_items(names, "names of columns", str)
    if not names:
        raise SchemaError("expected names of columns to drop, found none")
    attributes = [name for name in schema.names if name not in FIXED_COLUMNS]
    for name in names:
        if name in FIXED_COLUMNS:
            raise SchemaError(
                f"column {name!r} cannot be dropped: every store has it; "
                f"columns that can be dropped: {', '.join(attributes) or 'none'}"
            )
        if name not in attributes:
            similar = difflib.get_close_matches(name, attributes, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, similar))}? " if similar else ""
            raise SchemaError(
                f"no column {name!r}; {hint}"
                f"columns that can be dropped: {', '.join(attributes) or 'none'}"
            )
    return pa.schema([field for field in schema if field.name not in names])


def with_columns(schema: pa.Schema, columns: pa.Schema) -> pa.Schema:
    """Adds columns to the schema of a store's rows, unless it has them.

    Raises:
        SchemaError: a fixed column other than `uri`, an existing one of another type, or an invalid
            name.
    """
    require_column_names(columns.names)
    for field in columns:
        if field.name in _OF_VECTORS:
            raise SchemaError(f"column {field.name!r} cannot be replaced; choose another name")
        if field.name not in schema.names:
            schema = schema.append(field)
        elif schema.field(field.name).type != field.type:
            raise SchemaError(
                f"column {field.name!r} has the type {schema.field(field.name).type}, expected "
                f"{field.type}; choose another name, or drop it: rsicd-embed store drop-column"
            )
    return schema


def with_nulls_pushed_down(column: pa.Array) -> pa.Array:
    """Sets each field of a null struct to null, at any depth.

    Arrow leaves these fields undefined, and DataFusion reads them nevertheless. Lists that are not
    plain lists are returned as large lists.
    """
    kind = column.type
    if not _has_struct(kind):
        return column
    if pt.is_struct(kind):
        columns = [with_nulls_pushed_down(field) for field in column.flatten()]
        fields = [field.with_type(values.type) for field, values in zip(kind, columns, strict=True)]
        return pa.StructArray.from_arrays(columns, fields=fields, mask=column.is_null())
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = with_nulls_pushed_down(column.flatten())
    if pt.is_list(kind):
        narrow = pa.array(offsets, pa.int32())
        return pa.ListArray.from_arrays(narrow, values, mask=column.is_null())
    return pa.LargeListArray.from_arrays(pa.array(offsets), values, mask=column.is_null())


def _misfit(kind: pa.DataType, expected: pa.DataType, place: str) -> str | None:
    """Why values of a canonical type cannot be cast to a column's type; None if they can.

    `place` names the column, and perhaps a field in it.
    """
    if kind == expected or pt.is_null(kind):
        return None
    if pt.is_struct(kind) and pt.is_struct(expected):
        names = [field.name for field in expected]
        for field in kind:
            inside = f"{place}, field {field.name!r}"
            if field.name not in names:
                return (
                    f"{inside}: the store's objects have no such field (only {', '.join(names)}); "
                    "leave it out, or remove the column with rsicd-embed store drop-column"
                )
            if problem := _misfit(field.type, expected.field(field.name).type, inside):
                return problem
        return None
    if is_list(kind) and pt.is_list(expected):
        return _misfit(kind.value_type, expected.value_type, place)
    if _fits(kind, expected):
        return None
    return f"{place}: expected {expected}, found {kind}; {_REMEDY}"


def _fits(kind: pa.DataType, expected: pa.DataType) -> bool:
    if pt.is_integer(kind):
        return bool(pt.is_integer(expected) or pt.is_float64(expected))
    if pt.is_floating(kind):
        return bool(pt.is_floating(expected) and kind.bit_width <= expected.bit_width)
    if pt.is_timestamp(kind) and pt.is_timestamp(expected):
        return bool(kind.tz == expected.tz)
    return False


def _require_field_names(names: list[str], column: str) -> None:
    for name in names:
        if names.count(name) > 1 or "\0" in name:
            raise SchemaError(
                f"column {column!r}: expected objects with each field once and names without "
                f"NUL, found the field {name!r}; rename it"
            )


def _has_struct(kind: pa.DataType) -> bool:
    """Whether values of a type contain structs with fields."""
    return (
        bool(kind.num_fields)
        if pt.is_struct(kind)
        else is_list(kind) and _has_struct(kind.value_type)
    )
