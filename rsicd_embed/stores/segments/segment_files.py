"""A segment's two files: its vectors as .npy, and its other columns as Arrow record batches.

They are written, and copied when segments are merged, a block at a time: the memory that takes
does not grow with the store.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa

from rsicd_embed.records import VECTOR, vector_matrix
from rsicd_embed.stores.columns import with_nulls_pushed_down
from rsicd_embed.stores.quantised import QuantisedVectors, mean_of, quantise
from rsicd_embed.stores.row_view import RowView, without_vector
from rsicd_embed.stores.segments.segment_manifest import SegmentEntry

_BLOCK_BYTES = 8 * 2**20
_MEAN_OF = 4096  # rows are enough for a mean to centre on
_Columns = TypeVar("_Columns", pa.RecordBatch, pa.Table)


class Piece(Protocol):
    """Rows that go into a new segment."""

    @property
    def live_rows(self) -> int:
        """How many."""
        ...

    def vectors(self) -> Iterator[np.ndarray]:
        """float32 (n, dim) of these rows, some at a time."""
        ...

    def attributes(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Their other columns, fitted to `schema`."""
        ...


@dataclass(frozen=True)
class Fresh:
    """Rows that no file has yet: a table of one chunk or more."""

    table: pa.Table

    @property
    def live_rows(self) -> int:
        """How many rows."""
        return int(self.table.num_rows)

    def vectors(self) -> Iterator[np.ndarray]:
        """See `Piece.vectors`."""
        return (vector_matrix(chunk) for chunk in self.table[VECTOR].chunks)

    def attributes(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """See `Piece.attributes`."""
        return (fitted(one, schema) for one in self.table.to_batches())


@dataclass(frozen=True)
class Segment:
    """Rows that were written together.

    Attributes:
        folder: where its files are.
        entry: what the manifest says of it.
        part: its rows, mapped; which of them are live may be newer than `entry`.
    """

    folder: Path
    entry: SegmentEntry
    part: RowView

    @property
    def live_rows(self) -> int:
        """How many rows are live."""
        return self.part.live_rows

    # Both read the files: pages of a map, once touched, stay resident.

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
        start = 0
        with pa.OSFile(str(self.folder / self.entry.attributes.name)) as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                live = self.part.live
                kept = None if live is None else pa.array(live[start : start + len(batch)])
                start += len(batch)
                yield fitted(batch if kept is None else batch.filter(kept), schema)


def mapped(vectors: Path, attributes: Path) -> RowView:
    """The rows of two files, with the columns that they were written with; nothing is read yet."""
    table = pa.ipc.open_file(pa.memory_map(str(attributes))).read_all()
    # Earlier versions wrote objects as they came.
    columns = [
        pa.chunked_array(
            [with_nulls_pushed_down(one).cast(column.type) for one in column.chunks], column.type
        )
        for column in table.columns
    ]
    table = pa.table(columns, schema=table.schema)
    return RowView(np.asarray(np.load(vectors, mmap_mode="r")), table)


def mapped_codes(path: Path) -> QuantisedVectors:
    """What `write_codes` wrote; nothing is read yet."""
    arrays = []
    with path.open("rb") as file:
        for _ in range(4):
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            arrays.append(np.memmap(path, dtype, "r", file.tell(), shape).view(np.ndarray))
            file.seek(arrays[-1].nbytes, os.SEEK_CUR)
    return QuantisedVectors(*arrays)


def fitted(columns: _Columns, schema: pa.Schema) -> _Columns:
    """The columns of `schema` but the vector, null where there are none of that name."""
    schema = without_vector(schema)
    held = set(columns.schema.names)
    arrays = [
        columns.column(one.name) if one.name in held else pa.nulls(len(columns), one.type)
        for one in schema
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
    """Writes int8 codes of all rows of a segment, dead ones included, as four .npy arrays.

    They are the fields of `QuantisedVectors`, in their order.
    """
    matrix = segment.part.matrix
    mean = mean_of(matrix[:: -(-len(matrix) // _MEAN_OF)])
    scales, errors = [], []
    with path.open("wb") as file:
        header = {"descr": "|i1", "fortran_order": False, "shape": matrix.shape}
        np.lib.format.write_array_header_1_0(file, header)
        everything = replace(segment, part=replace(segment.part, live=None))
        for block in everything.vectors():
            codes, scale, error = quantise(block, mean)
            file.write(codes.data)
            scales.append(scale)
            errors.append(error)
        for array in (np.concatenate(scales), np.concatenate(errors), mean):
            np.lib.format.write_array(file, array.astype("<f4"), version=(1, 0))


def write_attributes(path: Path, pieces: Sequence[Piece], schema: pa.Schema) -> None:
    """Writes the other columns of `schema` as an Arrow file."""
    schema = without_vector(schema)
    batches = (batch for piece in pieces for batch in piece.attributes(schema))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for block in _blocks(batches):
            writer.write_batch(block)


def _blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about `_BLOCK_BYTES`, or of one row that is larger."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        step = max(1, len(batch) * _BLOCK_BYTES // max(1, batch.nbytes))
        for start in range(0, len(batch), step):
            one = batch.slice(start, step)
            if held and size + one.nbytes > _BLOCK_BYTES:
                yield pa.concat_batches(held)
                held, size = [], 0
            held.append(one)
            size += one.nbytes
    if held:
        yield pa.concat_batches(held)
