"""Re-embedding of a store's images with another model, with an atomic switch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsicd_embed.datasets.base import Example, Skipped, Source
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import ImageError, StoreError
from rsicd_embed.files import cache_folder, expanded
from rsicd_embed.indexing.ingest import Progress, Summary, ingest
from rsicd_embed.indexing.reconcile import is_same
from rsicd_embed.records import FIXED_COLUMNS
from rsicd_embed.stores.base import VectorStore, Versioned
from rsicd_embed.stores.uri import StoreURI

_TAG = "before-reembed"
_MOST_ROUNDS = 10


@dataclass(frozen=True)
class Reembedded:
    """Result of re-embedding a store.

    Attributes:
        rows: number of rows in the store.
        tag: tag of the previous state.
        ingest: summary of the embedding; `embedded` excludes images from an interrupted run.
    """

    rows: int
    tag: str
    ingest: Summary

    def as_json(self) -> dict[str, Any]:
        """The JSON document for `--json`."""
        return {"rows": self.rows, "tag": self.tag, **self.ingest.as_json()}


class _ChangedError(Exception):
    """The store changed while images were embedded."""


def reembed(
    store: Versioned,
    embedder: Embedder,
    staging: VectorStore,
    *,
    drop_unreadable: bool = False,
    progress: Progress = lambda done: None,
) -> Reembedded:
    """Embeds a store's images, read from their uris, with another model, and switches to it.

    Readers see the old rows until the switch. New vectors are kept in `staging`, so that an
    interrupted run continues where it stopped.

    Args:
        store: the store to re-embed.
        embedder: the new model.
        staging: a store of the new model, empty or from an interrupted run.
        drop_unreadable: remove rows whose image cannot be read.
        progress: called with the number of images processed since the last call.

    Raises:
        ImageError: an image cannot be read, and `drop_unreadable` is False; nothing was switched.
        StoreError: the store keeps changing.
    """
    for _ in range(_MOST_ROUNDS):
        source, hashes = _source(store), _hashes(store)
        _drop_other_columns(staging, source.schema)
        staging.delete(_ids(staging) - {example.id for example in source.examples})
        summary = ingest([source], embedder, staging, progress=progress)
        if summary.skipped and not drop_unreadable:
            raise _unreadable(summary.skipped)
        tag = _free_tag(store)
        store.tag(tag)
        try:
            rows = store.replace(
                _unless_changed(store, source, hashes, staging), provenance(embedder)
            )
        except _ChangedError:
            store.untag(tag)
            continue
        except BaseException:
            store.untag(tag)
            raise
        store.optimize()
        return Reembedded(rows, tag, summary)
    raise StoreError(
        f"{store.uri} kept changing while its images were embedded; "
        "stop other writers and run the same command again, which continues from here"
    )


def staging_folder(store_uri: str, embedder: Embedder) -> Path:
    """The folder for the staging store of a store and a new model; always the same for both."""
    uri = StoreURI.parse(store_uri)
    location = uri.location
    if "://" not in location:
        location = str(expanded(location).absolute())
    key = f"{uri.scheme}:{location}#{uri.table} {embedder.fingerprint}"
    return cache_folder() / "reembed" / hashlib.sha256(key.encode()).hexdigest()[:16]


def _source(store: VectorStore) -> Source:
    """The rows of a store as a source to ingest."""
    attributes = [name for name in store.schema.names if name not in FIXED_COLUMNS]
    columns = ["id", "uri", *attributes]
    examples = [
        Example(id_, uri or "", dict(zip(attributes, row, strict=True)))
        for batch in store.scan(columns)
        for id_, uri, *row in zip(*(_values(batch[name]) for name in columns), strict=True)
    ]
    examples.sort(key=lambda example: example.id)
    return Source(Path(), tuple(examples), pa.schema([store.schema.field(n) for n in attributes]))


def _ids(store: VectorStore) -> set[str]:
    return {id_ for batch in store.scan(["id"]) for id_ in batch["id"].to_pylist()}


def _hashes(store: VectorStore) -> dict[str, str | None]:
    """The SHA-256 of each row's image, by id."""
    rows = store.scan(["id", "sha256"]).read_all()
    return dict(zip(rows["id"].to_pylist(), rows["sha256"].to_pylist(), strict=True))


def _drop_other_columns(staging: VectorStore, attributes: pa.Schema | None) -> None:
    """Drops the columns that the store lost, or changed, after an interrupted run."""
    kept = {(field.name, field.type) for field in attributes or ()}
    others = [
        field.name
        for field in staging.schema
        if field.name not in FIXED_COLUMNS and (field.name, field.type) not in kept
    ]
    if others:
        staging.drop_columns(others)


def _unless_changed(
    store: VectorStore, source: Source, hashes: dict[str, str | None], staging: VectorStore
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of `staging`; read while `store` is locked, so that no write is lost."""
    if not _is_unchanged(source, _source(store)) or _hashes(store) != hashes:
        raise _ChangedError
    yield from staging.scan()


def _is_unchanged(before: Source, now: Source) -> bool:
    """Whether two sources have the same rows, in which NaN equals NaN."""
    if (before.schema, len(before.examples)) != (now.schema, len(now.examples)):
        return False
    pairs = zip(before.examples, now.examples, strict=True)
    return all(
        (old.id, old.uri) == (new.id, new.uri) and is_same(old.attributes, new.attributes)
        for old, new in pairs
    )


def _free_tag(store: Versioned) -> str:
    existing, number = store.tags(), 1
    while (tag := _TAG if number == 1 else f"{_TAG}-{number}") in existing:
        number += 1
    return tag


def _unreadable(skipped: list[Skipped]) -> ImageError:
    first = skipped[0]
    return ImageError(
        f"{len(skipped)} images of the store cannot be read, the first {first.uri}: "
        f"{first.reason}; restore them, or drop their rows with --drop-unreadable. "
        "Nothing was switched, and the next run continues from here"
    )


def _values(column: pa.Array) -> list[Any]:
    """Converts a column to Python values, or to Arrow scalars if Python lacks such times."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        return [value if value.is_valid else None for value in column]
