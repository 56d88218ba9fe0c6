"""Manifests: tables of images and their attributes in JSONL, CSV or Parquet."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from os import SEEK_END
from pathlib import Path

import pyarrow as pa

from rsicd_embed.datasets import column_types, text
from rsicd_embed.datasets.base import (
    ADDRESS,
    Example,
    ManifestRows,
    Skipped,
    Source,
    local_path,
)
from rsicd_embed.datasets.column_types import PATH_COLUMNS, TEXT_COLUMNS
from rsicd_embed.datasets.conversion import Conversion, MisfitError, retyped
from rsicd_embed.errors import DatasetError, RemoteError, one_line
from rsicd_embed.records import FIXED_COLUMNS
from rsicd_embed.remote import RemoteUrl, is_remote, public_address

SUFFIXES = frozenset({".jsonl", ".ndjson", ".csv", ".parquet"})

# Names that pandas gives to the index of a data frame.
_INDEX = re.compile(r"|Unnamed: 0(\.\d+)?|__index_level_\d+__")


@dataclass(frozen=True)
class ManifestTable:
    """The columns of a file.

    Attributes:
        written: values as stored in the file; for CSV and JSONL, the text of each value.
        types: types of the values, by column name.
        nulls: texts that mean null in columns of other types than text.
    """

    written: pa.Table
    types: dict[str, pa.DataType]
    nulls: frozenset[str] = frozenset()


def load(path: Path) -> Source:
    """Reads a manifest.

    Image paths come from one of the columns PATH_COLUMNS and are relative to the manifest's folder;
    ids come from the column `id`, or else are the paths, or URLs without secrets. Every other
    column becomes a typed attribute (see `column_types`); times keep microseconds. The last of
    several rows with the same id is used, and the others are reported in `Source.skipped`.

    Raises:
        DatasetError: the file is not a table, is empty, has no column of paths, or a row lacks an
            id or a path.
    """
    return latest(path, read(path))


def latest(path: Path | str, source: Source) -> Source:
    """Keeps the last of the rows with the same id; the others go to `Source.skipped`."""
    last: dict[str, int] = {}
    skipped = []
    for row, example in enumerate(source.examples):
        if example.id in last:
            why = f"row {row + 1} of {path} has the same id {example.id!r}"
            skipped.append(Skipped(source.examples[last[example.id]].uri, why))
        last[example.id] = row
    last_rows = sorted(last.values())
    return replace(
        source,
        examples=tuple(source.examples[row] for row in last_rows),
        skipped=tuple(skipped),
        rows=source.rows and source.rows.take(last_rows),
    )


def read(file: Path, address: str | None = None) -> Source:
    """Like `load`, but with one example per row, so that ids may repeat.

    Args:
        file: the manifest.
        address: URL or path of which it is a copy, and to which its paths are relative.

    Raises:
        DatasetError: as in `load`.
    """
    try:
        table = _read(file)
    except DatasetError as error:
        raise DatasetError(str(error).replace(str(file), address or str(file))) from error
    path = address or file
    names = table.written.column_names
    index = [name for name in names if _INDEX.fullmatch(name)]
    notes = tuple(
        f"{path}: {f'column {name!r}' if name else 'the unnamed column'} is ignored as an index "
        "written by pandas; rename it to keep it"
        for name in index
    )
    if not table.written.num_rows:
        raise DatasetError(f"{path}: expected images, found no rows")
    column = next((name for name in PATH_COLUMNS if name in names), None)
    if column is None:
        listed = ", ".join(name or "an unnamed one" for name in names) or "no columns"
        raise DatasetError(
            f"{path}: expected a column named {', '.join(PATH_COLUMNS)}, found {listed}"
            f"{_column_remedy(names)}"
        )
    paths = _texts(path, table, column)
    ids = _texts(path, table, "id") if "id" in names else paths
    folder = _folder(path)
    examples = []
    for row, (id_, image) in enumerate(zip(ids, paths, strict=True), start=1):
        if not id_ or not image:
            raise DatasetError(f"{path}: row {row} has no {column if not image else 'id'}")
        located = _located(image, folder, f"{path}: row {row}")
        # The id of a URL has no secrets either, and outlives its signature.
        is_url = ids is paths and is_remote(image)
        examples.append(Example(located if is_url else id_, located))
    return with_attributes(
        Source(folder, tuple(examples), notes=notes), table, path, {column, *index}
    )


def with_attributes(
    source: Source, table: ManifestTable, path: Path | str, others: set[str]
) -> Source:
    """Gives each example of a source the values of a row.

    Args:
        source: examples in the order of the rows.
        table: the rows.
        path: their file, for messages.
        others: columns that are no attributes. Columns computed from the image itself are not
            either.
    """
    names = [name for name in table.written.column_names if name not in {*others, *FIXED_COLUMNS}]
    rows = ManifestRows(
        path,
        [example.id for example in source.examples],
        range(1, len(source.examples) + 1),
        table.written.select(names),
        table.nulls,
    )
    return retyped(replace(source, rows=rows), {name: table.types[name] for name in names})


def _column_remedy(names: list[str]) -> str:
    """Suggests how to fix a table without a column of paths; empty if unknown."""
    for name in names:
        if (plain := name.strip().lower()) in PATH_COLUMNS:
            return f"; rename {name!r} to {plain!r}"
    if len(names) == 1 and (separator := next((mark for mark in ";\t|" if mark in names[0]), "")):
        return f"; expected commas between the columns, found {separator!r}; convert the file"
    return ""


def _folder(path: Path | str) -> Path | str:
    """The folder of a manifest; a URL is text."""
    if isinstance(path, Path) or not is_remote(path):
        return Path(path).parent
    url = RemoteUrl.parse(path)
    return str(url.with_key(posixpath.dirname(url.path)))


def _located(file: str, folder: Path | str, where: str) -> str:
    if file.startswith("file://"):
        return local_path(file)
    if is_remote(file):
        try:
            return public_address(file)
        except RemoteError as error:
            raise DatasetError(f"{where}: {error}") from None
    if ADDRESS.match(file):
        return file
    if isinstance(folder, Path):
        return str(folder / file)
    url = RemoteUrl.parse(folder)
    return str(url.with_key(posixpath.normpath(posixpath.join("/", url.key, file)).lstrip("/")))


def _texts(path: Path | str, table: ManifestTable, name: str) -> list[str | None]:
    column = table.written[name]
    if column_types.as_text(column.type) not in (pa.string(), pa.null()):
        raise DatasetError(f"{path}: expected text in column {name!r}, found {column.type}")
    try:
        texts: list[str | None] = Conversion(pa.string(), lenient=True)(column).to_pylist()
    except MisfitError as error:
        raise DatasetError(
            f"{path}: row {error.row + 1}: expected text in column {name!r}, found {error.value}"
        ) from error
    return texts


def _read(path: Path) -> ManifestTable:
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            return _read_parquet(path)
        if kind == ".csv":
            return _read_csv(path)
        table, types = text.read_json_lines(path)
        return ManifestTable(
            table, {name: _type(name, inferred) for name, inferred in types.items()}
        )
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise DatasetError(f"{path} cannot be read as {kind[1:]}: {one_line(error)}") from error


def _read_parquet(path: Path) -> ManifestTable:
    import pyarrow.parquet

    # A folder such as `year=2020` does not become a column.
    table = pyarrow.parquet.read_table(path, partitioning=None)
    return typed(path, table)


def typed(path: Path | str, table: pa.Table) -> ManifestTable:
    """The columns of a Parquet file with the types that stores have.

    Raises:
        DatasetError: a column occurs twice.
        ArrowException: text is not UTF-8.
    """
    table.validate(full=True)  # text has to be UTF-8
    _require_distinct(path, table.column_names)
    schema = pa.schema([(field.name, column_types.plain(field.type)) for field in table.schema])
    table = table.cast(schema, safe=False)  # drops nanoseconds
    return ManifestTable(table, {field.name: _type(field.name, field.type) for field in schema})


def _read_csv(path: Path) -> ManifestTable:
    import pyarrow.csv

    text.require_utf8(path)
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pyarrow.csv.open_csv(path, parse_options=parsing) as reader:
        names = reader.schema.names
    _require_distinct(path, names)
    as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    table = pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=as_text)
    _require_closed_quote(path, table)
    types = {}
    for place, name in enumerate(names):
        types[name] = _type(name, column_types.of_cells(table[name]))
        if pa.types.is_null(types[name]):
            table = table.set_column(place, name, pa.nulls(len(table)))
    return ManifestTable(table, types, column_types.NULL_CELLS)


def _require_closed_quote(path: Path, table: pa.Table) -> None:
    """Refuses a file whose last cell has no closing quote, which Arrow reads as text up to the end.

    Raises:
        DatasetError: so it is.
    """
    cell = table[-1][-1].as_py() if table.num_rows else None
    if not (cell and cell.strip()):
        return
    tail = b'"' + cell.replace('"', '""').encode()
    with path.open("rb") as file:
        start = max(0, file.seek(0, SEEK_END) - len(tail) - 1)
        file.seek(start)
        end = file.read()
    if end[1:] == tail and end[:1] in (b",", b"\n", b"\r"):
        raise DatasetError(
            f"{path}: row {table.num_rows}: expected a closing quote, found none up to the end of "
            "the file; close it"
        )


def _require_distinct(path: Path | str, names: list[str]) -> None:
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DatasetError(f"{path}: expected each column once, found {repeated!r} twice")


def _type(name: str, kind: pa.DataType) -> pa.DataType:
    return column_types.as_text(kind) if name in TEXT_COLUMNS else kind
