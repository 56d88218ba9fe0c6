"""Parquet and GeoParquet files with vectors that another program wrote, as rows of a store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from rsicd_embed.datasets.base import Skipped
from rsicd_embed.datasets.column_types import plain
from rsicd_embed.errors import DatasetError, one_line
from rsicd_embed.geography.footprints import centres, to_wgs84
from rsicd_embed.geography.geoparquet import covering_column, geometry_columns
from rsicd_embed.records import FIXED_COLUMNS, VECTOR, is_list, vector_array

_BLOCK_ROWS = 256  # small enough for its copies to stay in the processor's cache
_READ_BYTES = 1 << 20  # of a column, at a time
_MOST_LISTED = 10  # rows of one file that are skipped for the same kind of reason
# Spellings of times that Arrow does not read → those it does, replaced one after the other.
_TIMES = (
    (r"^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z?$", r"\1-\2-\3T\4:\5:\6"),
    (r"(\.\d{6})\d+", r"\1"),
    (r"^(\d{4}-\d\d-\d\d)$", r"\1T00:00:00"),
    (r"^(\d{4}-\d\d-\d\d[T ][\d:.]+)$", r"\1Z"),  # without an offset
)
_UTC = pa.timestamp("us", "UTC")
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


@dataclass(frozen=True)
class VectorLayout:
    """The columns of files with vectors.

    Attributes:
        vector: column of lists of 16-, 32- or 64-bit floats.
        ids: columns that together are unique; joined by "/".
        columns: column of the store → column of the file. Others keep their names. `geometry` may
            be WKB or WKT, `datetime` a time, a date or text.
    """

    vector: str = "embedding"
    ids: tuple[str, ...] = ("id",)
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ForeignFile:
    """A Parquet file with a column of vectors.

    Attributes:
        path: the file.
        layout: its columns of ids and vectors.
        rows: number of rows.
        columns: column of the store → column of the file, for all that are imported.
        ignored: columns of the file that are not imported, as the store's have other contents.
        crs: coordinate reference system of its geometry; None for WGS 84.
    """

    path: Path
    layout: VectorLayout
    rows: int
    columns: Mapping[str, str]
    ignored: tuple[str, ...]
    crs: str | None

    @classmethod
    def open(cls, path: Path, layout: VectorLayout) -> ForeignFile:
        """Reads a file's schema.

        Raises:
            DatasetError: it is not Parquet, lacks a column, or one has the wrong type.
        """
        try:
            with pq.ParquetFile(path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
                metadata = file.metadata.metadata or {}  # Arrow's schema may lack some of it
                main, systems = geometry_columns(metadata, file.schema)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{path} cannot be read as Parquet: {one_line(error)}") from error
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from None
        _require_columns(schema, layout, path)
        columns = dict(layout.columns)
        if main in schema.names:
            columns.setdefault("geometry", str(main))
        used = {layout.vector, *columns.values(), covering_column(metadata)}
        others = [n for n in schema.names if n not in used and not _PANDAS_INDEX.fullmatch(n)]
        reserved = {*columns, *FIXED_COLUMNS} - ({"uri"} - columns.keys())
        columns |= {name: name for name in others if name not in reserved}
        ignored = (name for name in others if name in reserved and name not in layout.ids)
        crs = systems.get(columns.get("geometry", "geometry"))
        return cls(path, layout, rows, columns, tuple(ignored), crs)

    def first_dim(self) -> int:
        """Length of the first vector; 0 if there is none."""
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(256, columns=[self.layout.vector]):
                lengths = pc.list_value_length(batch.column(0))
                lengths = lengths.filter(pc.greater(lengths, 0))
                if len(lengths):
                    return int(lengths[0].as_py())
        return 0

    def batches(
        self, dim: int, skipped: list[Skipped], measured: Callable[[np.ndarray], None]
    ) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a store, with unit vectors.

        Args:
            dim: length of the vectors.
            skipped: rows that cannot be used are added to it.
            measured: called with the original lengths of vectors, float64 (n,).

        Raises:
            DatasetError: the file is damaged, or has a value that its column cannot have.
        """
        names = dict.fromkeys([self.layout.vector, *self.layout.ids, *self.columns.values()])
        reasons: dict[str, int] = {}
        start = 0
        step = max(1, min(16_384, (16 << 20) // (4 * dim)))
        for batch in self._read(step, list(names)):
            vectors, lengths, why = _normalised(batch.column(self.layout.vector), dim)
            ids = self._ids(batch)
            why[np.asarray(pc.equal(ids, "").fill_null(True))] = "no id"
            self._list(why, start, reasons, skipped)
            start += len(batch)
            good = np.array([reason is None for reason in why], bool)
            measured(lengths[good])
            rows = pa.array(good)
            columns = {"id": ids.filter(rows), VECTOR: vector_array(vectors[good])}
            for new, old in self.columns.items():
                columns[new] = self._column(new, old, batch.column(old).filter(rows))
            if "geometry" in columns and not {"lon", "lat"} <= columns.keys():
                columns |= self._converted(self.columns["geometry"], centres, columns["geometry"])
            yield pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
        for reason, count in reasons.items():
            if count > _MOST_LISTED:
                skipped.append(Skipped(str(self.path), f"{count - _MOST_LISTED:,} more: {reason}"))

    def _read(self, step: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            # Whole row groups would be read, which other programs write with 100,000 rows or more.
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_READ_BYTES) as file:
                yield from file.iter_batches(step, columns=names)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(
                f"{self.path} cannot be read as Parquet: {one_line(error, limit=300)}"
            ) from error

    def _list(
        self, why: np.ndarray, start: int, reasons: dict[str, int], skipped: list[Skipped]
    ) -> None:
        for row in np.flatnonzero([reason is not None for reason in why]):
            reason = str(why[row])
            reasons[reason] = reasons.get(reason, 0) + 1
            if reasons[reason] <= _MOST_LISTED:
                skipped.append(Skipped(str(self.path), f"row {start + row + 1}: {reason}"))

    def _ids(self, batch: pa.RecordBatch) -> pa.Array:
        texts = [self._converted(name, _texts, batch.column(name)) for name in self.layout.ids]
        return texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, "/")

    def _column(self, name: str, old: str, column: pa.Array) -> pa.Array:
        if name == "datetime":
            return self._converted(old, _times, column)
        column = self._converted(old, _plain, column)
        if name == "geometry":
            return self._converted(old, partial(to_wgs84, crs=self.crs), column)
        return self._converted(old, _numbers, column) if name in ("lon", "lat") else column

    def _converted(self, name: str, convert: Callable[[pa.Array], Any], column: pa.Array) -> Any:
        """Converts values of a column; DatasetError that names it if one cannot be converted."""
        try:
            return convert(column)
        except (pa.ArrowException, DatasetError) as error:
            reason = one_line(error, limit=200)
            raise DatasetError(
                f"{self.path}: column {name!r}: {reason}; correct it, or map another column"
            ) from None


def _require_columns(schema: pa.Schema, layout: VectorLayout, path: Path) -> None:
    for name in schema.names:
        if schema.names.count(name) > 1:
            raise DatasetError(f"{path}: expected each column once, found {name!r} twice")
    for name in (layout.vector, *layout.ids, *layout.columns.values()):
        if name not in schema.names:
            raise DatasetError(
                f"{path}: expected a column {name!r}, found {', '.join(schema.names)}; name "
                "columns with --vector-column, --id-column and --map"
            )
    kind = schema.field(layout.vector).type
    if not (is_list(kind) and pt.is_floating(kind.value_type)):
        raise DatasetError(f"{path}: expected lists of floats in {layout.vector!r}, found {kind}")
    for name in layout.ids:
        kind = schema.field(name).type
        if pt.is_nested(kind):
            raise DatasetError(
                f"{path}: expected texts or numbers as ids in {name!r}, found {kind}; name "
                "another column with --id-column"
            )
    for name in ("id", VECTOR):
        if name in layout.columns:
            raise DatasetError(
                f"expected other names than id and vector in --map, found {name!r}; "
                "--id-column and --vector-column name their columns"
            )


def _plain(column: pa.Array) -> pa.Array:
    return column.cast(plain(column.type), safe=False)


def _numbers(column: pa.Array) -> pa.Array:
    return column.cast(pa.float64())


def _texts(column: pa.Array) -> pa.Array:
    """Ids as text."""
    if isinstance(column.type, pa.UuidType):
        values = column.storage.to_pylist()
        return pa.array([None if v is None else str(UUID(bytes=v)) for v in values], pa.string())
    return column.cast(pa.string())


def _normalised(column: pa.Array, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors float32 (n, dim), their original lengths, and why a row is unusable, or None."""
    why = np.full(len(column), None, object)
    counts = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(counts != dim):
        length = "none" if counts[row] < 0 else f"length {counts[row]}"
        why[row] = f"expected a vector of length {dim}, found {length}"
    usable = counts == dim
    chosen = column if usable.all() else column.filter(pa.array(usable))
    given = chosen.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    if usable.all():
        vectors = given
    else:
        vectors = np.zeros((len(column), dim), given.dtype)
        vectors[usable] = given
    matrix, lengths = np.empty(vectors.shape, np.float32), np.empty(len(vectors))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(vectors), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            block = vectors[rows].astype(np.float32)
            wide = block.astype(np.float64)
            norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
            divisors = np.where(np.isfinite(norms) & (norms > 0), norms, 1).astype(np.float32)
            np.divide(block, divisors[:, None], out=matrix[rows])
            lengths[rows] = norms
    lengths[lengths > np.finfo(np.float32).max] = np.inf
    why[usable & ~np.isfinite(lengths)] = "the vector has NaN, infinite or too large values"
    why[usable & (lengths == 0)] = "the vector is all zero"
    return matrix, lengths, why


def _times(column: pa.Array) -> pa.Array:
    if pt.is_timestamp(column.type):
        safe = column.type.unit != "ns"  # nanoseconds are dropped
        if column.type.tz is None:
            return pc.assume_timezone(column.cast(pa.timestamp("us"), safe=safe), "UTC")
        return column.cast(_UTC, safe=safe)
    if pt.is_date(column.type):
        return pc.assume_timezone(column.cast(pa.timestamp("us")), "UTC")
    text = column.cast(pa.string())
    for pattern, replacement in _TIMES:
        text = pc.replace_substring_regex(text, pattern, replacement)
    try:
        return text.cast(_UTC)
    except pa.ArrowException as error:
        raise DatasetError(f"expected times: {one_line(error)}") from None
