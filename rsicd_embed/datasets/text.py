"""UTF-8 text files, checks of JSON text, and JSON Lines as typed columns."""

from __future__ import annotations

import codecs
import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsicd_embed.datasets import column_types
from rsicd_embed.errors import DatasetError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read(path: Path) -> str:
    """Reads a UTF-8 file, without its byte order mark.

    Raises:
        DatasetError: the file cannot be read or is not UTF-8.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path} cannot be read as text: {_no_utf8(line, error)}") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read as text: {error}") from error
    if "\0" in content:
        line = content.count("\n", 0, content.index("\0")) + 1
        raise DatasetError(f"{path} cannot be read as text: {_found_nul(line)}")
    return content


def require_utf8(path: Path) -> None:
    """Checks that a file is UTF-8 text, since Arrow accepts some files that are not.

    Raises:
        UnicodeError: a line is not UTF-8.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if b"\0" in line and not line.startswith(_UTF16):
                raise UnicodeError(_found_nul(number))
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise UnicodeError(_no_utf8(number, error)) from None


def parse_json(content: str | bytes) -> Any:
    """Parses JSON; ValueError for anything else, also for values that are nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("the values are nested too deeply") from None


def require_whole(value: Any, expected: str) -> None:
    """Checks that a JSON value has no lone surrogates (`\\ud800`), which are not valid text.

    Args:
        value: a decoded JSON value.
        expected: beginning of the error message, such as "a.jpg: expected captions".

    Raises:
        DatasetError: the value contains a lone surrogate.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        surrogate = ascii(error.object[error.start])
        raise DatasetError(
            f"{expected} in Unicode, found {error.reason} ({surrogate}); correct it"
        ) from error


def _found_nul(line: int) -> str:
    """The message for a NUL: valid in UTF-8, but in practice a sign of UTF-16 without a byte order
    mark."""
    return (
        f"expected UTF-8, found a NUL character in line {line}, as in UTF-16; "
        "convert it, for example with: iconv -f utf-16le -t utf-8"
    )


def _no_utf8(line: int, error: UnicodeDecodeError) -> str:
    if error.object.startswith(_UTF16):
        return (
            "expected UTF-8, found UTF-16; convert it, for example with: iconv -f utf-16 -t utf-8"
        )
    return (
        f"expected UTF-8, found the byte 0x{error.object[error.start]:02x} in line {line}; "
        "convert it, for example with: iconv -f latin1 -t utf-8"
    )


_MOST_LEVELS = 64
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _Number(str):
    """The text of a JSON number."""

    __slots__ = ()


class _NotFinite(_Number):
    """NaN or infinity, which Python's `json` writes for missing numbers."""

    __slots__ = ()


class _MixedError(ValueError):
    """A column mixes lists or objects with other values."""


def read_json_lines(path: Path) -> tuple[pa.Table, dict[str, pa.DataType]]:
    """Reads a file with one JSON object per line; blank lines are skipped.

    Returns:
        The values as written, with numbers and booleans as text even inside objects and lists; and
        the types of the values, by column name.

    Raises:
        DatasetError: a line is malformed; the message names it.
        OSError, UnicodeError: the file cannot be read.
    """
    require_utf8(path)
    rows, lines = [], []
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                rows.append(_row(path, number, line))
                lines.append(number)
    if not rows:
        raise DatasetError(f"{path} cannot be read as jsonl: expected JSON objects, found no line")
    columns: dict[str, pa.Array] = {}
    types: dict[str, pa.DataType] = {}
    for name in dict.fromkeys(chain.from_iterable(rows)):
        values = [row.get(name) for row in rows]
        missing_nan = name in column_types.TEXT_COLUMNS
        try:
            columns[name], types[name] = _column(values, missing_nan=missing_nan)
        except _MixedError as error:
            first = bisect_left(
                range(len(values)), True, key=lambda row: _is_mixed(values[: row + 1])
            )
            raise DatasetError(
                f"{path} cannot be read as jsonl: line {lines[first]}: column {name!r}: {error}"
            ) from None
    return pa.table(columns), types


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"expected each key once, found {repeated!r} twice")
    return members


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_float=_Number,
    parse_int=_Number,
    parse_constant=_NotFinite,
)


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    where = f"{path} cannot be read as jsonl: line {number}"
    try:
        row = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{where}: {error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: {error}") from None
    if not isinstance(row, dict):
        raise DatasetError(f"{where}: expected a JSON object, found {_kind(row)}")
    if _SURROGATE.search(line):
        require_whole(row, f"{where}: expected text")
    return row


def _column(
    values: Sequence[Any], *, missing_nan: bool = False, level: int = 0
) -> tuple[pa.Array, pa.DataType]:
    """Returns values as written, and their type; in text, or if `missing_nan`, NaN is null."""
    if level > _MOST_LEVELS:
        raise _MixedError(f"expected at most {_MOST_LEVELS} levels of lists and objects")
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pa.nulls(len(values)), pa.null()
    if kinds == {list}:
        absent = pa.array([value is None for value in values])
        lengths = (0 if value is None else len(value) for value in values)
        offsets = pa.array(accumulate(lengths, initial=0), pa.int32())
        inner = [item for value in values if value is not None for item in value]
        written, kind = _column(inner, missing_nan=missing_nan, level=level + 1)
        return pa.ListArray.from_arrays(offsets, written, mask=absent), pa.list_(kind)
    if kinds == {dict}:
        return _struct(values, level)
    if kinds & {list, dict}:
        mixed = sorted({_kind(value) for value in values if value is not None})
        raise _MixedError(f"expected values of one kind, found {' and '.join(mixed)}")
    if str in kinds or missing_nan:
        values = [None if type(value) is _NotFinite else value for value in values]
    if bool in kinds:
        values = [str(value).lower() if type(value) is bool else value for value in values]
    written = pa.array(values, pa.string())
    if kinds == {bool}:
        return written, pa.bool_()
    if kinds & {str, bool}:
        return written, pa.string()
    return written, column_types.of_numbers(written)


def _struct(values: Sequence[Any], level: int) -> tuple[pa.Array, pa.DataType]:
    present = [value for value in values if value is not None]
    absent = pa.array([value is None for value in values])
    names = list(dict.fromkeys(chain.from_iterable(present)))
    if not names:
        kind = pa.struct([])
        return pa.array([None if value is None else {} for value in values], kind), kind
    pairs = [
        _column([None if value is None else value.get(name) for value in values], level=level + 1)
        for name in names
    ]
    written = pa.StructArray.from_arrays([array for array, _ in pairs], names, mask=absent)
    return written, pa.struct([(name, kind) for name, (_, kind) in zip(names, pairs, strict=True)])


def _is_mixed(values: Sequence[Any]) -> bool:
    try:
        _column(values)
    except _MixedError:
        return True
    return False


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, _Number) else "text")
