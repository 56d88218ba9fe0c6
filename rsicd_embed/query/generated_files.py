"""Protection of files that rsicd-embed did not write from being replaced."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rsicd_embed.errors import StoreError
from rsicd_embed.files import storage_errors
from rsicd_embed.geography import vector_files
from rsicd_embed.query import table_files
from rsicd_embed.records import FIXED_COLUMNS, VECTOR

PAGE_MARK = b'<meta name="generator" content="rsicd-embed">'
_HEAD_BYTES = 65_536
_JSON_HEADS = (table_files.JSON_HEAD, b'{"query": ')
_COLUMNS = {*FIXED_COLUMNS} - {VECTOR}
_DUPLICATES = ["group", "id", "duplicate_of"]
_TEXT_LINE = re.compile(rb" *\d+  [+-]\d\.\d{4}  ")


def require_replaceable(path: Path, kind: str, *, force: bool | None = False) -> None:
    """Checks that writing a file will not destroy another program's.

    Args:
        path: the file to write.
        kind: its format: a `table_files.Format`, "html", or "table" for text.
        force: replace any file; None for commands without --force.

    Raises:
        StoreError: the file exists, and rsicd-embed did not write it.
    """
    with storage_errors(f"cannot write {path}"):
        if force or not path.exists():
            return
        if not path.is_file() or _is_generated(path, kind):
            return
    option = "" if force is None else " (--force replaces it)"
    raise StoreError(
        f"{path} exists and was not written by rsicd-embed; choose another file, or remove it"
        f"{option}"
    )


def _is_generated(path: Path, kind: str) -> bool:
    if kind == "parquet":
        try:
            with pq.ParquetFile(path) as file:
                return table_files.PARQUET_KEY in (file.metadata.metadata or {})
        except (pa.ArrowException, OSError):
            return False
    if kind in vector_files.DRIVERS:
        return vector_files.is_generated(path)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if kind == "json":
        return head.startswith(_JSON_HEADS)
    if kind == "geojson":
        return head.startswith(table_files.GEOJSON_HEAD)
    if kind == "html":
        return PAGE_MARK in head
    if kind == "table":
        return not head or _TEXT_LINE.match(head) is not None
    columns = next(csv.reader(head.decode("utf-8", "replace").splitlines()), [])
    return columns == _DUPLICATES or set(columns) >= _COLUMNS
