"""Which type a column of a manifest has: as written, as declared, and for several files together.

The rule is the same for CSV, JSONL and Parquet (docs/sources.md): nothing is a number unless each
value can be recovered from it, and text is never taken for a time unless that is declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.errors import DatasetError

PATH_COLUMNS = ("uri", "path", "image", "filename", "file_name")
TEXT_COLUMNS = frozenset({"id", *PATH_COLUMNS, "label", "split", "caption", "captions"})

# What a column may be declared as; a timestamp is in UTC if its values have offsets.
DECLARABLE = {
    "text": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
}

# Cells of a CSV that are null in a column of another type than text, as Arrow and pandas agree.
NULL_CELLS = frozenset(
    {
        *("", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "NaN", "nan", "-NaN"),
        *("-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    }
)

_INTEGER = r"^(0|-?[1-9]\d*)$"
# A plain decimal, or an exponent as programs write it (1.5e-07); `10e4` may be a code.
_DECIMAL = r"^-?((0|[1-9]\d*)(\.\d+)?|\.\d+|\d(\.\d+)?[eE][+-]\d+|inf)$"
_BOOLEAN = r"^(true|false|True|False|TRUE|FALSE)$"

# Bits of a float → how many digits of a decimal number it always keeps, and exponents that may be
# out of its range.
_SAFE = {64: (15, r"[eE][+-]?0*[1-9]\d\d"), 32: (6, r"[eE][+-]?0*[1-9]\d")}
_MOST_DIGITS = 800  # the longest exact float64 has 767
_SAMPLE_ROWS = 64


def require_declarable(declared: Mapping[str, str]) -> None:
    """Refuses declared column types that no column can have.

    Raises:
        DatasetError: naming the column and what is accepted, or what they are if no mapping.
    """
    if not isinstance(declared, Mapping):
        raise DatasetError(
            f"expected column types such as {{'taken': 'timestamp'}}, found {declared!r:.60}"
        )
    for name, kind in declared.items():
        if kind not in DECLARABLE:
            raise DatasetError(
                f"column {name!r}: expected a type of {', '.join(DECLARABLE)}, found {kind!r}"
            )
        if name in TEXT_COLUMNS and kind != "text":
            raise DatasetError(f"column {name!r} is always text, and cannot be declared as {kind}")


def shown(kind: pa.DataType) -> str:
    """A type as messages name it."""
    return "text" if pt.is_string(kind) else str(kind)


def plain(kind: pa.DataType) -> pa.DataType:
    """The type, of those that Python has values for, in which values of a file's type are kept.

    Dictionaries become their values, views and large types plain ones, and nanoseconds
    microseconds, at any depth.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if pt.is_large_string(kind) or pt.is_string_view(kind):
        return pa.string()
    if pt.is_large_binary(kind) or pt.is_binary_view(kind):
        return pa.binary()
    if pt.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pt.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pt.is_time64(kind):
        return pa.time64("us")
    if pt.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type), kind.list_size)
    if is_list(kind):
        return pa.list_(plain(kind.value_type))
    if pt.is_map(kind):
        return pa.map_(plain(kind.key_type), plain(kind.item_type))
    if pt.is_struct(kind):
        return pa.struct([field.with_type(plain(field.type)) for field in kind])
    return kind


def as_text(kind: pa.DataType) -> pa.DataType:
    """The type of a column that is always text: text, or lists of it."""
    if pt.is_null(kind) or pt.is_struct(kind) or pt.is_map(kind):
        return kind
    return pa.list_(as_text(kind.value_type)) if is_list(kind) else pa.string()


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists, of whatever kind."""
    return bool(
        pt.is_list(kind)
        or pt.is_large_list(kind)
        or pt.is_list_view(kind)
        or pt.is_large_list_view(kind)
        or pt.is_fixed_size_list(kind)
    )


def of_cells(cells: pa.ChunkedArray) -> pa.DataType:
    """The type of a CSV's column.

    Args:
        cells: text as written; empty cells and those of NULL_CELLS say nothing about a number.
    """
    given = cells.filter(pc.not_equal(cells, ""))
    if not len(given):
        return pa.null()
    values = given.filter(pc.invert(pc.is_in(given, pa.array(list(NULL_CELLS)))))
    if not len(values):
        return pa.string()
    guess = _of_values(values.slice(0, _SAMPLE_ROWS))
    return guess if pt.is_string(guess) else _of_values(values)


def of_numbers(numbers: pa.Array) -> pa.DataType:
    """The type of numbers of a JSON, as written: int64 or float64 if they keep each value."""
    if _all_match(numbers, _INTEGER) and _in_int64(numbers):
        return pa.int64()
    return pa.float64() if bool(pc.all(survives(numbers)).as_py()) else pa.string()


def survives(numbers: pa.Array | pa.ChunkedArray, bits: int = 64) -> pa.Array:
    """bool (n,): whether a float keeps a number as it is written.

    It does if the float, written with as many digits, is the same number: always up to 15 digits,
    and with more where a program has written a float64 out.

    Args:
        numbers: text that Python's `float` takes; infinities and NaN survive, nulls stay null.
        bits: 64 or 32, of the float.
    """
    most, large = _SAFE[bits]
    short = pc.less_equal(pc.binary_length(numbers), most)
    safe = pc.and_(short, pc.invert(pc.match_substring_regex(numbers, large)))
    if pc.all(safe).as_py() is False:  # most long numbers are what a program writes of a float
        kind = pa.float64() if bits == 64 else pa.float32()
        safe = pc.or_(safe, pc.equal(numbers.cast(kind).cast(pa.string()), numbers))
    if pc.all(safe).as_py() is False:
        known, texts = safe.to_pylist(), numbers.to_pylist()
        kept = [one or _keeps(text, bits) for one, text in zip(known, texts, strict=True)]
        safe = pa.array(kept, pa.bool_())
    return safe


def unify(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type of values of two types together.

    Raises:
        pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError: there is none.
    """
    if one.equals(other) or pt.is_null(other):
        return one
    if pt.is_null(one):
        return other
    if is_list(one) and is_list(other):
        return pa.list_(unify(one.value_type, other.value_type))
    if pt.is_struct(one) and pt.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            fields[field.name] = unify(fields.get(field.name, pa.null()), field.type)
        return pa.struct(list(fields.items()))
    if pt.is_string(one) and _is_written_plainly(other):
        return one
    if pt.is_string(other) and _is_written_plainly(one):
        return other
    pair = [pa.schema({"": one}), pa.schema({"": other})]
    return pa.unify_schemas(pair, promote_options="permissive").field(0).type


def same_family(declared: pa.DataType, stored: pa.DataType) -> bool:
    """Whether a store's column can take what is declared, but for precision."""
    families = (pt.is_string, pt.is_boolean, pt.is_timestamp, pt.is_date, _is_number)
    return any(family(declared) and family(stored) for family in families)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def _is_written_plainly(kind: pa.DataType) -> bool:
    """Whether a value has but one text, or was text in the file."""
    return bool(pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_floating(kind))


def _of_values(values: pa.ChunkedArray) -> pa.DataType:
    values = pc.ascii_trim_whitespace(values)
    if _all_match(values, _INTEGER):
        return pa.int64() if _in_int64(values) else pa.string()
    if _all_match(values, _DECIMAL):
        return pa.float64() if pc.all(survives(values)).as_py() else pa.string()
    return pa.bool_() if _all_match(values, _BOOLEAN) else pa.string()


def _all_match(values: pa.Array | pa.ChunkedArray, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(values, pattern)).as_py() is not False


def _in_int64(integers: pa.Array | pa.ChunkedArray) -> bool:
    try:
        integers.cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    return True


def _keeps(written: str | None, bits: int) -> bool | None:
    if written is None:
        return None
    value = np.float64(written) if bits == 64 else np.float32(written)
    mantissa = written.lower().partition("e")[0]
    digits = sum(one.isdigit() for one in mantissa.lstrip("-0."))
    if not digits or digits > _MOST_DIGITS:
        return not digits  # zeros, infinity and NaN, or more digits than any float has
    try:
        # The shortest text of a float need not be its nearest number of so many digits: 2**-24.
        texts = (f"{float(value):.{digits - 1}e}", str(value))
        return any(Decimal(text) == Decimal(written) for text in texts)
    except InvalidOperation:  # an exponent beyond all bounds
        return False
