"""The types of the sources' columns: a store's, those declared, or what all sources agree on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.datasets import column_types
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.datasets.column_types import DECLARABLE, TEXT_COLUMNS, shown
from rsicd_embed.datasets.conversion import (
    Conversion,
    MisfitError,
    UnknownTimeError,
    have_offsets,
    values,
)
from rsicd_embed.errors import DatasetError, SchemaError
from rsicd_embed.records import FIXED_COLUMNS

_NO_COLUMNS = pa.schema([])
_UTC = pa.timestamp("us", "UTC")


def resolve(
    sources: Sequence[Source],
    declared: Mapping[str, str] | None = None,
    stored: pa.Schema = _NO_COLUMNS,
) -> list[Source]:
    """The sources with each column of one type, in which no value is lost.

    That is the type of the store's column of this name; or the one declared; or one that holds
    the values of all sources: a float for integers and floats, text as written for text and
    numbers.

    Args:
        sources: what is ingested together.
        declared: column name → a key of DECLARABLE.
        stored: of the store's rows; columns that it lacks may have any type.

    Raises:
        DatasetError: a declared column is in no source or is always text, a value is not of the
            declared type, or the sources' types have nothing in common.
        SchemaError: a value does not fit the store's column, or the declared type does not.
    """
    declared = declared or {}
    column_types.require_declarable(declared)
    declared = {name: kind for name, kind in declared.items() if name not in TEXT_COLUMNS}
    names = dict.fromkeys(name for source in sources for name in source.schema.names)
    for name in declared:
        if name not in names:
            raise DatasetError(
                f"column {name!r} is declared, and no source has it; found {', '.join(names)}"
            )
    fixed = {field.name: field.type for field in stored if field.name not in FIXED_COLUMNS}
    types: dict[str, pa.DataType] = {}
    for name in names:
        having = [source for source in sources if name in source.schema.names]
        if name in fixed:
            _require_family(name, declared.get(name), fixed[name])
            types[name] = fixed[name]
        elif declared.get(name) == "timestamp":
            types[name] = _declared_timestamp(name, having)
        elif name in declared:
            types[name] = DECLARABLE[declared[name]]
        else:
            types[name] = _common(name, having)
    return [
        retyped(
            source,
            {name: types[name] for name in source.schema.names},
            declared=declared,
            stored=fixed,
        )
        for source in sources
    ]


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
            conversion = Conversion(kind, _nulls(source), lenient)
            columns[name] = values(conversion(_written(source, name)))
        except UnknownTimeError as error:
            raise DatasetError(
                f"{_where(source, error.row)}: column {name!r}: expected times of the years 1 to "
                f"9999, found {error.value}; correct it"
            ) from None
        except MisfitError as error:
            where = f"{_where(source, error.row)}: expected {shown(kind)} in column {name!r}"
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


def _written(source: Source, name: str) -> pa.ChunkedArray:
    """A column as the source's file has it, or as its examples have it."""
    if source.rows is not None and name in source.rows.written.column_names:
        return source.rows.of(source.examples).written[name]
    kind = source.schema.field(name).type
    return pa.chunked_array([[one.attributes.get(name) for one in source.examples]], kind)


def _nulls(source: Source) -> frozenset[str]:
    return source.rows.nulls if source.rows else frozenset()


def _where(source: Source, row: int) -> str:
    example: Example = source.examples[row]
    if source.rows is None:
        return f"{source.root}: {example.id}"
    rows = source.rows.of(source.examples)
    return f"{rows.path}: row {rows.numbers[row]}"


def _common(name: str, sources: Sequence[Source]) -> pa.DataType:
    kind, first = pa.null(), sources[0]
    for source in sources:
        own = source.schema.field(name).type
        try:
            kind = column_types.unify(kind, own)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            raise DatasetError(
                f"the sources' columns differ in type: {name!r} is {shown(kind)} in {_name(first)} "
                f"and {shown(own)} in {_name(source)}; rename one, or declare its type"
            ) from None
    integers = [one for one in sources if pt.is_integer(one.schema.field(name).type)]
    if pt.is_floating(kind):
        try:  # an integer of more digits than a float has stays as it is written
            for source in integers:
                Conversion(kind, _nulls(source))(_written(source, name))
        except MisfitError:
            return pa.string()
    return kind


def _declared_timestamp(name: str, sources: Sequence[Source]) -> pa.DataType:
    """With a time zone if the times have offsets, which all have, or none."""
    aware: dict[bool, str] = {}  # → where the first such time is
    for source in sources:
        column = _written(source, name)
        if pt.is_timestamp(column.type):
            offsets = [bool(column.type.tz)] if len(column) else []
        elif pt.is_string(column.type):
            nulls = pa.array(list(_nulls(source)), pa.string())
            given = pc.if_else(pc.is_in(column, nulls), pa.scalar(None, pa.string()), column)
            offsets = have_offsets(given).to_pylist()
        else:
            continue
        for is_aware in {True, False} & set(offsets):
            aware.setdefault(is_aware, _where(source, offsets.index(is_aware)))
    if len(aware) == 2:
        raise DatasetError(
            f"column {name!r}: expected times that all have an offset from UTC, or none, found one "
            f"at {aware[True]} and none at {aware[False]}; write all alike"
        )
    return _UTC if True in aware else DECLARABLE["timestamp"]


def _require_family(name: str, declared: str | None, stored: pa.DataType) -> None:
    if declared is not None and not column_types.same_family(DECLARABLE[declared], stored):
        raise SchemaError(
            f"column {name!r} is declared as {declared}, and is {shown(stored)} in the store; "
            "leave the declaration out, rename the column, or use another store"
        )


def _name(source: Source) -> str:
    return str(source.rows.path if source.rows else source.root)
