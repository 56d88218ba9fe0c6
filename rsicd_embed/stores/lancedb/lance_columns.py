"""Writing columns of a LanceDB table in place, so that rows and the vector index stay.

LanceDB's merge replaces only the files of the given columns if it finds the rows by a scalar index
on their ids. Without one it moves whole rows to new files, and the vector index loses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa

from rsicd_embed.stores.lancedb._lazy_lancedb import lancedb
from rsicd_embed.stores.lancedb.lance_searcher import run
from rsicd_embed.stores.lancedb.lance_table import UNFINISHED, LanceLocation

_ID_INDEX = "rsicd_embed_id"  # exists only during a write
_FEW_ROWS = 100  # building that index would take longer than moving so few rows
# Kinds of scalar index without settings of their own, which LanceDB would lose with the old values.
_RENEWED = ("BTree", "Bitmap", "LabelList")


def column_values(
    batches: Iterable[pa.RecordBatch],
    rewrite: Callable[[pa.RecordBatch], pa.RecordBatch],
    columns: pa.Schema,
) -> pa.Table:
    """Computes the values of columns, with the ids of their rows.

    Batches in which nothing changes are left out.

    Args:
        batches: all rows, with all columns.
        rewrite: see `AttributeWriter.rewrite_attributes`.
        columns: names and types of the columns.
    """
    schema = pa.schema([("id", pa.string()), *columns])
    changed = [schema.empty_table()]
    for batch in filter(len, batches):
        values = rewrite(batch)
        if not all(_has(batch, field, values[field.name]) for field in columns):
            changed.append(pa.table([batch["id"], *values.columns], schema))
    return pa.concat_tables(changed)


def write_columns(location: LanceLocation, table: Any, values: pa.Table) -> None:
    """Writes columns of some rows; other rows keep theirs, or have nulls in a new column.

    If another program writes at the same time, LanceDB merges the two changes.

    Args:
        location: the location of the table.
        table: the table, at its newest version.
        values: `id`, each at most once, and the columns, which are added if they are missing.
    """
    added = [field for field in values.schema if field.name not in table.schema.names]
    written = set(values.schema.names)
    outdated = [
        index
        for index in table.list_indices()
        if index.index_type in _RENEWED and written & set(index.columns) and index.name != _ID_INDEX
    ]
    if len(values) > _FEW_ROWS:
        table.create_index("id", config=lancedb.index.BTree(), name=_ID_INDEX, replace=True)
    try:
        if len(values) and len(added) == len(written) - 1:
            _write_new(location, table, values)
        else:
            if added:
                table.add_columns(pa.schema(added))
            with _undone_by_dropping(table, [field.name for field in added]):
                if len(values):
                    run(_merge(location, values))
    finally:
        table.checkout_latest()
        if len(values) > _FEW_ROWS:
            table.drop_index(_ID_INDEX)
    for index in outdated:
        config = getattr(lancedb.index, index.index_type)()
        table.create_index(index.columns[0], config=config, name=index.name, replace=True)


def _write_new(location: LanceLocation, table: Any, values: pa.Table) -> None:
    """Adds columns with their values in one visible step: readers leave out unfinished ones."""
    _, *names = values.schema.names
    unfinished = [f"{UNFINISHED}{name}" for name in names]
    if left := [name for name in unfinished if name in table.schema.names]:
        table.drop_columns(left)  # by a process that was interrupted
    values = values.rename_columns(["id", *unfinished])
    table.add_columns(pa.schema([values.schema.field(name) for name in unfinished]))
    with _undone_by_dropping(table, unfinished):
        run(_merge(location, values))
        table.checkout_latest()
        pairs = zip(unfinished, names, strict=True)
        table.alter_columns(*({"path": old, "rename": new} for old, new in pairs))


@contextmanager
def _undone_by_dropping(table: Any, names: list[str]) -> Iterator[None]:
    """Drops columns if what follows fails."""
    try:
        yield
    except BaseException:
        if names:
            with suppress(Exception):
                table.checkout_latest()
                table.drop_columns(names)
        raise


async def _merge(location: LanceLocation, values: pa.Table) -> None:
    database = await lancedb.connect_async(location.database)
    table: Any = await database.open_table(location.uri.table)
    schema: pa.Schema = (await table.schema()).remove_metadata()

    async def without_embedding_function() -> pa.Schema:
        return schema

    # LanceDB would embed images for rows without vectors.
    table.schema = without_embedding_function
    await table.merge_insert("id").when_matched_update_all().execute(values)


def _has(batch: pa.RecordBatch, field: pa.Field, values: pa.Array) -> bool:
    """Whether a batch has these values already; a missing column is one of nulls."""
    if field.name in batch.schema.names:
        return bool(batch[field.name].equals(values))
    return bool(values.null_count == len(values))
