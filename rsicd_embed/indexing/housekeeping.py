"""Deleting rows by a condition, and copying a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from rsicd_embed.arguments import require_items
from rsicd_embed.errors import ArgumentError, StoreError
from rsicd_embed.indexing.ingest import Progress
from rsicd_embed.records import any_of, with_ids
from rsicd_embed.stores.base import (
    ConditionalDeleter,
    VectorStore,
    open_store,
    require_store,
    require_versioned,
)


@dataclass(frozen=True)
class Deletion:
    """Rows that are deleted, or would be.

    Attributes:
        ids: their ids, sorted.
        unknown: ids that were given but are not in the store.
    """

    ids: tuple[str, ...]
    unknown: tuple[str, ...]


def delete_rows(
    store: VectorStore,
    *,
    ids: Sequence[str] = (),
    where: str | None = None,
    dry_run: bool = False,
) -> Deletion:
    """Deletes rows by id and by condition, in one step.

    Args:
        store: the store.
        ids: ids of rows to delete.
        where: SQL condition; rows that match it when the store is locked are deleted as well. In a
            store that is no `ConditionalDeleter`, what others write at that moment may be missed.
        dry_run: only report the rows.

    Raises:
        FilterError: `where` is invalid.
        ArgumentError: neither ids nor a condition, or a single id.
    """
    require_store(store)
    require_items(ids, "ids", str)
    if not ids and where is None:
        raise ArgumentError("expected ids or a condition of rows to delete, found neither")
    given = list(dict.fromkeys(ids))
    selected = [where] if where is not None else []
    condition = any_of([*selected, *([with_ids(given)] if given else [])])
    if isinstance(store, ConditionalDeleter) and not dry_run:
        chosen = store.delete_where(condition)
    else:
        with store.scan(["id"], condition) as reader:
            chosen = reader.read_all()["id"].to_pylist()
        if chosen and not dry_run:
            store.delete(chosen)
    deleted = set(chosen)
    return Deletion(tuple(sorted(chosen)), tuple(id_ for id_ in given if id_ not in deleted))


def copy_store(
    source: VectorStore, target: str, progress: Progress = lambda rows: None
) -> VectorStore:
    """Copies all rows of a store to a new one of any scheme, in one step and bounded memory.

    Args:
        source: the store; its tags and earlier states are not copied.
        target: URI that no store with rows exists at.
        progress: called with the number of rows read since the last call.

    Returns:
        The new store, indexed and open.

    Raises:
        StoreError: there are rows at `target` already, or it cannot be written.
        FingerprintError: the store at `target` was made by another model.
    """
    require_store(source)
    copy = require_versioned(open_store(target, source.provenance))

    def require_empty() -> None:
        if len(copy):
            raise StoreError(f"{target} exists and has {len(copy)} rows; name a new store")

    def batches() -> Iterator[pa.RecordBatch]:
        require_empty()  # again while the copy is locked, so that no write is lost
        with source.scan() as reader:
            for batch in reader:
                if len(batch):
                    progress(len(batch))
                    yield batch

    try:
        require_empty()
        if len(source):
            copy.replace(batches(), source.provenance)
            copy.optimize()
    except BaseException:
        copy.close()
        raise
    return copy
