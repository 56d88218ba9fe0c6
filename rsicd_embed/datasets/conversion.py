"""Columns as a file has them → columns of another type, each value kept or refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sized
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.datasets.column_types import TEXT_COLUMNS, is_list, shown, survives
from rsicd_embed.errors import DatasetError, SchemaError

_S = TypeVar("_S", bound=Sized)

_INTEGER = r"^-?(0|[1-9]\d*)(\.0+)?$"
_FLOAT = r"^-?((0|[1-9]\d*)(\.\d+)?|\.\d+)([eE][+-]?\d+)?$|^-?(inf|Infinity|nan|NaN)$"
_ANY_INTEGER = r"^[+-]?\d+(\.0*)?$"
_ANY_FLOAT = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$|^-?(inf|Infinity|nan|NaN)$"
_OFFSET = r"\d:\d.*(Z|[+-]\d\d(:?\d\d)?)$"


class MisfitError(Exception):
    """A value cannot be one of another type.

    Attributes:
        row: its place in the column, from 0.
        value: it, as Python shows it.
    """

    def __init__(self, row: int, value: str) -> None:
        super().__init__(f"row {row + 1}: {value}")
        self.row = row
        self.value = value


class UnknownTimeError(MisfitError):
    """A time is not of the years 1 to 9999, which Python knows."""


class _Unfit(Exception):  # noqa: N818  (it never leaves this module)
    """Some value does not fit; which one is looked for only then."""


@dataclass(frozen=True)
class Conversion:
    """How values are read.

    Attributes:
        target: the type wanted.
        nulls: texts that are null where `target` is another type than text.
        lenient: as the user declared it: numbers may be written in any way (`007`, `+5`) and are
            rounded to a float, and times may become text.
    """

    target: pa.DataType
    nulls: frozenset[str] = frozenset()
    lenient: bool = False

    def __call__(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """The values of a column in the wanted type.

        Raises:
            MisfitError: for the first value that is none of that type.
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
            return pa.array([{} if one else None for one in values.is_valid().to_pylist()], target)
        return pa.StructArray.from_arrays(columns, fields=list(target), mask=values.is_null())

    def _has_text(self, source: pa.DataType) -> bool:
        """Whether values of a type have but one text, or any is good enough."""
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
    """bool (n,): which times are written with an offset from UTC."""
    return pc.match_substring_regex(text, _OFFSET)


def values(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python's values.

    Raises:
        UnknownTimeError: for the first time that is none of Python's.
    """
    try:
        found: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        row = first_failing(column, lambda part: part.to_pylist())
        raise UnknownTimeError(row, _excerpt(column[row])) from None
    return found


def first_failing(items: _S, attempt: Callable[[_S], object]) -> int:
    """The place of the first item of a sequence that makes `attempt` fail; one of them does."""
    start, stop = 0, len(items)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            attempt(items[start:middle])  # type: ignore[index]
        except Exception:  # whatever it was for the whole
            stop = middle
        else:
            start = middle
    return start


def _is_empty(values: pa.Array) -> bool:
    """Whether there is no value but nulls, and objects and lists of nothing else."""
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
    if pt.is_floating(target):  # to which Arrow rounds
        back = converted.cast(values.type)
        same = pc.or_(pc.equal(back, values), pc.and_(pc.is_nan(converted), pc.is_nan(values)))
        if pc.all(same).as_py() is False:
            raise _Unfit
    return converted


def _excerpt(value: pa.Scalar) -> str:
    try:
        text = repr(value.as_py())
    except (ValueError, OverflowError, pa.ArrowException):  # a time that Python cannot show
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
    """A source with columns of other types, converted from what its file has.

    Args:
        source: which may lack columns that `Source.rows` has.
        types: of the columns wanted.
        declared: columns whose type the user has declared, so that precision may be lost.
        stored: columns whose type is that of a store.

    Raises:
        DatasetError, SchemaError: as `resolve`.
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
                    f"{where}, which is the store's type, found {error.value}; correct it, rename "
                    "the column, or drop the store's with rsicd-embed store drop-column"
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
    """A column as the source's file has it, or as its examples have it."""
    if source.rows is not None and name in source.rows.written.column_names:
        return source.rows.of(source.examples).written[name]
    kind = source.schema.field(name).type
    return pa.chunked_array([[one.attributes.get(name) for one in source.examples]], kind)


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
