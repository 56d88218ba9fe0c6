"""Validation of all rows of a file before any of them is used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.errors import DatasetError
from rsicd_embed.records import VECTOR, is_number_list, require_unit_vectors
from rsicd_embed.rowfile.row_file import RowFile


@dataclass(frozen=True)
class CheckedRows:
    """The valid rows of a file, each id once.

    Attributes:
        file: the file.
        ids: ids of the selected rows, large_string.
        selected: bool (rows of the file,), whether each row is selected.
        repeated: row number (from 1) and id of rows superseded by a later row with the same id.
        seconds: duration of the validation.
    """

    file: RowFile
    ids: pa.Array
    selected: np.ndarray
    repeated: tuple[tuple[int, str], ...]
    seconds: float

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields the selected rows in order."""
        start = 0
        for batch in self.file.batches():
            mask = self.selected[start : start + len(batch)]
            start += len(batch)
            yield batch if mask.all() else batch.filter(pa.array(mask))


def check(
    file: RowFile,
    split: str | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> CheckedRows:
    """Validates all rows of a file; if an id is repeated, its last row is selected.

    Args:
        file: the file.
        split: only select rows with this value in the column `split`.
        progress: called with the number of rows just read.

    Raises:
        DatasetError: the file is damaged, a row has no id, a vector's length differs from the
            metadata, or no row has that split.
        SchemaError: a vector is not finite or not of unit norm.
    """
    started = time.perf_counter()
    _require_columns(file, split)
    ids, splits, start = [], [], 0
    for batch in file.batches():
        ids.append(_ids(file, batch, start))
        _require_vectors(file, batch, start)
        if split is not None:
            splits.append(batch["split"].cast(pa.large_string()))
        start += len(batch)
        progress(len(batch))
    column = pa.chunked_array(ids, pa.large_string()).combine_chunks()
    selected = _last_of_each(column)
    superseded = np.flatnonzero(~selected)
    superseded_ids = column.take(pa.array(superseded)).to_pylist()
    repeated = tuple(zip((superseded + 1).tolist(), superseded_ids, strict=True))
    if split is not None:
        selected &= _of_split(file, pa.chunked_array(splits, pa.large_string()), split)
    selected_ids = column if selected.all() else column.filter(pa.array(selected))
    return CheckedRows(file, selected_ids, selected, repeated, time.perf_counter() - started)


def _require_columns(file: RowFile, split: str | None) -> None:
    for name in ("id", *([] if split is None else ["split"])):
        kind = file.schema.field(name).type if name in file.schema.names else None
        if kind is None or not (pt.is_string(kind) or pt.is_large_string(kind)):
            raise DatasetError(
                f"{file.path}: expected text in column {name!r}, found {kind or 'no such column'}"
            )
    kind = file.schema.field(VECTOR).type
    if not (is_number_list(kind) and pt.is_floating(kind.value_type)):
        raise DatasetError(
            f"{file.path}: expected vectors as lists of {file.provenance.dim} float32, found {kind}"
        )


def _ids(file: RowFile, batch: pa.RecordBatch, start: int) -> pa.Array:
    _require_values(file, batch, "id", start)
    return batch["id"].cast(pa.large_string())


def _require_values(file: RowFile, batch: pa.RecordBatch, name: str, start: int) -> None:
    if batch[name].null_count:
        row = start + 1 + pc.index(batch[name].is_null(), True).as_py()
        raise DatasetError(f"{file.path}: row {row} has no {name}")


def _require_vectors(file: RowFile, batch: pa.RecordBatch, start: int) -> None:
    _require_values(file, batch, VECTOR, start)
    column, dim = batch[VECTOR], file.provenance.dim
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    wrong = next((length for length in lengths if length != dim), None)
    if wrong is not None:
        raise DatasetError(
            f"{file.path}: expected vectors of length {dim}, as its metadata says, found {wrong}; "
            "export it again"
        )
    values = column.flatten().to_numpy(zero_copy_only=False)
    require_unit_vectors(
        values.reshape(len(batch), dim), dim, source=str(file.path), first=start + 1
    )


def _last_of_each(ids: pa.Array) -> np.ndarray:
    """Whether each row is the last one with its id, as bool (n,)."""
    codes = ids.dictionary_encode().indices.to_numpy()
    _, last = np.unique(codes[::-1], return_index=True)
    is_last = np.zeros(len(codes), dtype=bool)
    is_last[len(codes) - 1 - last] = True
    return is_last


def _of_split(file: RowFile, splits: pa.ChunkedArray, split: str) -> np.ndarray:
    mask: np.ndarray = pc.equal(splits, split).fill_null(False).to_numpy()
    if not mask.any():
        names = sorted(name or "none" for name in splits.unique().to_pylist())
        raise DatasetError(
            f"{file.path}: expected rows of the split {split!r}, found {', '.join(names) or 'none'}"
        )
    return mask
