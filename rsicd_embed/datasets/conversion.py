"""Lossless conversion of columns to other types; values that do not fit are refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sized
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.datasets.column_types import TEXT_COLUMNS, shown, survives
from rsicd_embed.errors import DatasetError, SchemaError
from rsicd_embed.records import is_list

_S = TypeVar("_S", bound=Sized)

_INTEGER = r"^-?(0|[1-9]\d*)(\.0+)?$"
_FLOAT = r"^-?((0|[1-9]\d*)(\.\d+)?|\.\d+)([eE][+-]?\d+)?$|^-?(inf|Infinity|nan|NaN)$"
_ANY_INTEGER = r"^[+-]?\d+(\.0*)?$"
_ANY_FLOAT = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$|^-?(inf|Infinity|nan|NaN)$"
_OFFSET = r"\d:\d.*(Z|[+-]\d\d(:?\d\d)?)$"


class MisfitError(Exception):
    """A value cannot be converted.

    Attributes:
        row: its position in the column, from 0.
        value: its Python representation.
    """

    def __init__(self, row: int, value: str) -> None:
        super().__init__(f"row {row + 1}: {value}")
        self.row = row
        self.value = value


class UnknownTimeError(MisfitError):
    """A time is outside the years 1 to 9999, which Python supports."""


class _Unfit(Exception):  # noqa: N818  (it never leaves this module)
    """A value does not fit; the caller searches for it."""


@dataclass(frozen=True)
class Conversion:
    """A conversion to a type.

    Attributes:
        target: the type to convert to.
        nulls: texts that mean null unless `target` is text.
        lenient: accept any spelling of numbers (`007`, `+5`), rounding to floats, and times as
            text; for types that the user declared.
    """

    target: pa.DataType
    nulls: frozenset[str] = frozenset()
    lenient: bool = False

    def __call__(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Converts a column.

        Raises:
            MisfitError: for the first value that does not fit.
        """
        chunks, first = [], 0
        for chunk in column.chunks:
            try:
                chunks.append(self._converted(chunk, self.target))
            except (_Unfit, pa.ArrowException):
                row = first_failing(chunk, lambda part: self._converted(part, self.target))
                raise MisfitError(first + row, _excerpt(chunk[row])) from None
            first += len(chunk)
        return pa.chunked_array(chunks, self.target)

    def _converted(self, values: pa.Array, target: pa.DataType) -> pa.Array:
        source = values.type
        if source.equals(target):
            return values
        if values.null_count == len(values):
            return pa.nulls(len(values), target)
        if pt.is_string(source):
            return self._parsed(values, target)
        if is_list(source) and is_list(target):
            inner = self._converted(values.flatten(), target.value_type)
            lengths = pc.list_value_length(values).fill_null(0).to_pylist()
            offsets = pa.array(accumulate(lengths, initial=0), pa.int32())
            return pa.ListArray.from_arrays(offsets, inner, mask=values.is_null()).cast(target)
        if pt.is_struct(source) and pt.is_struct(target):
            return self._fields(values, target)
        if pt.is_string(target) and self._has_text(source):
            return values.cast(target)
        if _same_kind(source, target):
            return _lossless(values, target)
        raise _Unfit

    def _fields(self, values: pa.StructArray, target: pa.StructType) -> pa.Array:
        flat = dict(zip(values.type.names, values.flatten(), strict=True))
        columns = []
        for field in target:
            column = flat.pop(field.name, None)
            columns.append(
                pa.nulls(len(values), field.type)
                if column is None
                else self._converted(column, field.type)
            )
        if not all(_is_empty(column) for column in flat.values()):
            raise _Unfit  # the target has no such field
        if not columns:
            present = values.is_valid().to_pylist()
            return pa.array([{} if valid else None for valid in present], target)
        return pa.StructArray.from_arrays(columns, fields=list(target), mask=values.is_null())

    def _has_text(self, source: pa.DataType) -> bool:
        """Whether values of a type have a unique text, or any text is acceptable."""
        if pt.is_boolean(source) or pt.is_integer(source) or pt.is_decimal(source):
            return True
        if pt.is_floating(source) or pt.is_date(source):
            return True
        return self.lenient and not (is_list(source) or pt.is_struct(source))

    def _parsed(self, text: pa.StringArray, target: pa.DataType) -> pa.Array:
        if self.nulls:
            is_null = pc.is_in(text, pa.array(list(self.nulls)))
            text = pc.if_else(is_null, pa.scalar(None, pa.string()), text)
            if text.null_count == len(text):
                return pa.nulls(len(text), target)
        text = pc.ascii_trim_whitespace(text)
        if pt.is_integer(target):
            _require(text, _ANY_INTEGER if self.lenient else _INTEGER)
            return pc.replace_substring_regex(text, r"^\+|\.0*$", "").cast(target)
        if pt.is_floating(target):
            _require(text, _ANY_FLOAT if self.lenient else _FLOAT)
            text = pc.replace_substring_regex(text, r"^\+|\.$", "")
            bits = 64 if pt.is_float64(target) else 32
            if not self.lenient and pc.all(survives(text, bits)).as_py() is False:
                raise _Unfit
            numbers = text.cast(pa.float64())
            return _lossless(numbers, target) if pt.is_float16(target) else numbers.cast(target)
        if pt.is_boolean(target):
            _require(text, r"^(true|false|True|False|TRUE|FALSE)$")
            return text.cast(target)
        if pt.is_timestamp(target):
            return _as_times(text, pa.timestamp("us", target.tz)).cast(target)
        if pt.is_date(target):
            return text.cast(pa.date32()).cast(target)
        if pt.is_time(target):
            times = _as_times(
                pc.binary_join_element_wise("1970-01-01T", text, ""), pa.timestamp("us")
            )
            return times.cast(pa.time64("us")).cast(target)
        if pt.is_decimal(target) or pt.is_large_string(target) or pt.is_string_view(target):
            return text.cast(target)
        raise _Unfit


def have_offsets(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """bool (n,): whether each time is written with an offset from UTC."""
    return pc.match_substring_regex(text, _OFFSET)


def values(column: pa.ChunkedArray) -> list[Any]:
    """Converts a column to Python values.

    Raises:
        UnknownTimeError: for the first time that Python cannot represent.
    """
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        row = first_failing(column, lambda part: part.to_pylist())
        raise UnknownTimeError(row, _excerpt(column[row])) from None


def first_failing(items: _S, attempt: Callable[[_S], object]) -> int:
    """Bisects for the first item that makes `attempt` fail, given that one does."""
    start, stop = 0, len(items)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            attempt(items[start:middle])  # type: ignore[index]
        except Exception:  # of any kind, as for the whole sequence
            stop = middle
        else:
            start = middle
    return start


def _is_empty(values: pa.Array) -> bool:
    """Whether a column has only nulls, or objects and lists of only nulls."""
    if values.null_count == len(values):
        return True
    if pt.is_struct(values.type):
        return all(_is_empty(field) for field in values.flatten())
    return is_list(values.type) and _is_empty(values.flatten())


def _require(text: pa.StringArray, pattern: str) -> None:
    if pc.all(pc.match_substring_regex(text, pattern)).as_py() is False:
        raise _Unfit


def _as_times(text: pa.StringArray, kind: pa.DataType) -> pa.Array:
    return pc.replace_substring_regex(text, r"(\.\d{6})0+", r"\1").cast(kind)


def _same_kind(source: pa.DataType, target: pa.DataType) -> bool:
    def number(kind: pa.DataType) -> bool:
        return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))

    if pt.is_timestamp(source) and pt.is_timestamp(target):
        return bool(source.tz) == bool(target.tz)
    if pt.is_date(source) and pt.is_timestamp(target):
        return not target.tz
    kinds = (number, pt.is_date, pt.is_time, pt.is_duration, _is_text, _is_binary)
    return any(kind(source) and kind(target) for kind in kinds)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pt.is_binary(kind)
        or pt.is_large_binary(kind)
        or pt.is_binary_view(kind)
        or pt.is_fixed_size_binary(kind)
    )


def _lossless(values: pa.Array, target: pa.DataType) -> pa.Array:
    converted = values.cast(target)
    if pt.is_floating(target):  # Arrow rounds silently
        back = converted.cast(values.type)
        same = pc.or_(pc.equal(back, values), pc.and_(pc.is_nan(converted), pc.is_nan(values)))
        if pc.all(same).as_py() is False:
            raise _Unfit
    return converted


def _excerpt(value: pa.Scalar) -> str:
    try:
        text = repr(value.as_py())
    except (ValueError, OverflowError, pa.ArrowException):  # a time that Python cannot represent
        kind = value.type
        text = str(value.cast(pa.string())) if pt.is_temporal(kind) else f"one in {kind}"
    return text if len(text) <= 80 else f"{text[:77]}…"


def retyped(
    source: Source,
    types: Mapping[str, pa.DataType],
    *,
    declared: Collection[str] = (),
    stored: Collection[str] = (),
) -> Source:
    """Converts columns of a source from the values in its file.

    Args:
        source: the source; it may lack columns that `Source.rows` has.
        types: column name → type to convert to.
        declared: columns with a declared type, for which precision may be lost.
        stored: columns whose type is given by a store.

    Raises:
        DatasetError: a value does not have the given type.
        SchemaError: a value does not fit the store's column.
    """
    has = {field.name: field.type for field in source.schema}
    types = {name: kind for name, kind in types.items() if has.get(name) != kind}
    if not types:
        return source
    columns: dict[str, list[Any]] = {}
    for name, kind in types.items():
        lenient = name in declared or (name in TEXT_COLUMNS and name not in stored)
        try:
            conversion = Conversion(kind, null_texts(source), lenient)
            columns[name] = values(conversion(written_column(source, name)))
        except UnknownTimeError as error:
            raise DatasetError(
                f"{place_of(source, error.row)}: column {name!r}: expected times of the years 1 to "
                f"9999, found {error.value}; correct it"
            ) from None
        except MisfitError as error:
            where = f"{place_of(source, error.row)}: expected {shown(kind)} in column {name!r}"
            if name in stored:
                raise SchemaError(
                    f"{where}, as in the store, found {error.value}; correct it, rename the "
                    "column, or drop the store's with rsicd-embed store drop-column"
                ) from None
            given = ", as declared" if name in declared else ""
            raise DatasetError(f"{where}{given}, found {error.value}; correct it") from None
    rows = zip(*columns.values(), strict=True)
    examples = tuple(
        Example(old.id, old.file, {**old.attributes, **dict(zip(columns, row, strict=True))})
        for old, row in zip(source.examples, rows, strict=True)
    )
    return replace(source, examples=examples, schema=pa.schema(list((has | types).items())))


def written_column(source: Source, name: str) -> pa.ChunkedArray:
    """A column as stored in the source's file, or else from its examples."""
    if source.rows is not None and name in source.rows.written.column_names:
        return source.rows.of(source.examples).written[name]
    kind = source.schema.field(name).type
    return pa.chunked_array([[e.attributes.get(name) for e in source.examples]], kind)


def null_texts(source: Source) -> frozenset[str]:
    """Texts that mean null in the non-text columns of a source."""
    return source.rows.nulls if source.rows else frozenset()


def place_of(source: Source, row: int) -> str:
    """Where a row of a source comes from, for error messages."""
    example: Example = source.examples[row]
    if source.rows is None:
        return f"{source.root}: {example.id}"
    rows = source.rows.of(source.examples)
    return f"{rows.path}: row {rows.numbers[row]}"
