"""Columns computed from the vectors of a store, while other processes may write to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.curation.column_update import Values, update_columns, values_before
from rsicd_embed.errors import StoreError
from rsicd_embed.records import VECTOR, vector_matrix, with_ids
from rsicd_embed.stores.base import VectorStore
from rsicd_embed.stores.filters import matching

ROWS_PER_WRITE = 200_000  # the store is locked for a few seconds for so many
_FEW = 1000  # rows that are read by their ids; otherwise, reading all rows is faster
_MOST_ROUNDS = 10
_DIGEST = "_digest"  # of a vector; stores have no column of such a name

Settle = Callable[[pa.RecordBatch, Values], Values]


def compute_columns(
    store: VectorStore,
    columns: pa.Schema,
    compute: Callable[[np.ndarray], Values],
    where: str | None = None,
    *,
    settle: Settle = lambda rows, values: values,
    rows_per_write: int = ROWS_PER_WRITE,
) -> int:
    """Computes columns from the vectors of the rows that match `where` at first.

    The store is locked only while values are written, for each part of the rows in one atomic step.
    Nothing that others wrote in between is undone: deleted rows stay deleted, rows that do not
    match any more keep their values, and values are computed again for rows with new vectors.

    Args:
        store: the store.
        columns: names and types of the columns.
        compute: float32 (n, dim) → n values of each column; called without a lock.
        where: SQL condition that selects rows; other rows keep their values.
        settle: returns the values to write, given the newest rows with all columns and what was
            computed from their vectors; called once for each row that is written, under the lock.
        rows_per_write: rows per part.

    Returns:
        The number of rows with computed values.

    Raises:
        StoreError: the store has no versions, cannot be written, or rows keep changing.
        FilterError: `where` is invalid.
    """
    with store.scan(["id"], where) as reader:
        ids = reader.read_all()["id"]
    if not len(ids) and len(store):  # the columns are added all the same
        update_columns(store, columns, lambda rows: {}, where)
    return sum(
        _write_part(store, columns, compute, where, settle, ids[start : start + rows_per_write])
        for start in range(0, len(ids), rows_per_write)
    )


def _write_part(
    store: VectorStore,
    columns: pa.Schema,
    compute: Callable[[np.ndarray], Values],
    where: str | None,
    settle: Settle,
    ids: pa.ChunkedArray,
) -> int:
    """Computes and writes the values of some rows; returns the number of rows written."""
    written, pending = 0, set(ids.to_pylist())
    changed: list[str] = []

    def newest(rows: pa.RecordBatch) -> Values:
        """Values for rows of the locked store."""
        nonlocal written
        chosen = _among(rows["id"], pending)
        if where is not None and pc.any(chosen).as_py():
            attributes = pa.Table.from_batches([rows]).drop_columns([VECTOR])
            chosen = pc.and_(chosen, pa.array(matching(attributes, where)))
        ours = rows.filter(chosen)
        if not len(ours):
            return {}
        places = pa.array(map(places_of.get, ours["id"].to_pylist()), pa.int64())
        now = pa.array(_digests(vector_matrix(ours[VECTOR])))
        same = pc.fill_null(pc.equal(computed[_DIGEST].take(places), now), False)
        changed.extend(ours["id"].filter(pc.invert(same)).to_pylist())
        chosen = pc.replace_with_mask(chosen, chosen, same)
        if not (count := pc.sum(same).as_py()):
            return {}
        written += count
        ready = computed.take(places.filter(same))
        values = settle(ours.filter(same), {name: ready[name] for name in columns.names})
        return {
            field.name: pc.replace_with_mask(
                values_before(rows, field), chosen, values[field.name].cast(field.type)
            )
            for field in columns
        }

    for _ in range(_MOST_ROUNDS):
        computed = _computed(store, columns, compute, pending)
        places_of = {id_: place for place, id_ in enumerate(computed["id"].to_pylist())}
        update_columns(store, columns, newest, _condition(pending))
        if not changed:
            return written
        pending, changed = set(changed), []
    raise StoreError(
        f"{store.uri}: rows such as {min(pending)!r} kept changing while values were computed "
        "from their vectors; stop other writers and run the same command again"
    )


def _computed(
    store: VectorStore,
    columns: pa.Schema,
    compute: Callable[[np.ndarray], Values],
    ids: set[str],
) -> pa.RecordBatch:
    """The values of the rows that still exist, with their ids and digests of their vectors."""
    schema = pa.schema([("id", pa.string()), (_DIGEST, pa.uint64()), *columns])
    batches = [schema.empty_table()]
    with store.scan(["id", VECTOR], _condition(ids)) as reader:
        for batch in filter(len, (batch.filter(_among(batch["id"], ids)) for batch in reader)):
            vectors = vector_matrix(batch[VECTOR])
            values = compute(vectors)
            arrays = [values[field.name].cast(field.type) for field in columns]
            batches.append(pa.table([batch["id"], pa.array(_digests(vectors)), *arrays], schema))
    return pa.concat_tables(batches).combine_chunks().to_batches()[0]


def _condition(ids: set[str]) -> str | None:
    """The condition to read rows by; None to read all rows."""
    return with_ids(sorted(ids)) if len(ids) <= _FEW else None


def _among(column: pa.StringArray, ids: set[str]) -> pa.BooleanArray:
    """Whether each id is one of these; Arrow would hash all of these for each batch."""
    return pa.array([id_ in ids for id_ in column.to_pylist()], pa.bool_())


def _digests(vectors: np.ndarray) -> np.ndarray:
    """uint64 (n,): hashes of float32 (n, dim) vectors."""
    words = np.ascontiguousarray(vectors, np.float32).view(np.uint32).astype(np.uint64)
    factors = np.random.default_rng(0).integers(2**63, size=words.shape[1], dtype=np.uint64)
    digests: np.ndarray = words @ (2 * factors + 1)
    return digests
