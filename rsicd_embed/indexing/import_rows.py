"""Import of files with ready vectors into a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed import rowfile
from rsicd_embed.arguments import require_items
from rsicd_embed.datasets.base import Skipped
from rsicd_embed.errors import DatasetError, FingerprintError, ImageError, StoreNotFoundError
from rsicd_embed.indexing import shards
from rsicd_embed.indexing.ingest import Progress, Summary
from rsicd_embed.indexing.reconcile import corrected_columns, merge_rows, stored_rows
from rsicd_embed.indexing.stages import Stages
from rsicd_embed.records import Provenance, corrected_name, differences
from rsicd_embed.rowfile import CheckedRows, RowFile
from rsicd_embed.stores.base import VectorStore, open_store

# Limits of one upsert.
_STEP_ROWS = 65_536
_STEP_BYTES = 1 << 27

# From the name of a phase and its number of rows to a context with its progress callback.
Phase = Callable[[str, int], AbstractContextManager[Progress]]


def silent(name: str, rows: int) -> AbstractContextManager[Progress]:
    """A phase without a progress bar."""
    return nullcontext(lambda rows: None)


def import_rows(
    paths: Sequence[str | Path],
    store_uri: str,
    *,
    split: str | None = None,
    strict: bool = False,
    phase: Phase = silent,
) -> Summary:
    """Imports Parquet files written by `export_rows` or `rsicd-embed embed` into a store.

    Vectors are stored unchanged, and the model is not needed. The store is created if it does not
    exist. Nothing is written unless all files are intact and compatible with each other and with
    the store.

    Args:
        paths: the files, or folders of all parts of a job; no two may contain the same id.
        store_uri: URI of a new store, or of one with the same model.
        split: import only rows whose column `split` has this value.
        strict: fail if a file contains an id twice, instead of keeping its last row.
        phase: called with the name of each phase ("check", "import") and its number of rows;
            returns a context manager whose value is called with the number of rows just done.

    Returns:
        A summary with the numbers of imported and unchanged rows.

    Raises:
        DatasetError: a file is missing, damaged or of another kind, or two contain the same id.
        FingerprintError: the files or the store have vectors of different models.
        ImageError: a file contains an id twice, if `strict`.
        StoreError: the store cannot be opened or written, or the rows do not fit it.
        ArgumentError: `paths` is a single path.
    """
    require_items(paths, "paths", (str, Path))
    files = open_files([Path(path) for path in paths])
    with phase("check", sum(file.rows for file in files)) as progress:
        checked = check_rows(files, split, progress)
    with (
        open_store_for(files[0], store_uri) as store,
        phase("import", sum(map(len, checked))) as progress,
    ):
        return write_rows(checked, store, strict=strict, progress=progress)


def open_files(paths: Sequence[Path]) -> list[RowFile]:
    """Opens files written by `export` or `embed`.

    Raises:
        DatasetError: there are no paths, a file is missing or of another kind, or a folder of
            parts is incomplete.
    """
    if not paths:
        raise DatasetError("expected files that export or embed wrote, found none")
    files = []
    for path in chain.from_iterable(shards.row_files(path) or [path] for path in paths):
        file = RowFile.open(path)
        if file is None:
            raise DatasetError(
                f"{path}: expected a Parquet file that export or embed wrote, found "
                f"{rowfile.describe(path)}; images and manifests are for rsicd-embed ingest"
            )
        files.append(file)
    return files


def check_rows(
    files: Sequence[RowFile],
    split: str | None = None,
    progress: Progress = lambda rows: None,
) -> list[CheckedRows]:
    """Checks files that are imported together; see `rowfile.check`.

    Raises:
        DatasetError: a file is damaged, or two contain the same id.
        FingerprintError: the files have vectors of different models.
    """
    for file in files[1:]:
        require_fit(file, files[0].provenance, str(files[0].path))
    checked: list[CheckedRows] = []
    for file in files:
        rows = rowfile.check(file, split, progress)
        for other in checked:
            both = pc.is_in(rows.ids, value_set=other.ids)
            if pc.any(both).as_py():
                id_ = rows.ids.filter(both)[0].as_py()
                raise DatasetError(
                    f"{other.file.path} and {file.path} both have the id {id_!r}; "
                    "import them one after the other, so that the later one replaces it"
                )
        checked.append(rows)
    return checked


def require_fit(file: RowFile, expected: Provenance, owner: str) -> None:
    """Checks that a file's vectors come from the same model as those of `owner`.

    Raises:
        FingerprintError: they come from another model.
    """
    actual = file.provenance
    if (actual.fingerprint, actual.dim) == (expected.fingerprint, expected.dim):
        return
    differing = differences(expected, actual) or f"dim {expected.dim} ≠ {actual.dim}"
    raise FingerprintError(
        f"{file.path} contains vectors of model {actual.model!r}, {owner} those of "
        f"{expected.model!r} ({differing}); use another store, or embed the images with that model"
    )


def open_store_for(file: RowFile, uri: str) -> VectorStore:
    """Opens the store at `uri`, or creates it for the file's model.

    Raises:
        FingerprintError: the store has vectors of another model.
        StoreError: the store cannot be opened; see `open_store`.
    """
    try:
        store = open_store(uri)
    except StoreNotFoundError:
        return open_store(uri, file.provenance)
    try:
        require_fit(file, store.provenance, uri)
    except FingerprintError:
        store.close()
        raise
    return store


def write_rows(
    files: Sequence[CheckedRows],
    store: VectorStore,
    *,
    strict: bool = False,
    progress: Progress = lambda rows: None,
) -> Summary:
    """Upserts the rows of files that are new or differ from the store's.

    Columns that a file lacks keep their values. An interrupted import can be repeated, and
    continues where it stopped.

    Args:
        files: returned by `check_rows`.
        store: a store of the same model; see `open_store_for`.
        strict: fail before writing if a row is superseded by a later one with the same id.
        progress: called with the number of rows processed since the last call.

    Raises:
        ImageError: a row is superseded, if `strict`.
        StoreError: the rows do not fit the store.
    """
    started = time.perf_counter()
    summary, stages = Summary(), Stages()
    for file in files:
        path = file.file.path
        summary.skipped += [
            Skipped(str(path), f"row {row}: a later one has the same id {id_!r}")
            for row, id_ in file.repeated
        ]
    if strict and summary.skipped:
        raise ImageError(f"{summary.skipped[0].uri}: {summary.skipped[0].reason}")
    for file in files:
        require_fit(file.file, store.provenance, store.uri)
        # Columns that do not fit are refused before anything is written.
        store.upsert([pa.RecordBatch.from_pylist([], file.file.schema)])
        known = _known_ids(store)
        steps = _steps(file.batches())
        while True:
            with stages("load"):
                step = next(steps, None)
            if step is None:
                break
            with stages("compare"):
                changed = _changed(store, known, step)
            if changed.num_rows:
                with stages("write"):
                    merge_rows(store, changed.to_batches())
            summary.imported += changed.num_rows
            summary.unchanged += step.num_rows - changed.num_rows
            progress(step.num_rows)
    if summary.imported:
        with stages("index"):
            store.optimize()
    checked_s = sum(file.seconds for file in files)
    summary.seconds = checked_s + time.perf_counter() - started
    summary.stages = {"check": checked_s} | stages.seconds()
    return summary


def _known_ids(store: VectorStore) -> pa.ChunkedArray:
    return pa.chunked_array([batch["id"] for batch in store.scan(["id"])], pa.string())


def _steps(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Groups batches into single-chunk tables within the limits of one upsert."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if group and (rows + len(batch) > _STEP_ROWS or size + batch.nbytes > _STEP_BYTES):
            yield pa.Table.from_batches(group).combine_chunks()
            group, rows, size = [], 0, 0
        group.append(batch)
        rows, size = rows + len(batch), size + batch.nbytes
    if rows:
        yield pa.Table.from_batches(group).combine_chunks()


def _changed(store: VectorStore, known: pa.ChunkedArray, rows: pa.Table) -> pa.Table:
    """Selects rows that are new or differ from the store's."""
    ids = rows["id"].combine_chunks().cast(pa.string())
    present = pc.is_in(ids, value_set=known)
    if not pc.any(present).as_py():
        return rows
    batch, schema = rows.to_batches()[0], store.schema
    names = [name for name in batch.schema.names if name in schema.names]
    corrected = corrected_columns(schema, batch.schema)
    stored = stored_rows(store, ids, [*names, *map(corrected_name, corrected)])
    for name in corrected:
        value = pc.coalesce(stored[corrected_name(name)], _cast(batch[name], pa.string()))
        batch = batch.set_column(batch.schema.names.index(name), name, value)
    stored = stored.select(names)
    cast = pa.RecordBatch.from_arrays(
        [_cast(batch[name], schema.field(name).type) for name in names], names
    )
    differs = ~present.to_numpy(zero_copy_only=False)
    differs[~differs] = differing(cast.filter(present), stored.filter(present))
    for name in batch.schema.names:
        if name not in names:
            differs |= batch[name].is_valid().to_numpy(zero_copy_only=False)
    return pa.Table.from_batches([batch.filter(pa.array(differs))])


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Casts a column if possible; otherwise the store reports the mismatch."""
    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except pa.ArrowException:
        return column


_INTEGERS = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


def differing(rows: pa.RecordBatch, others: pa.RecordBatch) -> np.ndarray:
    """Compares two batches row by row, bit by bit.

    Args:
        rows: n rows.
        others: n rows with the columns of `rows`.

    Returns:
        bool (n,): whether the rows differ in any column; all True if a column's types differ.
    """
    columns = [(rows[name], others[name]) for name in rows.schema.names]
    if any(left.type != right.type for left, right in columns):
        return np.ones(len(rows), dtype=bool)
    pairs = [(_bits(left), _bits(right)) for left, right in columns]
    differs = np.zeros(len(rows), dtype=bool)
    # Whole batches are compared first, then halves of unequal ones, and so on.
    spans = [(0, len(rows))]
    while spans:
        start, stop = spans.pop()
        length = stop - start
        if all(
            left.slice(start, length).equals(right.slice(start, length)) for left, right in pairs
        ):
            continue
        if length == 1:
            differs[start] = True
        else:
            middle = start + length // 2
            spans += [(start, middle), (middle, stop)]
    return differs


def _bits(column: pa.Array) -> pa.Array:
    """Reinterprets floats as integers, so that NaN equals NaN and 0 differs from -0."""
    return column.view(_integers(column.type))


def _integers(kind: pa.DataType) -> pa.DataType:
    if pt.is_floating(kind):
        return _INTEGERS[kind.bit_width]
    if pt.is_struct(kind):
        return pa.struct([field.with_type(_integers(field.type)) for field in kind])
    if pt.is_fixed_size_list(kind):
        return pa.list_(_integers(kind.value_type), kind.list_size)
    if pt.is_list(kind):
        return pa.list_(_integers(kind.value_type))
    return kind
