"""Opens the sources of an ingest, and gives their columns common types."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, compress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.arguments import require_items
from rsicd_embed.datasets import (
    captioned,
    classes,
    folder,
    image_tables,
    manifest,
    remote_sources,
    scenes,
    splits,
    stac_sources,
    tar_archives,
)
from rsicd_embed.datasets.base import Example, Source, why_missing, with_etag
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
from rsicd_embed.datasets.scenes import Tiling
from rsicd_embed.datasets.spooled_examples import MOST_IN_MEMORY, Digests, collect
from rsicd_embed.datasets.stac_sources import StacSelection
from rsicd_embed.errors import DatasetError, SchemaError
from rsicd_embed.parallel import batched
from rsicd_embed.records import FIXED_COLUMNS
from rsicd_embed.remote import address_of, is_remote

_NO_COLUMNS = pa.schema([])
_UTC = pa.timestamp("us", "UTC")
# The beginning of a URL after Path has collapsed its slashes.
_COLLAPSED = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+")


def open_source(path: str | Path, *, allow_empty: bool = False) -> Source:
    """Opens a source.

    Args:
        path: a folder of images, an RSICD-like folder, an image file, a manifest, a tar, or a
            Parquet file with images; or the URL of one.
        allow_empty: accept a folder without images.

    Raises:
        DatasetError: the source is missing, empty or malformed.
    """
    if is_remote(address := address_of(path)):
        several = remote_sources.open_remote(address, allow_empty=allow_empty)
        if len(several) > 1:
            raise DatasetError(
                f"{address}: expected one source, found {len(several)} tars or tables; name one"
            )
        return several[0]
    path = Path(path)
    if os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises for overlong names)
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
    suffix = path.suffix.lower()
    if suffix == tar_archives.SUFFIX:
        return tar_archives.load(str(path))
    if suffix == image_tables.SUFFIX and image_tables.has_images(path):
        return image_tables.load(str(path))
    if suffix in manifest.SUFFIXES:
        return _with_remote_etags(manifest.load(path))
    return folder.load_file(path)


def _open(path: str | Path, *, allow_empty: bool) -> list[Source]:
    """Opens a source by its path or URL; a remote folder of tars is one source for each."""
    address = address_of(path)
    if is_remote(address):
        return remote_sources.open_remote(address, allow_empty=allow_empty)
    return [open_source(path, allow_empty=allow_empty)]


def _with_remote_etags(source: Source) -> Source:
    """Adds the column of ETags if a manifest lists remote images."""
    remote = any(is_remote(example.file) for example in source.examples)
    return with_etag(source) if remote else source


def open_sources(
    paths: Sequence[str | Path],
    *,
    split: str | None = None,
    allow_empty: bool = False,
    column_types: Mapping[str, str] | None = None,
    tiling: Tiling | None = None,
    stac: StacSelection | None = None,
) -> list[Source]:
    """Opens several sources with distinct ids and common column types.

    A column of integers in one source and floats in another becomes float in both; a column that is
    text in any source becomes text in all, as written.

    Args:
        paths: folders, RSICD-like folders, image files, manifests, tars and Parquet files with
            images, and STAC documents or searches; or URLs of them.
        split: keep only the images of this split; `Valid` and `dev` are spellings of `val`, etc.
        allow_empty: accept folders without images.
        column_types: column name → type to read it as: "text", "int64", "float64", "bool",
            "timestamp" or "date".
        tiling: read images as georeferenced scenes, and cut them into tiles; assets of STAC items
            always are scenes.
        stac: assets and properties of STAC items.

    Raises:
        DatasetError: a source is missing or malformed, or two sources conflict.
        ArgumentError: `paths` is a single path.
    """
    require_items(paths, "paths", (str, Path))
    sources: list[Source] = []
    for path in paths:
        stac_address = stac_sources.address_of(path)
        if stac_address is not None:
            opened = [stac_sources.load(stac_address, stac or StacSelection())]
        elif stac is not None:
            raise DatasetError(
                f"{path}: expected a STAC document or search for --asset and --property"
            )
        else:
            opened = _open(path, allow_empty=allow_empty)
        cutting = tiling if stac_address is None else tiling or Tiling()
        for source in opened:
            if split is not None:
                source = _only(source, split)
            if cutting is not None:
                source = scenes.cut(source, cutting)
            if sum(len(other.examples) for other in sources) > MOST_IN_MEMORY:
                examples = collect(source.examples, source.schema, 0)
                source = replace(source, examples=examples)
            sources.append(source)
    _require_distinct_ids(sources)
    for table in [source for source in sources if not source.inferred]:
        owner = str(table.root)
        sources = [classes.give_way(source, table.schema, owner) for source in sources]
    return resolve(sources, column_types)


def _require_distinct_ids(sources: Sequence[Source]) -> None:
    """Checks that several sources give an id to one image only.

    Raises:
        DatasetError: two do.
    """
    if len(sources) < 2:
        return
    every = [source.examples for source in sources]
    repeated = Digests(example.id for example in chain.from_iterable(every)).repeated()
    if not len(repeated):
        return
    seen: dict[str, Example] = {}
    for examples in every:
        for batch in batched(examples, 8192):
            among = repeated.have([example.id for example in batch])
            for example in compress(batch, among):
                other = seen.setdefault(example.id, example)
                if other.uri != example.uri:
                    raise DatasetError(
                        f"{other.file} and {example.file} would both get the id {example.id!r}; "
                        "ingest their common folder, or a manifest with ids"
                    )


def _only(source: Source, split: str) -> Source:
    wanted = splits.plain(split)
    chosen = (example for example in source.examples if splits.plain(example.split) == wanted)
    examples = collect(chosen, source.schema)
    if len(source.examples) and not len(examples):
        present = sorted({str(example.split or "none") for example in source.examples})
        raise DatasetError(
            f"{source.root}: expected images of the split {split!r}, found {', '.join(present)}"
        )
    return replace(source, examples=examples, complete=False)


def resolve(
    sources: Sequence[Source],
    declared: Mapping[str, str] | None = None,
    stored: pa.Schema = _NO_COLUMNS,
) -> list[Source]:
    """Gives each column one type across sources, without losing values.

    In order of precedence that is the type of the store's column, the declared type, or a type for
    the values of all sources: float for integers and floats, text as written for text and numbers.

    Args:
        sources: sources that are ingested together.
        declared: column name → a key of DECLARABLE.
        stored: schema of the store; columns that it lacks may have any type.

    Raises:
        DatasetError: a declared column is in no source or is always text, a value does not have
            the declared type, or the sources' types are incompatible.
        SchemaError: a value or the declared type does not fit the store's column.
    """
    declared = declared or {}
    require_declarable(declared)
    declared = {name: kind for name, kind in declared.items() if name not in TEXT_COLUMNS}
    names = dict.fromkeys(name for source in sources for name in source.schema.names)
    for name in declared:
        if name not in names:
            raise DatasetError(
                f"column {name!r} is declared, but no source has it; found {', '.join(names)}"
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
    integers = [source for source in sources if pt.is_integer(source.schema.field(name).type)]
    if pt.is_floating(kind):
        try:  # integers with more digits than a float stay text
            for source in integers:
                Conversion(kind, null_texts(source))(written_column(source, name))
        except MisfitError:
            return pa.string()
    return kind


def _declared_timestamp(name: str, sources: Sequence[Source]) -> pa.DataType:
    """A timestamp type, in UTC if the times have offsets; all or none of them must."""
    aware: dict[bool, str] = {}  # has an offset → place of the first such time
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
            f"column {name!r}: expected times that all have an offset from UTC, or none, found an "
            f"offset at {aware[True]} and none at {aware[False]}; write all of them alike"
        )
    return _UTC if True in aware else DECLARABLE["timestamp"]


def _require_family(name: str, declared: str | None, stored: pa.DataType) -> None:
    if declared is not None and not same_family(DECLARABLE[declared], stored):
        raise SchemaError(
            f"column {name!r} is declared as {declared}, but is {shown(stored)} in the store; "
            "remove the declaration, rename the column, or use another store"
        )


def _name(source: Source) -> str:
    return str(source.rows.path if source.rows else source.root)
