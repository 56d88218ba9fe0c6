"""Re-embedding: the same images in a store, seen by another model, switched over in one step."""

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
from rsicd_embed.files import cache_folder
from rsicd_embed.indexing.ingest import Progress, Summary, ingest
from rsicd_embed.records import FIXED_COLUMNS, VECTOR
from rsicd_embed.stores.base import StoreURI, VectorStore, Versioned

_TAG = "before-reembed"
_MOST_ROUNDS = 10


@dataclass(frozen=True)
class Reembedded:
    """What a re-embedding did.

    Attributes:
        rows: in the store now.
        tag: what keeps the state of before.
        ingest: how the images were embedded; `embedded` is 0 where an earlier run had done it.
    """

    rows: int
    tag: str
    ingest: Summary

    def as_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        return {"rows": self.rows, "tag": self.tag, **self.ingest.as_json()}


class _ChangedError(Exception):
    """Rows were written while images were embedded."""


def reembed(
    store: Versioned,
    embedder: Embedder,
    staging: VectorStore,
    *,
    drop_unreadable: bool = False,
    progress: Progress = lambda done: None,
) -> Reembedded:
    """Embeds a store's images, found by their uris, with another model, and switches to that.

    Readers see the old rows until the switch. What was embedded stays in `staging`, so that an
    interrupted run goes on where it stopped.

    Args:
        store: what is to be switched.
        embedder: the other model.
        staging: a store of that model, empty or of an earlier run.
        drop_unreadable: lose the rows whose image cannot be read.
        progress: called with the number of images dealt with since the last call.

    Raises:
        ImageError: an image cannot be read, and is not to be dropped; nothing is switched.
        StoreError: the store does not stop changing.
    """
    for _ in range(_MOST_ROUNDS):
        source = _source(store)
        staging.delete(_ids(staging) - {example.id for example in source.examples})
        summary = ingest([source], embedder, staging, progress=progress)
        if summary.skipped and not drop_unreadable:
            raise _unreadable(summary.skipped)
        tag = _free_tag(store)
        store.tag(tag)
        try:
            rows = store.replace(_unless_changed(store, source, staging), provenance(embedder))
        except _ChangedError:
            store.untag(tag)
            continue
        except BaseException:
            store.untag(tag)
            raise
        store.optimize()
        return Reembedded(rows, tag, summary)
    raise StoreError(
        f"{store.uri} changed each time its images had been embedded; "
        "stop what writes to it and run the same command again, which goes on from here"
    )


def staging_folder(store_uri: str, embedder: Embedder) -> Path:
    """Where vectors of a model wait for the switch of a store: the same folder for both, always."""
    uri = StoreURI.parse(store_uri)
    where = uri.location
    if "://" not in where:
        where = str(Path(where).expanduser().absolute())
    key = f"{uri.scheme}:{where}#{uri.table} {embedder.fingerprint}"
    return cache_folder() / "reembed" / hashlib.sha256(key.encode()).hexdigest()[:16]


def _source(store: VectorStore) -> Source:
    """A store's rows as what an ingest takes."""
    names = [name for name in store.schema.names if name != VECTOR]
    held = [name for name in names if name not in FIXED_COLUMNS]
    examples = [
        Example(id_, uri or "", dict(zip(held, row, strict=True)))
        for batch in store.scan(["id", "uri", *held])
        for id_, uri, *row in zip(
            *(_values(batch[name]) for name in ("id", "uri", *held)), strict=True
        )
    ]
    examples.sort(key=lambda example: example.id)
    return Source(Path(), tuple(examples), pa.schema([store.schema.field(n) for n in held]))


def _ids(store: VectorStore) -> set[str]:
    return {id_ for batch in store.scan(["id"]) for id_ in batch["id"].to_pylist()}


def _unless_changed(
    store: VectorStore, source: Source, staging: VectorStore
) -> Iterator[pa.RecordBatch]:
    """The rows of `staging`; asked for while `store` is locked, so that none is lost."""
    if _source(store) != source:
        raise _ChangedError
    yield from staging.scan()


def _free_tag(store: Versioned) -> str:
    taken, number = store.tags(), 1
    while (tag := _TAG if number == 1 else f"{_TAG}-{number}") in taken:
        number += 1
    return tag


def _unreadable(skipped: list[Skipped]) -> ImageError:
    first = skipped[0]
    return ImageError(
        f"{len(skipped)} images of the store cannot be embedded again, the first {first.uri}: "
        f"{first.reason}; bring them back, or drop their rows with --drop-unreadable. "
        "Nothing was switched, and the next run goes on from here"
    )


def _values(column: pa.Array) -> list[Any]:
    """A column as Python's values, or as Arrow's own where Python has no such times."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        return [value if value.is_valid else None for value in column]
