"""A table of images and their attributes: JSONL, CSV or Parquet."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.errors import DatasetError
from rsicd_embed.records import FIXED_COLUMNS

SUFFIXES = frozenset({".jsonl", ".ndjson", ".csv", ".parquet"})
PATH_COLUMNS = ("uri", "path", "image", "filename", "file_name")


def load(path: Path) -> Source:
    """Reads a manifest: a column of PATH_COLUMNS, relative to its folder; `id` if it has one.

    Every other column becomes a typed attribute.

    Raises:
        DatasetError: not a table, empty, without paths, or with ids missing or repeated.
    """
    table = _read(path)
    if not table.num_rows:
        raise DatasetError(f"{path}: expected images, found no rows")
    column = next((name for name in PATH_COLUMNS if name in table.column_names), None)
    if column is None:
        raise DatasetError(
            f"{path}: expected a column named {', '.join(PATH_COLUMNS)}, "
            f"found {', '.join(table.column_names)}"
        )
    paths = table[column].cast(pa.string()).to_pylist()
    ids = table["id"].cast(pa.string()).to_pylist() if "id" in table.column_names else paths
    # What is computed from the image itself is not taken from the manifest.
    attributes = table.drop_columns(
        [name for name in {column, *FIXED_COLUMNS} if name in table.column_names]
    )
    examples: dict[str, Example] = {}
    for row, (id_, file, values) in enumerate(
        zip(ids, paths, attributes.to_pylist() or [{}] * len(paths), strict=True), start=1
    ):
        if not id_ or not file:
            raise DatasetError(f"{path}: row {row} has no {'id' if not id_ else column}")
        if id_ in examples:
            raise DatasetError(f"{path}: row {row} repeats the id {id_!r}; ids must be distinct")
        examples[id_] = Example(id_, path.parent / file.removeprefix("file://"), values)
    return Source(path.parent, tuple(examples.values()), attributes.schema.remove_metadata())


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(path)
        if path.suffix == ".csv":
            import pyarrow.csv

            return pyarrow.csv.read_csv(path)
        import pyarrow.json

        return pyarrow.json.read_json(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path} cannot be read as {path.suffix[1:]}: {reason}") from error
