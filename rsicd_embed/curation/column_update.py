"""Writing columns of a store's rows while it is locked, in one atomic step and bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.errors import SchemaError
from rsicd_embed.records import FIXED_COLUMNS
from rsicd_embed.stores.base import AttributeWriter, VectorStore, require_versioned
from rsicd_embed.stores.columns import require_column_names

Values = Mapping[str, pa.Array]  # of columns, by name


def require_new_columns(store: VectorStore, columns: pa.Schema, *, overwrite: bool) -> None:
    """Checks, before any work, that columns can be written.

    Raises:
        SchemaError: a column exists, unless `overwrite`, has another type, or an invalid name.
    """
    require_column_names(columns.names)
    for field in columns:
        if field.name in FIXED_COLUMNS:
            raise SchemaError(f"column {field.name!r} cannot be replaced; choose another name")
        if field.name not in store.schema.names:
            continue
        kind = store.schema.field(field.name).type
        if not overwrite:
            raise SchemaError(
                f"column {field.name!r} exists already; choose another name, or replace its "
                "values with --overwrite"
            )
        if kind != field.type:
            raise SchemaError(
                f"column {field.name!r} has the type {kind}, expected {field.type}; choose another "
                "name, or drop it: rsicd-embed store drop-column"
            )


def update_columns(
    store: VectorStore,
    columns: pa.Schema,
    compute: Callable[[pa.RecordBatch], Values],
    where: str | None = None,
) -> int:
    """Computes columns for the rows that match `where`; other rows keep their values.

    Other processes see the values before the update or after it, and cannot write meanwhile; see
    `compute_columns` for values that take long to compute. Tagged states stay as they are. A store
    that is no `AttributeWriter` writes all rows again.

    Args:
        store: the store.
        columns: names and types of the columns.
        compute: returns the columns of the rows to update in a batch, which has all columns of the
            store; called once for each of these rows. Columns that it leaves out stay as they are.
        where: SQL condition that selects rows.

    Returns:
        The number of rows with computed values.

    Raises:
        StoreError: the store has no versions, or cannot be written.
        FilterError: `where` is invalid.
    """
    updated = 0

    def computed(rows: pa.RecordBatch) -> pa.RecordBatch:
        nonlocal updated
        updated += len(rows)
        values = dict(compute(rows))
        arrays = [
            values[field.name].cast(field.type)
            if field.name in values
            else values_before(rows, field)
            for field in columns
        ]
        return pa.record_batch(arrays, columns)

    if not len(store):
        return 0
    if isinstance(store, AttributeWriter):
        store.rewrite_attributes(computed, columns, where)
    else:
        _replace_rows(store, columns, computed, where)
    return updated


def _replace_rows(
    store: VectorStore,
    columns: pa.Schema,
    computed: Callable[[pa.RecordBatch], pa.RecordBatch],
    where: str | None,
) -> None:
    """Writes all rows again, those that match `where` with computed columns."""
    versioned = require_versioned(store)

    def batches() -> Iterator[pa.RecordBatch]:  # read while the store is locked
        with store.scan(["id"], where) as reader:
            chosen = reader.read_all()["id"].combine_chunks()
        with store.scan() as reader:
            for batch in filter(len, reader):
                matches = pc.is_in(batch["id"], chosen)
                rows = batch.filter(matches)
                new = computed(rows) if len(rows) else None
                values = dict(zip(batch.schema.names, batch.columns, strict=True))
                for field in columns:
                    values[field.name] = values_before(batch, field)
                    if new is not None:
                        values[field.name] = pc.replace_with_mask(
                            values[field.name], matches, new[field.name]
                        )
                yield pa.record_batch(values)

    versioned.replace(batches(), store.provenance)
    versioned.optimize()


def values_before(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    """The values of a column before an update; nulls if the store lacks it."""
    known = field.name in batch.schema.names
    return batch[field.name] if known else pa.nulls(len(batch), field.type)
