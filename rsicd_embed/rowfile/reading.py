"""Reading a file of rows, some thousand at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsicd_embed.errors import DatasetError, one_line
from rsicd_embed.records import VECTOR, Provenance
from rsicd_embed.rowfile import metadata, types

SUFFIX = ".parquet"
_BATCH_ROWS = 8192


@dataclass(frozen=True)
class RowFile:
    """A Parquet file that says which model made its vectors.

    Attributes:
        path: where it is.
        provenance: what made the vectors.
        schema: of its rows, with the types that Parquet lacks.
        rows: how many there are.
    """

    path: Path
    provenance: Provenance
    schema: pa.Schema
    rows: int

    @classmethod
    def open(cls, path: Path) -> RowFile | None:
        """The file of rows at `path`; None where there is another file, or none.

        Raises:
            DatasetError: it is one, but what it says of itself is damaged or of a later version.
        """
        if path.suffix.lower() != SUFFIX or not _is_regular(path):
            return None
        try:
            with _opened(path) as file:
                found, rows = file.schema_arrow, file.metadata.num_rows
                raw = (file.metadata.metadata or {}).get(metadata.KEY)
                names = found.names
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            return None
        if raw is None or VECTOR not in names:
            return None
        made_by, written = metadata.decode(raw, path)
        for name in names:
            if names.count(name) > 1:
                raise DatasetError(f"{path}: expected each column once, found {name!r} twice")
        empty = pa.RecordBatch.from_arrays([pa.nulls(0, one.type) for one in found], names)
        return cls(path, made_by, _restored(empty, written).schema, rows)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, in their order.

        Raises:
            DatasetError: the file is damaged.
        """
        try:
            with _opened(self.path) as file:
                # One row group at a time: a batch that spans several may be of any size.
                for group in range(file.metadata.num_row_groups):
                    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
                        batch.validate(full=True)  # that text is UTF-8, for one
                        yield _restored(batch, self.schema)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{self.path} cannot be read as Parquet: {one_line(error, limit=300)}; "
                "export it again"
            ) from error


def what_is_at(path: Path) -> str:
    """What is at a path where `RowFile.open` finds no file of rows, for an error message."""
    if not _is_regular(path):
        return "a folder" if os.path.isdir(path) else "nothing there"  # noqa: PTH112
    try:
        with _opened(path):
            return "another one"
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        return f"a file that cannot be read as Parquet: {one_line(error, limit=300)}"


def _restored(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the column types of `schema`, which may have others, or lack some."""
    names = batch.schema.names
    columns = [
        types.from_parquet(column, schema.field(name).type) if name in schema.names else column
        for name, column in zip(names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(
        path, pre_buffer=False, page_checksum_verification=True
    ) as file:
        yield file


def _is_regular(path: Path) -> bool:
    """Whether there is a file that can be looked into without waiting for its other end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False
