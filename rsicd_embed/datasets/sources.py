"""What SOURCE on the command line may be → one `Source`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.arguments import require_items
from rsicd_embed.datasets import captioned, classes, folder, manifest, splits
from rsicd_embed.datasets.base import Example, Source, why_missing
from rsicd_embed.datasets.column_types import (
    DECLARABLE,
    TEXT_COLUMNS,
    require_declarable,
    same_family,
    shown,
    unify,
)
from rsicd_embed.datasets.conversion import (
    Conversion,
    MisfitError,
    have_offsets,
    null_texts,
    place_of,
    retyped,
    written_column,
)
from rsicd_embed.errors import DatasetError, SchemaError
from rsicd_embed.records import FIXED_COLUMNS

_NO_COLUMNS = pa.schema([])
_UTC = pa.timestamp("us", "UTC")
# The start of an address as Path leaves it, with a single slash.
_COLLAPSED = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+")


def open_source(path: Path, *, allow_empty: bool = False) -> Source:
    """A folder, an RSICD-like folder, an image file, or a manifest.

    Args:
        path: where it is.
        allow_empty: return a source without examples for a folder that has no image any more.

    Raises:
        DatasetError: it is missing or empty, or is not as described.
    """
    if os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises for a name that is too long)
        if (source := captioned.load(path)) is not None:
            return source
        source = classes.from_folder_names(folder.load(path, allow_empty=allow_empty))
        notes = [f"{file} lists no images with captions" for file in captioned.json_files(path)]
        return replace(source, notes=(*source.notes, *notes))
    if not os.path.exists(path):  # noqa: PTH110
        written = _COLLAPSED.sub(r"\1://", str(path))
        reason = why_missing(written)
        raise DatasetError(
            f"expected a folder, an image or a manifest, found nothing at {written}"
            f"{f': {reason}' if reason else ''}"
        )
    if path.suffix.lower() in manifest.SUFFIXES:
        return manifest.load(path)
    return folder.load_file(path)


def open_sources(
    paths: Sequence[str | Path],
    *,
    split: str | None = None,
    allow_empty: bool = False,
    column_types: Mapping[str, str] | None = None,
) -> list[Source]:
    """Several sources, whose ids must not meet and whose columns must agree in type.

    A column that is of an integer type in one source and of a float type in another is of the
    float type in both; one that is text in another source is text in all, as written.

    Args:
        paths: folders, RSICD-like folders, image files and manifests.
        split: only the images that the source puts in it; `Valid` and `dev` are `val`, and so on.
        allow_empty: as `open_source`.
        column_types: column name → "text", "int64", "float64", "bool", "timestamp" or "date", to
            read it as, such as text with dates.

    Raises:
        DatasetError: as `open_source`, or two of them clash.
        ArgumentError: a single path, which belongs in a list.
    """
    require_items(paths, "paths", (str, Path))
    sources = [open_source(Path(path), allow_empty=allow_empty) for path in paths]
    if split is not None:
        sources = [_only(source, split) for source in sources]
    seen: dict[str, Example] = {}
    for example in (example for source in sources for example in source.examples):
        other = seen.setdefault(example.id, example)
        if other.uri != example.uri:
            raise DatasetError(
                f"{other.path} and {example.path} would both get the id {example.id!r}; "
                "ingest their common folder, or a manifest with ids"
            )
    for table in [source for source in sources if not source.inferred]:
        owner = str(table.root)
        sources = [classes.give_way(source, table.schema, owner) for source in sources]
    return resolve(sources, column_types)


def _only(source: Source, split: str) -> Source:
    wanted = splits.plain(split)
    examples = tuple(
        example for example in source.examples if splits.plain(example.split) == wanted
    )
    if source.examples and not examples:
        found = sorted({str(example.split or "none") for example in source.examples})
        raise DatasetError(
            f"{source.root}: expected images of the split {split!r}, found {', '.join(found)}"
        )
    return replace(source, examples=examples)


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
    require_declarable(declared)
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


def _common(name: str, sources: Sequence[Source]) -> pa.DataType:
    kind, first = pa.null(), sources[0]
    for source in sources:
        own = source.schema.field(name).type
        try:
            kind = unify(kind, own)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            raise DatasetError(
                f"the sources' columns differ in type: {name!r} is {shown(kind)} in {_name(first)} "
                f"and {shown(own)} in {_name(source)}; rename one, or declare its type"
            ) from None
    integers = [one for one in sources if pt.is_integer(one.schema.field(name).type)]
    if pt.is_floating(kind):
        try:  # an integer of more digits than a float has stays as it is written
            for source in integers:
                Conversion(kind, null_texts(source))(written_column(source, name))
        except MisfitError:
            return pa.string()
    return kind


def _declared_timestamp(name: str, sources: Sequence[Source]) -> pa.DataType:
    """With a time zone if the times have offsets, which all have, or none."""
    aware: dict[bool, str] = {}  # → where the first such time is
    for source in sources:
        column = written_column(source, name)
        if pt.is_timestamp(column.type):
            offsets = [bool(column.type.tz)] if len(column) else []
        elif pt.is_string(column.type):
            nulls = pa.array(list(null_texts(source)), pa.string())
            given = pc.if_else(pc.is_in(column, nulls), pa.scalar(None, pa.string()), column)
            offsets = have_offsets(given).to_pylist()
        else:
            continue
        for is_aware in {True, False} & set(offsets):
            aware.setdefault(is_aware, place_of(source, offsets.index(is_aware)))
    if len(aware) == 2:
        raise DatasetError(
            f"column {name!r}: expected times that all have an offset from UTC, or none, found one "
            f"at {aware[True]} and none at {aware[False]}; write all alike"
        )
    return _UTC if True in aware else DECLARABLE["timestamp"]


def _require_family(name: str, declared: str | None, stored: pa.DataType) -> None:
    if declared is not None and not same_family(DECLARABLE[declared], stored):
        raise SchemaError(
            f"column {name!r} is declared as {declared}, and is {shown(stored)} in the store; "
            "leave the declaration out, rename the column, or use another store"
        )


def _name(source: Source) -> str:
    return str(source.rows.path if source.rows else source.root)
