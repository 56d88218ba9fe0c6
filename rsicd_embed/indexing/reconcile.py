"""Updates of rows that need no embedding: new attributes, new paths, vanished images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.datasets.base import Example, Source, plain_path
from rsicd_embed.images import file_of
from rsicd_embed.records import python_rows
from rsicd_embed.stores.base import VectorStore


def known_rows(store: VectorStore) -> dict[str, str]:
    """id → sha256 of every row."""
    known: dict[str, str] = {}
    for batch in store.scan(["id", "sha256"]):
        known.update(zip(batch["id"].to_pylist(), batch["sha256"].to_pylist(), strict=True))
    return known


def stored_rows(store: VectorStore, ids: pa.Array, columns: Sequence[str]) -> pa.RecordBatch:
    """Columns of the rows with the given ids, in their order; null for ids not in the store."""
    names = list(dict.fromkeys(["id", *columns]))
    rows = pa.Table.from_batches(
        (batch.filter(pc.is_in(batch["id"], ids)) for batch in store.scan(names)),
        pa.schema([store.schema.field(name) for name in names]),
    ).combine_chunks()
    places = pc.index_in(ids, rows["id"].combine_chunks())
    ordered = [column.combine_chunks().take(places) for column in rows.select(columns).columns]
    return pa.RecordBatch.from_arrays(ordered, list(columns))


def keep_stored(store: VectorStore, source: Source) -> Source:
    """Replaces values of inferred columns by those that the store already has."""
    names = [name for name in source.inferred if name in store.schema.names]
    if not names:
        return source
    examples = {example.id: example for example in source.examples}
    for batch in store.scan(["id", *names]):
        for row in batch.to_pylist():
            if (example := examples.get(row["id"])) is None:
                continue
            stored = {name: row[name] for name in names if row[name] is not None}
            if any(value != example.attributes[name] for name, value in stored.items()):
                attributes = {**example.attributes, **stored}
                examples[example.id] = replace(example, attributes=attributes)
    return replace(source, examples=tuple(examples.values()))


def update_attributes(store: VectorStore, schema: pa.Schema, same: Mapping[str, Example]) -> int:
    """Writes new attributes and uris of unchanged images; returns the number of updated rows."""
    if not same:
        return 0
    names = [name for name in schema.names if name in store.schema.names]
    lacking = [name for name in schema.names if name not in store.schema.names]
    changed: set[str] = {
        id_
        for id_, example in same.items()
        if any(not _is_empty(example.attributes.get(name)) for name in lacking)
    }
    for batch in store.scan(["id", "uri", *names]):
        for row in python_rows(batch):
            example = same.get(row["id"])
            if example and (
                row["uri"] != example.uri
                or any(not _equal(row[name], example.attributes.get(name)) for name in names)
            ):
                changed.add(row["id"])
    if changed:
        store.upsert(_renewed(store, schema, {id_: same[id_] for id_ in changed}))
    return len(changed)


def _equal(stored: Any, given: Any) -> bool:
    """Equality in which NaN equals NaN, and empty fields of objects may be missing."""
    if isinstance(stored, list) and isinstance(given, list):
        return len(stored) == len(given) and all(map(_equal, stored, given))
    if isinstance(stored, dict) and isinstance(given, dict):
        return all(_equal(value, given.get(name)) for name, value in stored.items()) and all(
            _is_empty(value) for name, value in given.items() if name not in stored
        )
    return bool(stored == given or (stored != stored and given != given))


def _is_empty(value: Any) -> bool:
    """Whether a value contains only nulls, which stores may drop."""
    if isinstance(value, dict):
        return all(map(_is_empty, value.values()))
    return all(map(_is_empty, value)) if isinstance(value, list) else value is None


def _renewed(
    store: VectorStore, schema: pa.Schema, examples: Mapping[str, Example]
) -> Iterator[pa.RecordBatch]:
    wanted = pa.array(list(examples), pa.string())
    for batch in store.scan():
        rows = batch.filter(pc.is_in(batch["id"], wanted))
        if not rows.num_rows:
            continue
        ours = [examples[id_] for id_ in rows["id"].to_pylist()]
        columns = dict(zip(rows.schema.names, rows.columns, strict=True))
        columns["uri"] = pa.array([example.uri for example in ours])
        for field in schema:
            columns[field.name] = pa.array([e.attributes.get(field.name) for e in ours], field.type)
        yield pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def under_other_ids(
    store: VectorStore, sources: Sequence[Source], known: Mapping[str, str]
) -> list[str]:
    """Notes that new images are already in the store under ids that no source has.

    Args:
        store: the store before the ingest.
        sources: the sources to ingest.
        known: the store's rows by id.
    """
    present = {example.id for source in sources for example in source.examples}
    new = [e for source in sources for e in source.examples if e.id not in known]
    if not new or known.keys() <= present:
        return []
    ids = {example.uri: example.id for example in new}
    pairs = [
        (id_, ids[uri])
        for batch in store.scan(["id", "uri"])
        for id_, uri in zip(batch["id"].to_pylist(), batch["uri"].to_pylist(), strict=True)
        if uri in ids and id_ not in present
    ]
    if not pairs:
        return []
    return [
        f"{len(pairs):,} images were in the store under other ids and are now there twice, such as "
        f"{pairs[0][0]!r} as {pairs[0][1]!r}; remove the old rows in Python with store.delete(ids)"
    ]


def vanished(store: VectorStore, sources: Sequence[Source]) -> list[str]:
    """Ids of rows below a source's root that are in no source and whose file no longer exists."""
    roots = tuple(plain_path(source.root) for source in sources)
    present = {example.id for source in sources for example in source.examples}
    gone = []
    for batch in store.scan(["id", "uri"]):
        for id_, uri in zip(batch["id"].to_pylist(), batch["uri"].to_pylist(), strict=True):
            if id_ in present or not uri:
                continue
            path = Path(file_of(uri))
            if any(path.is_relative_to(root) for root in roots) and _is_gone(path):
                gone.append(id_)
    return gone


def is_another(uri: str, other: str) -> bool:
    """Whether a file exists at `uri` and is not the one at `other`."""
    try:
        return not Path(file_of(uri)).samefile(file_of(other))
    except (OSError, ValueError):
        return False


def _is_gone(path: Path) -> bool:
    """Whether a file certainly does not exist; behind a broken link it may come back."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return not any(parent.is_symlink() and not parent.exists() for parent in path.parents)
    except OSError:
        return False
    return False
