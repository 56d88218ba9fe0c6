"""Images inside other files: members of tars, and cells of Parquet tables.

Their addresses contain everything needed to read them again, as those of windows of scenes do:
`/data/a.tar#member=7.jpg&range=1536,20480` and `s3://bucket/a.parquet#row=7&column=image`.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from rsicd_embed.errors import ImageError, RemoteChangedError, RemoteError, one_line
from rsicd_embed.remote import RemoteFile, Reservation, fetch_range, is_remote

_MEMBER = re.compile(
    r"(?P<file>.+?)#member=(?P<name>.*)&range=(?P<start>\d+),(?P<size>\d+)", re.DOTALL
)
_CELL = re.compile(r"(?P<file>.+?)#row=(?P<row>\d+)&column=(?P<column>.+)", re.DOTALL)
_MOST_TABLES, _MOST_GROUPS = 8, 4


@dataclass(frozen=True)
class TarMember:
    """A file in an uncompressed tar.

    Attributes:
        file: path or URL of the tar.
        name: name of the member.
        start: its first byte.
        size: number of its bytes.
    """

    file: str
    name: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.file}#member={self.name}&range={self.start},{self.size}"

    @classmethod
    def parse(cls, address: str) -> TarMember | None:
        """The member that an address names; None for other addresses."""
        match = _MEMBER.fullmatch(address) if "#member=" in address else None
        if match is None:
            return None
        return cls(match["file"], match["name"], int(match["start"]), int(match["size"]))

    def read(self, *, etag: str = "", reservation: Reservation | None = None) -> bytes:
        """Reads the member's bytes.

        Args:
            etag: the ETag that a remote tar must have.
            reservation: takes the bytes of a remote member.

        Raises:
            ImageError: a local tar is missing or too short.
            RemoteError: a remote tar cannot be read.
        """
        stop = self.start + self.size
        if is_remote(self.file):
            if not self.size:
                return b""
            return fetch_range(self.file, self.start, stop, etag=etag, reservation=reservation).data
        try:
            with Path(self.file).open("rb") as file:
                file.seek(self.start)
                data = file.read(self.size)
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot be read: {_reason(error)}") from error
        if len(data) != self.size:
            raise ImageError(f"expected a tar of at least {stop:,} bytes, found less")
        return data


@dataclass(frozen=True)
class TableCell:
    """An image in a column of a Parquet file.

    Attributes:
        file: path or URL of the Parquet file.
        row: number of the row, from 0.
        column: a column of bytes, or of structs with the field `bytes`.
    """

    file: str
    row: int
    column: str

    def __str__(self) -> str:
        return f"{self.file}#row={self.row}&column={self.column}"

    @classmethod
    def parse(cls, address: str) -> TableCell | None:
        """The cell that an address names; None for other addresses."""
        match = _CELL.fullmatch(address) if "#row=" in address else None
        return cls(match["file"], int(match["row"]), match["column"]) if match else None

    def read(self, *, etag: str = "") -> bytes:
        """Reads the cell's bytes. Its row group stays in memory for its neighbours.

        Args:
            etag: the ETag that a remote table must have.

        Raises:
            ImageError: the table or the row is missing, or has no image.
            RemoteError: a remote table cannot be read, or has changed.
        """
        try:
            table = _table(self.file)
            if etag and table.etag != etag:
                _forget(self.file)
                table = _table(self.file)
                if table.etag != etag:
                    raise RemoteChangedError
            return table.cell(self.row, self.column)
        except RemoteError:
            _forget(self.file)
            raise
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            _forget(self.file)
            raise ImageError(f"cannot be read: {_reason(error)}") from error


def open_table(file: str) -> tuple[Any, str]:
    """Opens a Parquet file.

    Returns:
        A `pyarrow.parquet.ParquetFile`, and the ETag of a remote file.

    Raises:
        OSError: a local file cannot be read.
        RemoteError: a remote file cannot be read.
        ArrowException: it is not a Parquet file.
    """
    import pyarrow.parquet as pq

    if is_remote(file):
        remote = RemoteFile(file)
        parquet = pq.ParquetFile(pa.PythonFile(remote, mode="r"), pre_buffer=True)
        return parquet, remote.object.etag
    return pq.ParquetFile(file), ""


def image_field(kind: pa.DataType) -> str | None:
    """The field of a column's structs that has the bytes of images; "" if the column has them.

    None for columns of other types.
    """
    if _is_bytes(kind):
        return ""
    if pt.is_struct(kind) and (place := kind.get_field_index("bytes")) >= 0:
        return "bytes" if _is_bytes(kind.field(place).type) else None
    return None


def _is_bytes(kind: pa.DataType) -> bool:
    if pt.is_dictionary(kind):
        kind = kind.value_type
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind))


@dataclass
class _Table:
    """An open Parquet file, read by one thread at a time, and its last row groups.

    Attributes:
        parquet: the file.
        ends: number of rows up to and including each row group.
        etag: of a remote file.
    """

    parquet: Any
    ends: list[int]
    etag: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    groups: OrderedDict[tuple[int, str], pa.ChunkedArray] = field(default_factory=OrderedDict)

    def cell(self, row: int, column: str) -> bytes:
        group = bisect_right(self.ends, row)
        if group == len(self.ends):
            count = self.ends[-1] if self.ends else 0
            raise ImageError(f"expected a table with row {row}, found {count:,} rows")
        first = self.ends[group - 1] if group else 0
        with self.lock:
            values = self.groups.pop((group, column), None)
            if values is None:
                values = self._column(group, column)
            self.groups[group, column] = values
            while len(self.groups) > _MOST_GROUPS:
                self.groups.popitem(last=False)
        data = values[row - first].as_py()
        if not data:
            raise ImageError("no image in this row")
        return bytes(data)

    def _column(self, group: int, column: str) -> pa.ChunkedArray:
        schema = self.parquet.schema_arrow
        inside = image_field(schema.field(column).type) if column in schema.names else None
        if inside is None:
            raise ImageError(f"expected images in column {column!r}, found none")
        path = f"{column}.{inside}" if inside else column
        values = self.parquet.read_row_group(group, columns=[path], use_threads=False)[column]
        if not inside:
            return values
        return pa.chunked_array(
            [chunk.flatten()[chunk.type.get_field_index(inside)] for chunk in values.chunks],
            values.type.field(values.type.get_field_index(inside)).type,
        )


_opened: OrderedDict[tuple[str, int, int], _Table] = OrderedDict()
_opening: dict[str, threading.Lock] = {}
_mutex = threading.Lock()


def _table(file: str) -> _Table:
    key = _key(file)
    with _mutex:
        if key in _opened:
            _opened.move_to_end(key)
            return _opened[key]
        lock = _opening.setdefault(file, threading.Lock())
    with lock:
        with _mutex:
            if key in _opened:
                return _opened[key]
        parquet, etag = open_table(file)
        counts = (parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups))
        table = _Table(parquet, list(accumulate(counts)), etag)
        with _mutex:
            _opened[key] = table
            _opening.pop(file, None)
            while len(_opened) > _MOST_TABLES:
                _opened.popitem(last=False)
        return table


def _key(file: str) -> tuple[str, int, int]:
    if is_remote(file):
        return file, 0, 0
    try:
        status = Path(file).stat()
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read: {_reason(error)}") from error
    return file, status.st_mtime_ns, status.st_size


def _forget(file: str) -> None:
    """Closes a table, so that the next attempt reads the current file."""
    with _mutex:
        for key in [key for key in _opened if key[0] == file]:
            del _opened[key]


def container_of(address: str) -> str | None:
    """The tar or table that contains an image; None for an image of its own."""
    parsers: tuple[Callable[[str], TarMember | TableCell | None], ...] = (
        TarMember.parse,
        TableCell.parse,
    )
    inside = next((parsed for parse in parsers if (parsed := parse(address))), None)
    return inside.file if inside else None


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or one_line(error, limit=200)
