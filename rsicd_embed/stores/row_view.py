"""The rows of one state of a store: parts with a vector matrix and an attribute table each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.arguments import require_items
from rsicd_embed.errors import SchemaError
from rsicd_embed.records import HIT_COLUMNS, VECTOR, vector_array, vector_matrix
from rsicd_embed.stores.filters import RecentFilters, matching
from rsicd_embed.stores.quantised import QuantisedVectors

_SCAN_ROWS = 8192


@dataclass(frozen=True)
class RowView:
    """Rows that are stored together.

    Attributes:
        matrix: float32 (n, dim), unit vectors, read-only.
        attributes: the other columns, in the order of the store's schema.
        live: bool (n,), False for rows that were replaced or deleted; None if all are live.
        codes: int8 codes of the vectors, which make a search faster; None if there are none.
    """

    matrix: np.ndarray
    attributes: pa.Table
    live: np.ndarray | None = None
    codes: QuantisedVectors | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def live_rows(self) -> int:
        """Number of live rows."""
        return len(self) if self.live is None else int(np.count_nonzero(self.live))


@dataclass(frozen=True)
class Rows:
    """All rows of one state of a store; positions count through the parts.

    Attributes:
        schema: schema of the rows, including the vector.
        parts: parts whose attributes are the columns of `schema` without the vector.
    """

    schema: pa.Schema
    parts: tuple[RowView, ...]

    def __len__(self) -> int:
        return sum(part.live_rows for part in self.parts)

    @cached_property
    def attribute_schema(self) -> pa.Schema:
        """`schema` without the vector."""
        return without_vector(self.schema)

    @cached_property
    def hit_schema(self) -> pa.Schema:
        """The schema of a hit table for these rows."""
        types = (pa.int32(), pa.int32(), pa.string(), pa.float32())
        fixed = [pa.field(name, kind) for name, kind in zip(HIT_COLUMNS, types, strict=True)]
        return pa.schema(fixed + [field for field in self.attribute_schema if field.name != "id"])

    @cached_property
    def ranking_fields(self) -> tuple[pa.Field, pa.Field, pa.Field]:
        """The query, rank and score fields of `hit_schema`; each look-up takes microseconds."""
        return tuple(self.hit_schema.field(name) for name in ("query", "rank", "score"))

    @cached_property
    def offsets(self) -> np.ndarray:
        """Position of each part's first row, then the end, as int64 (parts + 1,)."""
        return np.cumsum([0, *(len(part) for part in self.parts)], dtype=np.int64)

    @cached_property
    def live_table(self) -> pa.Table:
        """The attributes of the live rows."""
        live = [
            part.attributes if part.live is None else part.attributes.filter(pa.array(part.live))
            for part in self.parts
        ]
        return pa.concat_tables([self.attribute_schema.empty_table(), *live])

    @cached_property
    def _taken_schema(self) -> pa.Schema:
        """`hit_schema` without query, rank and score."""
        return pa.schema([field for field in self.hit_schema if field.name in self.schema.names])

    @cached_property
    def _batches(self) -> tuple[list[pa.RecordBatch], np.ndarray]:
        """The attributes' batches, and the position where each begins, int64 (batches + 1,)."""
        schema = self._taken_schema
        batches = [
            pa.RecordBatch.from_arrays([batch.column(name) for name in schema.names], schema=schema)
            for part in self.parts
            for batch in part.attributes.to_batches()
        ]
        return batches, np.cumsum([0, *map(len, batches)], dtype=np.int64)

    def masks(self, where: str | None) -> list[np.ndarray | None]:
        """For each part a mask of the live rows that match `where`; None for all rows.

        Raises:
            FilterError: see `filters.matching`.
        """
        if where is None:
            return [part.live for part in self.parts]
        return self._recent_masks.result(where, self._evaluated_masks)

    @cached_property
    def _recent_masks(self) -> RecentFilters[list[np.ndarray | None]]:
        return RecentFilters()

    def _evaluated_masks(self, where: str) -> list[np.ndarray | None]:
        # The condition only sees live rows: a dead one could make it fail (a cast, a division).
        matches = matching(self.live_table, where)
        masks: list[np.ndarray | None] = []
        start = 0
        for part in self.parts:
            chosen = matches[start : start + part.live_rows]
            start += part.live_rows
            if part.live is not None:
                spread = np.zeros(len(part), dtype=bool)
                spread[part.live] = chosen
                chosen = spread
            masks.append(chosen)
        return masks

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """The vectors at int64 (m,) positions, as float32 (m, dim)."""
        if len(self.parts) == 1:
            vectors: np.ndarray = self.parts[0].matrix.take(positions, axis=0)
            return vectors
        dim = self.schema.field(VECTOR).type.list_size
        vectors = np.empty((len(positions), dim), dtype=np.float32)
        for index, indices, local in _located(positions, self.offsets):
            vectors[indices] = self.parts[index].matrix[local]
        return vectors

    def take(self, positions: np.ndarray) -> pa.RecordBatch:
        """The attributes at int64 (m,) positions: id, then the others."""
        batches, offsets = self._batches
        if len(batches) == 1:
            return _take(batches[0], positions)
        # Batch by batch, since taking from a chunked column would first copy all of it.
        pieces, order = [], []
        for index, indices, local in _located(positions, offsets):
            pieces.append(_take(batches[index], local))
            order.append(indices)
        if not pieces:
            return pa.RecordBatch.from_pylist([], self._taken_schema)
        back = np.argsort(np.concatenate(order), kind="stable")
        return _take(pa.concat_batches(pieces), back)


# `RecordBatch.take` spends half its time on looking this up and creating its options.
_TAKE = pc.get_function("take")


def _take(batch: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
    return _TAKE.call([batch, column_of(rows)])


_TYPES = {np.dtype(name): getattr(pa, name)() for name in ("int32", "int64", "float32")}


def column_of(numbers: np.ndarray) -> pa.Array:
    """Wraps contiguous int32, int64 or float32 (n,) for Arrow, faster than `pa.array`."""
    buffers = [None, pa.py_buffer(numbers)]
    return pa.Array.from_buffers(_TYPES[numbers.dtype], len(numbers), buffers)


def _located(
    positions: np.ndarray, offsets: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields, per piece in use: its number, indices into `positions`, and positions within it."""
    owners = np.searchsorted(offsets, positions, side="right") - 1
    for index in np.unique(owners):
        indices = np.flatnonzero(owners == index)
        yield int(index), indices, positions[indices] - offsets[index]


def rows_of(table: pa.Table) -> Rows:
    """Wraps a table of rows, including vectors, without copying it."""
    attributes = table.drop_columns([VECTOR])
    parts, start = [], 0
    for chunk in table[VECTOR].chunks:
        parts.append(RowView(vector_matrix(chunk), attributes.slice(start, len(chunk))))
        start += len(chunk)
    return Rows(table.schema, tuple(parts))


def without_vector(schema: pa.Schema) -> pa.Schema:
    """Removes the vector column from a schema."""
    return pa.schema([field for field in schema if field.name != VECTOR])


def chosen_schema(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    """The schema of some columns, in the given order; None selects all.

    Raises:
        SchemaError: an unknown or repeated column.
    """
    if columns is None:
        return schema
    require_items(columns, "names of columns", str)
    names = list(columns)
    for name in names:
        if name not in schema.names:
            raise SchemaError(f"no column {name!r}; columns: {', '.join(schema.names)}")
    if len(set(names)) != len(names):
        raise SchemaError(f"expected each column once, found {', '.join(names)}")
    return pa.schema([schema.field(name) for name in names])


def scan(rows: Rows, columns: Sequence[str] | None, where: str | None) -> pa.RecordBatchReader:
    """Reads live rows that match `where` as record batches of a few thousand rows.

    Raises:
        SchemaError: an unknown or repeated column.
        FilterError: see `filters.matching`.
    """
    schema = chosen_schema(rows.schema, columns)
    return pa.RecordBatchReader.from_batches(schema, _scanned(rows, schema, rows.masks(where)))


def _scanned(
    rows: Rows, schema: pa.Schema, masks: list[np.ndarray | None]
) -> Iterator[pa.RecordBatch]:
    names = [name for name in schema.names if name != VECTOR] or ["id"]  # at least for its length
    for part, mask in zip(rows.parts, masks, strict=True):
        start = 0
        for attributes in part.attributes.select(names).to_batches(max_chunksize=_SCAN_ROWS):
            block = slice(start, start + len(attributes))
            start = block.stop
            vectors = part.matrix[block]
            if mask is not None:
                if not mask[block].any():
                    continue
                attributes = pc.filter(attributes, pa.array(mask[block]))
                vectors = vectors[mask[block]] if VECTOR in schema.names else vectors
            yield pa.record_batch(
                [
                    vector_array(vectors) if name == VECTOR else attributes.column(name)
                    for name in schema.names
                ],
                schema=schema,
            )
