"""Types of manifest columns: inferred from values, declared, or common to several files.

The rules are the same for CSV, JSONL and Parquet (docs/sources.md): a column is numeric only if
every value can be recovered from the number, and text becomes a time only if declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.errors import DatasetError
from rsicd_embed.records import is_list

PATH_COLUMNS = ("uri", "path", "image", "filename", "file_name")
TEXT_COLUMNS = frozenset({"id", *PATH_COLUMNS, "label", "split", "caption", "captions"})

# Types that users can declare; a timestamp is in UTC if its values have offsets.
DECLARABLE = {
    "text": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
}

# CSV cells that mean null in columns of other types than text, as in Arrow and pandas.
NULL_CELLS = frozenset(
    {
        *("", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "NaN", "nan", "-NaN"),
        *("-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    }
)

_INTEGER = r"^(0|-?[1-9]\d*)$"
# A plain decimal, or an exponent as programs write it (1.5e-07). `10e4` may be a code.
_DECIMAL = r"^-?((0|[1-9]\d*)(\.\d+)?|\.\d+|\d(\.\d+)?[eE][+-]\d+|inf)$"
_BOOLEAN = r"^(true|false|True|False|TRUE|FALSE)$"

# Bits of a float → number of decimal digits that it always preserves, and a pattern of exponents
# that may be out of its range.
_SAFE = {64: (15, r"[eE][+-]?0*[1-9]\d\d"), 32: (6, r"[eE][+-]?0*[1-9]\d")}
_MOST_DIGITS = 800  # the longest exact float64 has 767
_SAMPLE_ROWS = 64


def require_declarable(declared: Mapping[str, str]) -> None:
    """Checks declared column types.

    Raises:
        DatasetError: a type is unknown or cannot be declared, or `declared` is not a mapping.
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
            raise DatasetError(f"column {name!r} is always text and cannot be declared as {kind}")


def shown(kind: pa.DataType) -> str:
    """The name of a type in messages."""
    return "text" if pt.is_string(kind) else str(kind)


def plain(kind: pa.DataType) -> pa.DataType:
    """Simplifies a file's type to one that Python values can represent.

    At any depth, dictionaries become their value type, views and large types plain types, and
    nanoseconds microseconds.
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
    """The type of an always-text column: text, or lists of text."""
    if pt.is_null(kind) or pt.is_struct(kind) or pt.is_map(kind):
        return kind
    return pa.list_(as_text(kind.value_type)) if is_list(kind) else pa.string()


def of_cells(cells: pa.ChunkedArray) -> pa.DataType:
    """Infers the type of a CSV column.

    Args:
        cells: text as written; empty cells and NULL_CELLS are ignored.
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
    """Infers the type of JSON numbers: int64 or float64 if that preserves each value, else text."""
    if _all_match(numbers, _INTEGER) and _in_int64(numbers):
        return pa.int64()
    return pa.float64() if bool(pc.all(survives(numbers)).as_py()) else pa.string()


def survives(numbers: pa.Array | pa.ChunkedArray, bits: int = 64) -> pa.Array:
    """bool (n,): whether a float preserves each number as written.

    It does if the float, formatted with as many digits, is the same number. A float64 preserves all
    numbers of up to 15 digits, and longer ones that a program wrote from a float64.

    Args:
        numbers: text that Python's `float` accepts; infinities and NaN survive, nulls stay null.
        bits: size of the float, 64 or 32.
    """
    most, large = _SAFE[bits]
    short = pc.less_equal(pc.binary_length(numbers), most)
    safe = pc.and_(short, pc.invert(pc.match_substring_regex(numbers, large)))
    if pc.all(safe).as_py() is False:  # most long numbers are formatted floats
        kind = pa.float64() if bits == 64 else pa.float32()
        safe = pc.or_(safe, pc.equal(numbers.cast(kind).cast(pa.string()), numbers))
    if pc.all(safe).as_py() is False:
        pairs = zip(safe.to_pylist(), numbers.to_pylist(), strict=True)
        safe = pa.array([known or _keeps(text, bits) for known, text in pairs], pa.bool_())
    return safe


def unify(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """The common type of two types.

    Raises:
        pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError: there is none.
    """
    if left.equals(right) or pt.is_null(right):
        return left
    if pt.is_null(left):
        return right
    if is_list(left) and is_list(right):
        return pa.list_(unify(left.value_type, right.value_type))
    if pt.is_struct(left) and pt.is_struct(right):
        fields = {field.name: field.type for field in left}
        for field in right:
            fields[field.name] = unify(fields.get(field.name, pa.null()), field.type)
        return pa.struct(list(fields.items()))
    if pt.is_string(left) and _is_written_plainly(right):
        return left
    if pt.is_string(right) and _is_written_plainly(left):
        return right
    pair = [pa.schema({"": left}), pa.schema({"": right})]
    return pa.unify_schemas(pair, promote_options="permissive").field(0).type


def same_family(declared: pa.DataType, stored: pa.DataType) -> bool:
    """Whether a store's column can hold a declared type, possibly with less precision."""
    families = (pt.is_string, pt.is_boolean, pt.is_timestamp, pt.is_date, _is_number)
    return any(family(declared) and family(stored) for family in families)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def _is_written_plainly(kind: pa.DataType) -> bool:
    """Whether values of a type have a unique text, or were text in the file."""
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
    digits = sum(character.isdigit() for character in mantissa.lstrip("-0."))
    if not digits or digits > _MOST_DIGITS:
        return not digits  # zero, infinity and NaN; or more digits than any float has
    try:
        # A float's shortest text may differ from its rounding to that many digits: 2**-24.
        texts = (f"{float(value):.{digits - 1}e}", str(value))
        return any(Decimal(text) == Decimal(written) for text in texts)
    except InvalidOperation:  # an exponent out of bounds
        return False
