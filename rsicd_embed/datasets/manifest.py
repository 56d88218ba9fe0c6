"""A table of images and their attributes: JSONL, CSV or Parquet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.datasets import text
from rsicd_embed.datasets.base import Example, Skipped, Source
from rsicd_embed.errors import DatasetError
from rsicd_embed.records import FIXED_COLUMNS

SUFFIXES = frozenset({".jsonl", ".ndjson", ".csv", ".parquet"})
PATH_COLUMNS = ("uri", "path", "image", "filename", "file_name")

_BLOCK_BYTES = 1 << 24  # the longest line that a JSONL file may have, a geometry or so


def load(path: Path) -> Source:
    """Reads a manifest: a column of PATH_COLUMNS, relative to its folder; `id` if it has one.

    Every other column becomes a typed attribute; times keep microseconds. Of rows with the same
    id the last one counts, the others are told in `Source.skipped`.

    Raises:
        DatasetError: not a table, empty, without paths, or with an id or a path missing.
    """
    return latest(path, read(path))


def latest(path: Path, rows: Source) -> Source:
    """Of rows with the same id the last one; the others are told in `Source.skipped`."""
    examples: dict[str, Example] = {}
    skipped = []
    for row, example in enumerate(rows.examples, start=1):
        if example.id in examples:
            other = examples.pop(example.id)
            why = f"row {row} of {path} has the same id {example.id!r}"
            skipped.append(Skipped(other.uri, why))
        examples[example.id] = example
    return replace(rows, examples=tuple(examples.values()), skipped=tuple(skipped))


def read(path: Path) -> Source:
    """As `load`, but with an example for each row, so that ids may be there more than once.

    Raises:
        DatasetError: as `load`.
    """
    table = _read(path)
    if not table.num_rows:
        raise DatasetError(f"{path}: expected images, found no rows")
    column = next((name for name in PATH_COLUMNS if name in table.column_names), None)
    if column is None:
        raise DatasetError(
            f"{path}: expected a column named {', '.join(PATH_COLUMNS)}, "
            f"found {', '.join(table.column_names) or 'no columns'}"
        )
    paths = _strings(table, column, path)
    ids = _strings(table, "id", path) if "id" in table.column_names else paths
    # What is computed from the image itself is not taken from the manifest.
    attributes = table.drop_columns(
        [name for name in {column, *FIXED_COLUMNS} if name in table.column_names]
    )
    examples = []
    for row, (id_, file, values) in enumerate(
        zip(ids, paths, attributes.to_pylist() or [{}] * len(paths), strict=True), start=1
    ):
        if not id_ or not file:
            raise DatasetError(f"{path}: row {row} has no {column if not file else 'id'}")
        examples.append(Example(id_, str(_located(file, path.parent)), values))
    return Source(path.parent, tuple(examples), attributes.schema.remove_metadata())


def _located(file: str, folder: Path) -> Path:
    return Path(unquote(file[7:])) if file.startswith("file://") else folder / file


def _strings(table: pa.Table, name: str, path: Path) -> list[str | None]:
    try:
        found: list[str | None] = table[name].cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise DatasetError(
            f"{path}: expected text in column {name!r}, found {table[name].type}"
        ) from error
    return found


def _read(path: Path) -> pa.Table:
    """The table of a file, each column once, of types that Python has values for."""
    kind = path.suffix.lower()
    try:
        if kind != ".parquet":
            text.require_utf8(path)
        table = {".parquet": _read_parquet, ".csv": _read_csv}.get(kind, _read_json)(path)
        names = table.column_names
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise DatasetError(f"{path}: expected each column once, found {repeated!r} twice")
        return table.cast(
            pa.schema([field.with_type(_in_microseconds(field.type)) for field in table.schema]),
            safe=False,
        )
    except (pa.ArrowException, OSError, UnicodeError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path} cannot be read as {kind[1:]}: {reason}") from error


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow.parquet

    # A folder such as `year=2020` is no column.
    table = pyarrow.parquet.read_table(path, partitioning=None)
    table.validate(full=True)  # that its texts are UTF-8
    return table


def _read_csv(path: Path) -> pa.Table:
    # An id 007 is no number.
    table = _csv(path, dict.fromkeys(("id", *PATH_COLUMNS), pa.string()))
    whole = [field.name for field in table.schema if pt.is_integer(field.type)]
    if not whole or len(set(whole)) < len(whole):
        return table
    # Nor is any other code with zeros before it: as a number it would lose them.
    as_text = _csv(path, dict.fromkeys(whole, pa.string()), whole)
    for name in whole:
        if pc.any(pc.match_substring_regex(as_text[name], r"^-?0\d")).as_py():
            index = table.schema.get_field_index(name)
            table = table.set_column(index, name, as_text[name])
    return table


def _csv(path: Path, types: dict[str, pa.DataType], columns: list[str] | None = None) -> pa.Table:
    import pyarrow.csv

    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, include_columns=columns),
    )


def _read_json(path: Path) -> pa.Table:
    import pyarrow.json

    return pyarrow.json.read_json(
        path, read_options=pyarrow.json.ReadOptions(block_size=_BLOCK_BYTES)
    )


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """`kind` with times that `datetime` can hold."""
    if pt.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pt.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pt.is_time64(kind):
        return pa.time64("us")
    if pt.is_list(kind):
        return pa.list_(_in_microseconds(kind.value_type))
    return kind
