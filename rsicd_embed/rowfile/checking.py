"""Looking through a file of rows before any of it is used: are these rows a store would take?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.errors import DatasetError
from rsicd_embed.records import VECTOR, require_unit_vectors
from rsicd_embed.rowfile.reading import RowFile


@dataclass(frozen=True)
class CheckedRows:
    """The rows of a file that count, each id once.

    Attributes:
        file: where they are.
        ids: of the rows that count, large_string.
        kept: bool (rows of the file,), which of its rows count.
        repeated: row (from 1) and id of those that do not because a later one has the same id.
        seconds: what looking at them took.
    """

    file: RowFile
    ids: pa.Array
    kept: np.ndarray
    repeated: tuple[tuple[int, str], ...]
    seconds: float

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows that count, in their order."""
        start = 0
        for batch in self.file.batches():
            kept = self.kept[start : start + len(batch)]
            start += len(batch)
            yield batch if kept.all() else batch.filter(pa.array(kept))


def check(
    file: RowFile,
    split: str | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> CheckedRows:
    """Reads all of a file; of rows with the same id the last one counts.

    Args:
        file: see `RowFile.open`.
        split: only rows whose column `split` says so.
        progress: called with the number of rows just looked at.

    Raises:
        DatasetError: the file is damaged, a row has no id, vectors are not of the length that the
            file states, or no row is of that split.
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
    kept = _last_of_each(column)
    repeated = np.flatnonzero(~kept)
    told = zip((repeated + 1).tolist(), column.take(pa.array(repeated)).to_pylist(), strict=True)
    if split is not None:
        kept &= _of_split(file, pa.chunked_array(splits, pa.large_string()), split)
    chosen = column if kept.all() else column.filter(pa.array(kept))
    return CheckedRows(file, chosen, kept, tuple(told), time.perf_counter() - started)


def _require_columns(file: RowFile, split: str | None) -> None:
    for name in ("id", *([] if split is None else ["split"])):
        kind = file.schema.field(name).type if name in file.schema.names else None
        if kind is None or not (pt.is_string(kind) or pt.is_large_string(kind)):
            raise DatasetError(
                f"{file.path}: expected text in column {name!r}, found {kind or 'no such column'}"
            )
    kind = file.schema.field(VECTOR).type
    listed = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    if not listed or not pt.is_floating(kind.value_type):
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
            f"{file.path}: expected vectors of length {dim}, as it says itself, found {wrong}; "
            "export it again"
        )
    values = column.flatten().to_numpy(zero_copy_only=False)
    require_unit_vectors(values.reshape(len(batch), dim), dim, what=str(file.path), first=start + 1)


def _last_of_each(ids: pa.Array) -> np.ndarray:
    """bool (n,): whether no later row has the same id."""
    codes = ids.dictionary_encode().indices.to_numpy()
    _, last = np.unique(codes[::-1], return_index=True)
    kept = np.zeros(len(codes), dtype=bool)
    kept[len(codes) - 1 - last] = True
    return kept


def _of_split(file: RowFile, splits: pa.ChunkedArray, split: str) -> np.ndarray:
    chosen: np.ndarray = pc.equal(splits, split).fill_null(False).to_numpy()
    if not chosen.any():
        found = sorted(one or "none" for one in splits.unique().to_pylist())
        raise DatasetError(
            f"{file.path}: expected rows of the split {split!r}, found {', '.join(found) or 'none'}"
        )
    return chosen
