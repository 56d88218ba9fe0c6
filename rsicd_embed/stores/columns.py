"""Column types of a store: one spelling for each, and which values may join which column."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

from rsicd_embed.errors import SchemaError
from rsicd_embed.records import HIT_COLUMNS

_RESERVED = tuple(name for name in HIT_COLUMNS if name != "id")


def require_column_names(names: list[str]) -> None:
    """Refuses names that occur twice, or that would hide what a store itself adds.

    Raises:
        SchemaError: naming the column and what to do.
    """
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(f"expected each column once, found {name!r} twice; rename one")
        if name in _RESERVED or name.startswith("_"):
            raise SchemaError(
                f"column {name!r} is reserved (a table of hits has columns "
                f"{', '.join(_RESERVED)}, and a store may add some that begin with _); rename it"
            )
        if not name.isprintable() or not name or set(name) & set(".`"):
            raise SchemaError(
                f"column {name!r}: expected a printable name without dots or backticks; rename it"
            )


def canonical(kind: pa.DataType, column: str) -> pa.DataType:
    """The one spelling of a type that stores hold: string for dictionaries and views, and so on.

    Raises:
        SchemaError: no store holds such values.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return canonical(kind.storage_type, column)
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return canonical(kind.value_type, column)
    if pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind):
        return pa.string()
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind):
        return pa.binary()
    if pt.is_fixed_size_list(kind):
        return pa.list_(canonical(kind.value_type, column), kind.list_size)
    if _is_list(kind):
        return pa.list_(canonical(kind.value_type, column))
    if pt.is_struct(kind):
        return pa.struct([pa.field(f.name, canonical(f.type, column)) for f in kind])
    if pt.is_null(kind) or pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_floating(kind):
        return kind
    if pt.is_decimal128(kind) or pt.is_decimal256(kind) or pt.is_fixed_size_binary(kind):
        return kind
    if pt.is_date(kind) or pt.is_time(kind) or pt.is_timestamp(kind) or pt.is_duration(kind):
        return kind
    raise SchemaError(
        f"column {column!r}: stores hold no values of type {kind}; "
        "cast it, for example to string or to a list"
    )


def is_known(kind: pa.DataType) -> bool:
    """Whether a type says what the values are; that of an all-null column does not."""
    if pt.is_null(kind):
        return False
    if _is_list(kind) or pt.is_fixed_size_list(kind):
        return is_known(kind.value_type)
    return not pt.is_struct(kind) or all(is_known(field.type) for field in kind)


def fits(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether values of a canonical type may join a column, if each keeps its value."""
    if found == expected or pt.is_null(found):
        return True
    if pt.is_integer(found):
        return bool(pt.is_integer(expected) or pt.is_float64(expected))
    if pt.is_floating(found):
        return bool(pt.is_floating(expected) and found.bit_width <= expected.bit_width)
    if pt.is_timestamp(found) and pt.is_timestamp(expected):
        return bool(found.tz == expected.tz)
    if (_is_list(found) or pt.is_fixed_size_list(found)) and pt.is_list(expected):
        return fits(found.value_type, expected.value_type)
    return False


def cast(column: pa.Array, expected: pa.DataType, name: str) -> pa.Array:
    """Values as a column of type `expected`, each keeping its value.

    Raises:
        SchemaError: naming the column, its type and that of the values.
    """
    found = column.type
    kind = canonical(found, name)
    if isinstance(found, pa.BaseExtensionType):
        column = column.storage
    if pt.is_null(kind):
        return pa.nulls(len(column), expected)
    if fits(kind, expected):
        try:
            return column.cast(expected)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            reason = f" ({' '.join(str(error).split())})"
    else:
        reason = ""
    raise SchemaError(
        f"column {name!r}: expected {expected}, found {found}{reason}; "
        "cast it, or give the column another name"
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pt.is_list(kind)
        or pt.is_large_list(kind)
        or pt.is_list_view(kind)
        or pt.is_large_list_view(kind)
    )
