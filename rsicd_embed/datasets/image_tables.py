"""Parquet files with images in a column, as on the Hugging Face Hub."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from rsicd_embed.datasets import manifest, splits
from rsicd_embed.datasets.base import Example, Source, plain_path, with_etag
from rsicd_embed.datasets.text import parse_json
from rsicd_embed.errors import DatasetError, RemoteError, one_line
from rsicd_embed.images import TableCell, image_field, open_table
from rsicd_embed.remote import is_remote

SUFFIX = ".parquet"
_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "tif", "tiff")
# `train-00000-of-00004-1b2c3d.parquet`, as the Hub names files.
_SPLIT = re.compile(r"([A-Za-z]+)-\d+-of-\d+")


def image_column(schema: pa.Schema) -> str | None:
    """The column with the bytes of images: structs such as Hugging Face's, or bytes by name."""
    inside = {field.name: image_field(field.type) for field in schema}
    structs = [name for name, field in inside.items() if field]
    plain = [name for name, field in inside.items() if field == "" and name.lower() in _COLUMNS]
    return next((name for name in _COLUMNS if name in structs), next(iter(structs + plain), None))


def has_images(path: Path) -> bool:
    """Whether a local Parquet file has a column of images; False if it is damaged."""
    with suppress(OSError, pa.ArrowException, ValueError):
        return image_column(open_table(str(path))[0].schema_arrow) is not None
    return False


def load(address: str, root: Path | str | None = None, name: str | None = None) -> Source:
    """Reads a table without its images; those are read row group by row group when embedded.

    An image's id is the column `id` if it has any, or else the table's name and the file name that
    Hugging Face stores with the image, such as `train-00000-of-00001.parquet/port_1.jpg`, or else
    the table's name and the row's number, from 0. Classes of Hugging Face's `ClassLabel` get their
    names. The split comes from a file name such as `train-00000-of-00001.parquet`, if there is no
    such column.

    Args:
        address: path or URL.
        root: the source's root; the table by default.
        name: beginning of the ids; the table's name by default.

    Raises:
        DatasetError: it cannot be read, or has no column of images.
    """
    if not is_remote(address):
        address = str(plain_path(Path(address)))
    name = name or PurePosixPath(address).name
    try:
        parquet, etag = open_table(address)
        schema = parquet.schema_arrow
        column = image_column(schema)
        if column is None:
            raise DatasetError(
                f"{address}: expected a column of images, found {', '.join(schema.names)}"
            )
        images = {field.name for field in schema if image_field(field.type)} | {column}
        table = parquet.read(columns=[field for field in schema.names if field not in images])
        table = _with_class_names(table, schema)
        typed = manifest.typed(address, table.replace_schema_metadata(None))
        ids = _ids(parquet, table, column, name)
    except RemoteError as error:
        raise DatasetError(f"{address}: {error}") from error
    except (pa.ArrowException, OSError, UnicodeError) as error:
        reason = one_line(error, limit=200)
        raise DatasetError(f"{address} cannot be read as parquet: {reason}") from error
    if not ids:
        raise DatasetError(f"{address}: expected images, found no rows")
    examples = tuple(
        Example(id_, str(TableCell(address, row, column))) for row, id_ in enumerate(ids)
    )
    source = Source(root or (address if is_remote(address) else Path(address)), examples)
    typed = _with_split(typed, PurePosixPath(address).name, len(ids))
    source = manifest.latest(address, manifest.with_attributes(source, typed, address, {"id"}))
    return with_etag(source, etag)


def _with_split(table: manifest.ManifestTable, file: str, rows: int) -> manifest.ManifestTable:
    match = _SPLIT.match(file)
    split = splits.of_folder(match[1]) if match else None
    if split is None or "split" in table.types:
        return table
    column = pa.array([split] * rows, pa.string())
    written = pa.table(
        {**dict(zip(table.types, table.written.columns, strict=True)), "split": column}
    )
    return manifest.ManifestTable(written, {**table.types, "split": pa.string()})


def _ids(parquet: Any, table: pa.Table, column: str, name: str) -> list[str]:
    """The ids of the rows."""
    rows = parquet.metadata.num_rows
    given = table["id"].to_pylist() if "id" in table.column_names else []
    if any(value is not None for value in given):
        ids = ["" if value is None or value != value else str(value) for value in given]
        if "" in ids:
            raise DatasetError(f"{name}: row {ids.index('') + 1} has no id")
        return ids
    kind = parquet.schema_arrow.field(column).type
    if pa.types.is_struct(kind) and "path" in kind.names:
        structs = parquet.read(columns=[f"{column}.path"])[column].to_pylist()
        paths = [(struct or {}).get("path") for struct in structs]
        if all(paths) and len(set(paths)) == rows:
            return [f"{name}/{str(path).lstrip('/')}" for path in paths]
    return [f"{name}/{row}" for row in range(rows)]


def _with_class_names(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Replaces numbers of classes by their names, as far as the file lists them."""
    try:
        features = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = {
            column: list(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return table
    for column, classes in names.items():
        place = table.column_names.index(column) if column in table.column_names else -1
        if place < 0 or not pa.types.is_integer(table[column].type):
            continue
        texts = [
            classes[number] if number is not None and 0 <= number < len(classes) else None
            for number in table[column].to_pylist()
        ]
        table = table.set_column(place, column, pa.array(texts, pa.string()))
    return table
