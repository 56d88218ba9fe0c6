"""The rows of one state of a store, in parts: matrices and attributes, some of them dead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.arguments import require_items
from rsicd_embed.errors import SchemaError
from rsicd_embed.records import HIT_COLUMNS, VECTOR, vector_array, vector_matrix
from rsicd_embed.stores.filters import matching
from rsicd_embed.stores.quantised import QuantisedVectors

_SCAN_ROWS = 8192
_CACHED_MASKS = 8  # a byte per row each
# Conditions that may have another result the next time; a false alarm only costs time.
_VOLATILE = re.compile(r"\b(now|current_\w+|today|random|uuid)\b", re.IGNORECASE)


@dataclass(frozen=True)
class RowView:
    """Rows that lie together.

    Attributes:
        matrix: float32 (n, dim), unit vectors, read-only.
        attributes: the n rows' other columns, in the order of the store's schema.
        live: bool (n,), False where a row was replaced or deleted; None where all are live.
        codes: int8 codes of the vectors, which make a search faster; None where there are none.
    """

    matrix: np.ndarray
    attributes: pa.Table
    live: np.ndarray | None = None
    codes: QuantisedVectors | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def live_rows(self) -> int:
        """How many rows are live."""
        return len(self) if self.live is None else int(np.count_nonzero(self.live))


@dataclass(frozen=True)
class Rows:
    """All rows of one state of a store; a row's position counts through the parts.

    Attributes:
        schema: of a row, vector included.
        parts: each with the columns of `schema` but the vector.
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
        """The schema of a table of hits among these rows."""
        types = (pa.int32(), pa.int32(), pa.string(), pa.float32())
        fixed = [pa.field(name, kind) for name, kind in zip(HIT_COLUMNS, types, strict=True)]
        return pa.schema(fixed + [field for field in self.attribute_schema if field.name != "id"])

    @cached_property
    def place_fields(self) -> tuple[pa.Field, pa.Field, pa.Field]:
        """The fields query, rank and score of `hit_schema`: looking one up takes microseconds."""
        return tuple(self.hit_schema.field(name) for name in ("query", "rank", "score"))

    @cached_property
    def offsets(self) -> np.ndarray:
        """int64 (parts + 1,): the position of each part's first row, then the end."""
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
        return pa.schema([one for one in self.hit_schema if one.name in self.schema.names])

    @cached_property
    def _batches(self) -> tuple[list[pa.RecordBatch], np.ndarray]:
        """The attributes as they lie, and int64 (batches + 1,), where each begins."""
        schema = self._taken_schema
        batches = [
            pa.RecordBatch.from_arrays([one.column(name) for name in schema.names], schema=schema)
            for part in self.parts
            for one in part.attributes.to_batches()
        ]
        return batches, np.cumsum([0, *map(len, batches)], dtype=np.int64)

    def masks(self, where: str | None) -> list[np.ndarray | None]:
        """For each part the rows that are live and that `where` accepts; None for all of them.

        Raises:
            FilterError: see `filters.matching`.
        """
        if where is None:
            return [part.live for part in self.parts]
        if isinstance(where, str) and not _VOLATILE.search(where):
            return self._cached_masks(where)
        return self._evaluated_masks(where)

    @cached_property
    def _cached_masks(self) -> Callable[[str], list[np.ndarray | None]]:
        """`_evaluated_masks` that caches the last few: a filter stays while queries change."""
        return lru_cache(_CACHED_MASKS)(self._evaluated_masks)

    def _evaluated_masks(self, where: str) -> list[np.ndarray | None]:
        # Dead rows are not shown to the condition: they could make it fail (a cast, a division).
        accepted = matching(self.live_table, where)
        masks: list[np.ndarray | None] = []
        start = 0
        for part in self.parts:
            chosen = accepted[start : start + part.live_rows]
            start += part.live_rows
            if part.live is not None:
                spread = np.zeros(len(part), dtype=bool)
                spread[part.live] = chosen
                chosen = spread
            masks.append(chosen)
        return masks

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """float32 (m, dim) at int64 `positions` (m,)."""
        if len(self.parts) == 1:
            only: np.ndarray = self.parts[0].matrix.take(positions, axis=0)
            return only
        dim = self.schema.field(VECTOR).type.list_size
        taken = np.empty((len(positions), dim), dtype=np.float32)
        for index, where, local in _located(positions, self.offsets):
            taken[where] = self.parts[index].matrix[local]
        return taken

    def take(self, positions: np.ndarray) -> pa.RecordBatch:
        """The attributes at int64 `positions` (m,), in their order: id, then the others."""
        batches, offsets = self._batches
        if len(batches) == 1:
            return _taken(batches[0], positions)
        # Batch by batch: taking from a chunked column would first copy all of it.
        taken, order = [], []
        for index, where, local in _located(positions, offsets):
            taken.append(_taken(batches[index], local))
            order.append(where)
        if not taken:
            return pa.RecordBatch.from_pylist([], self._taken_schema)
        back = np.argsort(np.concatenate(order), kind="stable")
        return _taken(pa.concat_batches(taken), back)


# `RecordBatch.take` looks this up, and makes options for it, each time: half of the time it takes.
_TAKE = pc.get_function("take")


def _taken(batch: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
    return _TAKE.call([batch, column_of(rows)])


_TYPES = {np.dtype(name): getattr(pa, name)() for name in ("int32", "int64", "float32")}


def column_of(numbers: np.ndarray) -> pa.Array:
    """Contiguous int32, int64 or float32 (n,) as Arrow's, in fewer steps than by `pa.array`."""
    buffers = [None, pa.py_buffer(numbers)]
    return pa.Array.from_buffers(_TYPES[numbers.dtype], len(numbers), buffers)


def _located(
    positions: np.ndarray, offsets: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each piece in use: its number, the indices into `positions`, and the rows in it."""
    owners = np.searchsorted(offsets, positions, side="right") - 1
    for index in np.unique(owners):
        where = np.flatnonzero(owners == index)
        yield int(index), where, positions[where] - offsets[index]


def rows_of(table: pa.Table) -> Rows:
    """The rows of a table, vectors included; nothing is copied."""
    attributes = table.drop_columns([VECTOR])
    parts, start = [], 0
    for chunk in table[VECTOR].chunks:
        parts.append(RowView(vector_matrix(chunk), attributes.slice(start, len(chunk))))
        start += len(chunk)
    return Rows(table.schema, tuple(parts))


def without_vector(schema: pa.Schema) -> pa.Schema:
    """A schema of rows without the vector column."""
    return pa.schema([field for field in schema if field.name != VECTOR])


def chosen_schema(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    """The schema of the named columns, in their order; all of them for None.

    Raises:
        SchemaError: for an unknown or repeated column.
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
    """Live rows that `where` accepts, as record batches of a few thousand rows.

    Raises:
        SchemaError: for an unknown column.
        FilterError: see `filters.matching`.
    """
    schema = chosen_schema(rows.schema, columns)
    return pa.RecordBatchReader.from_batches(schema, _batches(rows, schema, rows.masks(where)))


def _batches(
    rows: Rows, schema: pa.Schema, masks: list[np.ndarray | None]
) -> Iterator[pa.RecordBatch]:
    for part, mask in zip(rows.parts, masks, strict=True):
        start = 0
        for attributes in part.attributes.to_batches(max_chunksize=_SCAN_ROWS):
            kept = slice(start, start + len(attributes))
            start = kept.stop
            vectors = part.matrix[kept]
            if mask is not None:
                if not mask[kept].any():
                    continue
                attributes = pc.filter(attributes, pa.array(mask[kept]))
                vectors = vectors[mask[kept]] if VECTOR in schema.names else vectors
            yield pa.record_batch(
                [
                    vector_array(vectors) if name == VECTOR else attributes.column(name)
                    for name in schema.names
                ],
                schema=schema,
            )
