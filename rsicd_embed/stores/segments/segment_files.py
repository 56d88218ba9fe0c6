"""The two files of a segment: its vectors as .npy, its other columns as Arrow record batches.

Segments are written and merged in blocks, so memory usage does not grow with the store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa

from rsicd_embed.records import VECTOR, vector_array, vector_matrix
from rsicd_embed.stores.columns import with_nulls_pushed_down
from rsicd_embed.stores.quantised import QuantisedVectors, mean_of, quantise
from rsicd_embed.stores.row_view import RowView, without_vector
from rsicd_embed.stores.segments.segment_manifest import SegmentEntry

_BLOCK_BYTES = 8 * 2**20
_MEAN_ROWS = 4096  # rows whose mean the codes are centred on
_REWRITTEN_ROWS = 8192
_Columns = TypeVar("_Columns", pa.RecordBatch, pa.Table)
Rewrite = Callable[[pa.RecordBatch], pa.RecordBatch]


class Piece(Protocol):
    """Rows to be written into a new segment."""

    @property
    def live_rows(self) -> int:
        """Number of rows."""
        ...

    def vectors(self) -> Iterator[np.ndarray]:
        """Yields the vectors as float32 (n, dim) blocks."""
        ...

    def attributes(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yields the other columns as batches of `schema`, in the same order."""
        ...


@dataclass(frozen=True)
class NewRows:
    """Rows that are not in any file yet."""

    table: pa.Table

    @property
    def live_rows(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    def vectors(self) -> Iterator[np.ndarray]:
        """See `Piece.vectors`."""
        return (vector_matrix(chunk) for chunk in self.table[VECTOR].chunks)

    def attributes(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """See `Piece.attributes`."""
        return (fitted(batch, schema) for batch in self.table.to_batches())


@dataclass(frozen=True)
class Segment:
    """Rows that were written together.

    Attributes:
        folder: folder of its files.
        entry: its entry in the manifest.
        part: its memory-mapped rows; `part.live` may be newer than `entry`.
    """

    folder: Path
    entry: SegmentEntry
    part: RowView

    @property
    def live_rows(self) -> int:
        """Number of live rows."""
        return self.part.live_rows

    # These read the files instead of the memory map, whose pages would stay resident.

    def vectors(self) -> Iterator[np.ndarray]:
        """See `Piece.vectors`."""
        rows, dim = self.part.matrix.shape
        step = max(1, _BLOCK_BYTES // (4 * dim))
        with (self.folder / self.entry.vectors.name).open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            for start in range(0, rows, step):
                count = min(step, rows - start)
                block = np.fromfile(file, "<f4", count * dim).reshape(count, dim)
                live = self.part.live
                yield block if live is None else block[live[start : start + count]]

    def attributes(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """See `Piece.attributes`."""
        start, live = 0, self.part.live
        with pa.OSFile(str(self.folder / self.entry.attributes.name)) as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                mask = None if live is None else pa.array(live[start : start + len(batch)])
                start += len(batch)
                yield fitted(batch if mask is None else batch.filter(mask), schema)


@dataclass(frozen=True)
class RewrittenSegment:
    """All rows of a segment, some of them with other attributes.

    Attributes:
        segment: the segment.
        schema: its columns, with which `rewrite` is called.
        rewrite: see `AttributeWriter.rewrite_attributes`.
        chosen: bool (rows,), the live rows to rewrite; None for all.
    """

    segment: Segment
    schema: pa.Schema
    rewrite: Rewrite
    chosen: np.ndarray | None

    @property
    def live_rows(self) -> int:
        """Number of rows, since dead ones keep their places."""
        return len(self.segment.part)

    def vectors(self) -> Iterator[np.ndarray]:
        """See `Piece.vectors`."""
        return _all_rows(self.segment).vectors()

    def attributes(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """See `Piece.attributes`."""
        chosen, start = self.chosen, 0
        for batch in _all_rows(self.segment).attributes(self.schema):
            for first in range(0, len(batch), _REWRITTEN_ROWS):
                block = batch.slice(first, _REWRITTEN_ROWS)
                stop = start + len(block)
                vectors = self.segment.part.matrix[start:stop]
                mask = np.ones(len(block), bool) if chosen is None else chosen[start:stop]
                start = stop
                yield self._block(block, vectors, mask, schema)

    def _block(
        self, block: pa.RecordBatch, vectors: np.ndarray, chosen: np.ndarray, schema: pa.Schema
    ) -> pa.RecordBatch:
        if not chosen.any():
            return fitted(block, schema)
        rows, others = block, block.slice(0, 0)
        if not chosen.all():
            rows, others = block.filter(pa.array(chosen)), block.filter(pa.array(~chosen))
            vectors = vectors[chosen]
        columns = [
            vector_array(vectors) if name == VECTOR else rows[name] for name in self.schema.names
        ]
        new = fitted(rewritten(pa.record_batch(columns, schema=self.schema), self.rewrite), schema)
        if not len(others):
            return new
        both = pa.concat_batches([new, fitted(others, schema)])
        order = np.concatenate([np.flatnonzero(chosen), np.flatnonzero(~chosen)])
        return both.take(pa.array(np.argsort(order)))


def rewritten(rows: pa.RecordBatch, rewrite: Rewrite) -> pa.RecordBatch:
    """The rows with the columns that `rewrite` returns for them, and their others."""
    new = rewrite(rows)
    values = dict(zip(rows.schema.names, rows.columns, strict=True))
    return pa.record_batch(values | dict(zip(new.schema.names, new.columns, strict=True)))


def _all_rows(segment: Segment) -> Segment:
    """A segment with its dead rows."""
    return replace(segment, part=replace(segment.part, live=None))


def mapped(vectors: Path, attributes: Path) -> RowView:
    """Memory-maps the two files of a segment, with the columns they were written with."""
    table = pa.ipc.open_file(pa.memory_map(str(attributes))).read_all()
    # Earlier versions wrote structs with undefined fields below nulls.
    columns = [
        pa.chunked_array(
            [with_nulls_pushed_down(chunk).cast(column.type) for chunk in column.chunks],
            column.type,
        )
        for column in table.columns
    ]
    table = pa.table(columns, schema=table.schema)
    return RowView(np.asarray(np.load(vectors, mmap_mode="r")), table)


def mapped_codes(path: Path) -> QuantisedVectors:
    """Memory-maps the file that `write_codes` wrote."""
    arrays = []
    with path.open("rb") as file:
        for _ in range(4):
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            arrays.append(np.memmap(path, dtype, "r", file.tell(), shape).view(np.ndarray))
            file.seek(arrays[-1].nbytes, os.SEEK_CUR)
    return QuantisedVectors(*arrays)


def fitted(columns: _Columns, schema: pa.Schema) -> _Columns:
    """Selects the columns of `schema` except the vector; missing ones are null."""
    schema = without_vector(schema)
    names = set(columns.schema.names)
    arrays = [
        columns.column(field.name) if field.name in names else pa.nulls(len(columns), field.type)
        for field in schema
    ]
    return type(columns).from_arrays(arrays, schema=schema)


def write_vectors(path: Path, pieces: Sequence[Piece], dim: int) -> None:
    """Writes float32 (rows, dim) as an .npy file."""
    shape = (sum(piece.live_rows for piece in pieces), dim)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            for block in piece.vectors():
                file.write(np.ascontiguousarray(block, dtype="<f4").data)


def write_codes(path: Path, segment: Segment) -> None:
    """Writes codes of a segment's rows, dead ones included: the fields of `QuantisedVectors`.

    The file has one .npy array after another.
    """
    matrix = segment.part.matrix
    mean = mean_of(matrix[:: -(-len(matrix) // _MEAN_ROWS)])
    scales, errors = [], []
    with path.open("wb") as file:
        header = {"descr": "|i1", "fortran_order": False, "shape": matrix.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in _all_rows(segment).vectors():
            codes, scale, error = quantise(block, mean)
            file.write(codes.data)
            scales.append(scale)
            errors.append(error)
        for array in (np.concatenate(scales), np.concatenate(errors), mean):
            np.lib.format.write_array(file, array.astype("<f4"), version=(1, 0))


def write_attributes(path: Path, pieces: Sequence[Piece], schema: pa.Schema) -> None:
    """Writes the columns of `schema` except the vector as an Arrow file."""
    schema = without_vector(schema)
    batches = (batch for piece in pieces for batch in piece.attributes(schema))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for block in _blocks(batches):
            writer.write_batch(block)


def _blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Regroups rows into batches of about `_BLOCK_BYTES`; a larger row gets its own batch."""
    pending: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        step = max(1, len(batch) * _BLOCK_BYTES // max(1, batch.nbytes))
        for start in range(0, len(batch), step):
            piece = batch.slice(start, step)
            if pending and size + piece.nbytes > _BLOCK_BYTES:
                yield pa.concat_batches(pending)
                pending, size = [], 0
            pending.append(piece)
            size += piece.nbytes
    if pending:
        yield pa.concat_batches(pending)
