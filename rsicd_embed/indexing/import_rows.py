"""Import: files of rows with their vectors → a store, as they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed import rowfile
from rsicd_embed.arguments import require_items
from rsicd_embed.datasets.base import Skipped
from rsicd_embed.errors import DatasetError, FingerprintError, ImageError, StoreNotFoundError
from rsicd_embed.indexing.ingest import Progress, Summary
from rsicd_embed.indexing.reconcile import held_rows
from rsicd_embed.indexing.writer import Stages
from rsicd_embed.records import Provenance, differences
from rsicd_embed.rowfile import CheckedRows, RowFile
from rsicd_embed.stores.base import VectorStore, open_store

# What is upserted at once.
_STEP_ROWS = 65_536
_STEP_BYTES = 1 << 27

# From the name of a phase and its number of rows to what reports its progress.
Phase = Callable[[str, int], AbstractContextManager[Progress]]


def _silent(name: str, rows: int) -> AbstractContextManager[Progress]:
    return nullcontext(lambda rows: None)


def import_rows(
    paths: Sequence[str | Path],
    store_uri: str,
    *,
    split: str | None = None,
    strict: bool = False,
    phase: Phase = _silent,
) -> Summary:
    """Brings a store up to date with Parquet files that `export_rows` or `rsicd-embed embed` wrote.

    Their vectors are stored bit by bit, without the model. The store is created if it does not
    exist. Nothing is written unless all files are sound and fit each other and the store.

    Args:
        paths: the files; no two may have the same id.
        store_uri: URI of a store of the same model, or of none yet.
        split: only rows whose column `split` has this value.
        strict: fail if a file has the same id twice, instead of keeping its last row.
        phase: called with the name of each phase ("check", "import") and its number of rows;
            returns a context manager of a function that receives the numbers of rows just done.

    Returns:
        Numbers of imported and unchanged rows, among others.

    Raises:
        DatasetError: a file is missing, damaged or of another kind, or two have the same id.
        FingerprintError: the files or the store have vectors of different models.
        ImageError: a file has the same id twice, if `strict`.
        StoreError: the store cannot be opened or written, or refuses the rows.
        ArgumentError: a single path, which belongs in a list.
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
    """Files that `export` or `embed` wrote.

    Raises:
        DatasetError: there are none, or one is another file, or is not there.
    """
    if not paths:
        raise DatasetError("expected files that export or embed wrote, found none")
    files = []
    for path in paths:
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
    """Looks through files that are to be imported together; see `rowfile.check`.

    Raises:
        DatasetError: a file is damaged, or two of them have the same id.
        FingerprintError: they are of different models.
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
                    "import one after the other, so that the later one replaces it"
                )
        checked.append(rows)
    return checked


def require_fit(file: RowFile, given: Provenance, what: str) -> None:
    """Refuses vectors that are not of the model `given`, which `what` is of.

    Raises:
        FingerprintError: saying what differs.
    """
    made_by = file.provenance
    if (made_by.fingerprint, made_by.dim) == (given.fingerprint, given.dim):
        return
    told = differences(given, made_by) or f"dim {given.dim} ≠ {made_by.dim}"
    raise FingerprintError(
        f"{file.path} holds vectors of model {made_by.model!r}, {what} is of {given.model!r} "
        f"({told}); use another store, or embed the images with that model"
    )


def open_store_for(file: RowFile, uri: str) -> VectorStore:
    """The store at `uri`, made for the file's model where it is absent.

    Raises:
        FingerprintError: it holds another model's vectors.
        StoreError: see `open_store`.
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
    """Brings `store` up to date with files of rows; nothing is embedded.

    Rows that the store has as they are stay untouched. Of one that it has otherwise, columns that
    the file lacks are kept. An interrupted run goes on where it stopped.

    Args:
        files: see `check_rows`.
        store: of the same model, see `open_store_for`.
        strict: a row that is left out for a later one with the same id ends the run at its start.
        progress: called with the number of rows dealt with since the last call.

    Raises:
        ImageError: a row is left out, if `strict`.
        StoreError: the store refuses the rows.
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
                    store.upsert(changed.to_batches())
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
    """Rows in tables of one chunk and of a bounded size, as far as batches allow."""
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
    """Of `rows` those that the store has not, or has otherwise, with what it has beyond them."""
    ids = rows["id"].combine_chunks().cast(pa.string())
    again = pc.is_in(ids, value_set=known)
    if not pc.any(again).as_py():
        return rows
    batch, schema = rows.to_batches()[0], store.schema
    held = held_rows(store, ids, schema.names)
    names = [name for name in batch.schema.names if name in schema.names]
    mine = pa.RecordBatch.from_arrays(
        [_cast(batch[name], schema.field(name).type) for name in names], names
    )
    differs = ~again.to_numpy(zero_copy_only=False)
    differs[~differs] = differing(mine.filter(again), held.select(names).filter(again))
    for name in batch.schema.names:
        if name not in names:
            differs |= batch[name].is_valid().to_numpy(zero_copy_only=False)
    for name in schema.names:
        if name not in names:
            batch = batch.append_column(name, held[name])
    return pa.Table.from_batches([batch.filter(pa.array(differs))])


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column as one of another type, if it can be; which the store tells otherwise."""
    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except pa.ArrowException:
        return column


_INTEGERS = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


def differing(rows: pa.RecordBatch, others: pa.RecordBatch) -> np.ndarray:
    """bool (n,): which of two batches' rows are not the same in each column.

    Args:
        rows: n rows.
        others: n rows with the columns of `rows`; where a type is another, all rows differ.
    """
    columns = [(rows[name], others[name]) for name in rows.schema.names]
    if any(one.type != other.type for one, other in columns):
        return np.ones(len(rows), dtype=bool)
    pairs = [(_bits(one), _bits(other)) for one, other in columns]
    differs = np.zeros(len(rows), dtype=bool)
    # Whole batches are compared first, then halves of those that are not equal, and so on.
    spans = [(0, len(rows))]
    while spans:
        start, stop = spans.pop()
        length = stop - start
        if all(one.slice(start, length).equals(other.slice(start, length)) for one, other in pairs):
            continue
        if length == 1:
            differs[start] = True
        else:
            middle = start + length // 2
            spans += [(start, middle), (middle, stop)]
    return differs


def _bits(column: pa.Array) -> pa.Array:
    """A column with integers in place of floats: NaN equals NaN, and 0 is not -0."""
    return column.view(_integers(column.type))


def _integers(kind: pa.DataType) -> pa.DataType:
    if pt.is_floating(kind):
        return _INTEGERS[kind.bit_width]
    if pt.is_struct(kind):
        return pa.struct([one.with_type(_integers(one.type)) for one in kind])
    if pt.is_fixed_size_list(kind):
        return pa.list_(_integers(kind.value_type), kind.list_size)
    if pt.is_list(kind):
        return pa.list_(_integers(kind.value_type))
    return kind
