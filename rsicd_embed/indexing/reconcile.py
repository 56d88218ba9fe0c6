"""Updates of rows that need no embedding: new attributes, new paths, vanished images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, compress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.datasets.base import ETAG, Example, Source, plain_path
from rsicd_embed.datasets.spooled_examples import Digests
from rsicd_embed.errors import RemoteError, RemoteMissingError
from rsicd_embed.images import container_of, file_of
from rsicd_embed.parallel import ordered_map
from rsicd_embed.records import python_rows, with_ids
from rsicd_embed.remote import THREADS, head, is_remote
from rsicd_embed.stores.base import AttributeWriter, RowMerger, VectorStore
from rsicd_embed.stores.columns import canonical, is_known
from rsicd_embed.stores.rows import conform, kept_columns, with_kept_values


class KnownRows:
    """The rows that a store already has for a batch of examples.

    Attributes:
        rows: the rows by id, with `uri`, `sha256` and the given columns.
        moved: ids of other rows that have the uri of one of the examples → that example's id.
    """

    def __init__(
        self, store: VectorStore | None, examples: Sequence[Example], columns: Sequence[str] = ()
    ) -> None:
        """Reads the rows, in one pass over the store's ids and uris.

        Args:
            store: the store; None for one without rows.
            examples: the batch; ids are distinct.
            columns: further columns to read; those that the store lacks are left out.
        """
        self.rows: dict[str, dict[str, Any]] = {}
        self.moved: dict[str, str] = {}
        if store is None:
            return
        by_uri = {example.uri: example.id for example in examples}
        ids = pa.array([example.id for example in examples], pa.string())
        uris = pa.array(list(by_uri), pa.string())
        extra = [name for name in columns if name in store.schema.names]
        names = list(dict.fromkeys(["id", "uri", "sha256", *extra]))
        other: list[tuple[str, str]] = []
        with store.scan(names) as reader:
            for batch in reader:
                known = pc.is_in(batch["id"], ids)
                for row in python_rows(batch.filter(known)):
                    self.rows[row["id"]] = row
                elsewhere = pc.and_(pc.is_in(batch["uri"], uris), pc.invert(known))
                pairs = batch.select(["id", "uri"]).filter(elsewhere)
                other += zip(pairs["id"].to_pylist(), pairs["uri"].to_pylist(), strict=True)
        self.moved = {id_: by_uri[uri] for id_, uri in other if by_uri[uri] not in self.rows}

    def of(self, examples: Sequence[Example]) -> KnownRows:
        """The rows of some of the examples."""
        some = KnownRows(None, ())
        ids = [example.id for example in examples]
        some.rows = {id_: self.rows[id_] for id_ in ids if id_ in self.rows}
        return some

    def is_known(self, id_: str) -> bool:
        """Whether the store has a row with this id."""
        return id_ in self.rows

    def sha256(self, id_: str) -> str | None:
        """The SHA-256 of a row; None without such a row."""
        return self.rows[id_]["sha256"] if id_ in self.rows else None

    def etag(self, example: Example) -> str:
        """The ETag that a row's object had when it was embedded; empty if its uri has changed."""
        row = self.rows.get(example.id)
        return (row.get(ETAG) or "") if row and row["uri"] == example.uri else ""


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


def merge_rows(
    store: VectorStore, batches: Sequence[pa.RecordBatch], keep: Sequence[str] = ()
) -> int:
    """Does what `RowMerger.merge` does, in any store.

    In a store that is none, what others write at the same moment may be lost.
    """
    if isinstance(store, RowMerger):
        return store.merge(batches, keep)
    rows = conform(batches, store.schema)
    columns = kept_columns(batches, store.schema, keep)
    rows = with_kept_values(rows, store.scan(["id", *columns], with_ids(rows["id"].to_pylist())))
    return store.upsert(rows.to_batches())


def computed_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns that `label` or `caption` computed: there are probabilities of them."""
    names = schema.names
    return [name for name in names if {f"{name}_probability", f"{name}_log_probability"} & {*names}]


def keep_stored(
    examples: Sequence[Example], known: KnownRows, inferred: Sequence[str]
) -> list[Example]:
    """Replaces values of inferred columns by those that the store already has."""
    kept = []
    for example in examples:
        row = known.rows.get(example.id, {})
        stored = {name: row[name] for name in inferred if row.get(name) is not None}
        if any(value != example.attributes[name] for name, value in stored.items()):
            example = replace(example, attributes={**example.attributes, **stored})
        kept.append(example)
    return kept


def update_attributes(
    store: VectorStore,
    schema: pa.Schema,
    same: Sequence[Example],
    known: KnownRows,
    inferred: Sequence[str] = (),
) -> int:
    """Writes new attributes and uris of unchanged images; returns the number of updated rows.

    Only these columns are written: an update that reads whole rows and writes them back would undo
    what others write meanwhile.

    Args:
        store: the store.
        schema: the attributes.
        same: images whose bytes the store has.
        known: their rows, read with the columns of `schema`.
        inferred: columns in which values of the store are kept, also those written meanwhile.
    """
    names = [name for name in schema.names if name in store.schema.names]
    lacking = [name for name in schema.names if name not in store.schema.names]
    changed: dict[str, Example] = {}
    for example in same:
        row = known.rows[example.id]
        if (
            row["uri"] != example.uri
            or any(not _is_empty(example.attributes.get(name)) for name in lacking)
            or any(not is_same(row.get(name), example.attributes.get(name)) for name in names)
        ):
            changed[example.id] = example
    if not changed:
        return 0
    if isinstance(store, AttributeWriter):
        kinds = {field.name: canonical(field.type, field.name) for field in schema}
        fields = [pa.field(name, kind) for name, kind in kinds.items() if is_known(kind)]
        if any(known.rows[id_]["uri"] != example.uri for id_, example in changed.items()):
            fields.append(store.schema.field("uri"))
        columns = pa.schema(fields)

        def rewrite(rows: pa.RecordBatch) -> pa.RecordBatch:
            ours = [changed[id_] for id_ in rows["id"].to_pylist()]
            new = pa.table([rows["id"], *_values(ours, columns)], ["id", *columns.names])
            kept = [name for name in inferred if name in rows.schema.names]
            merged = with_kept_values(new, [rows.select(["id", *kept])])
            arrays = [merged[name].combine_chunks() for name in columns.names]
            return pa.RecordBatch.from_arrays(arrays, schema=columns)

        store.rewrite_attributes(rewrite, columns, with_ids(changed))
    else:
        store.upsert(_renewed(store, schema, changed))
    return len(changed)


def _values(examples: Sequence[Example], columns: pa.Schema) -> list[pa.Array]:
    """The values of examples for attributes and `uri`."""
    values = [{**example.attributes, "uri": example.uri} for example in examples]
    return [pa.array([row.get(field.name) for row in values], field.type) for field in columns]


def is_same(stored: Any, given: Any) -> bool:
    """Equality in which NaN equals NaN, and empty fields of objects may be missing."""
    if isinstance(stored, list) and isinstance(given, list):
        return len(stored) == len(given) and all(map(is_same, stored, given))
    if isinstance(stored, dict) and isinstance(given, dict):
        return all(is_same(value, given.get(name)) for name, value in stored.items()) and all(
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
        new = schema.append(store.schema.field("uri"))
        columns |= zip(new.names, _values(ours, new), strict=True)
        yield pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


class MovedRows:
    """Rows whose image is now there under another id as well."""

    def __init__(self) -> None:
        self._moved: dict[str, str] = {}

    def add(self, known: KnownRows) -> None:
        """Adds the rows found for a batch."""
        self._moved |= known.moved

    def notes(self, sources: Sequence[Source]) -> list[str]:
        """A message about the rows that are in no source."""
        if self._moved:
            for source in sources:
                for example in source.examples:
                    self._moved.pop(example.id, None)
        if not self._moved:
            return []
        old, new = next(iter(self._moved.items()))
        return [
            f"{len(self._moved):,} images were in the store under other ids and are now there "
            f"twice, such as {old!r} as {new!r}; remove the old rows in Python with "
            "store.delete(ids)"
        ]


def vanished(store: VectorStore, sources: Sequence[Source]) -> list[str]:
    """Ids of rows below a source's root that are in no source and whose image no longer exists.

    An image is gone if its file is, or if the tar or table that a source has read in whole does not
    have it any more. Eight bytes are kept for each id and uri, so a row whose hash coincides with
    another's stays.
    """
    roots = [_Root(source.root) for source in sources]
    examples = [source.examples for source in sources]
    present = Digests(example.id for example in chain.from_iterable(examples))
    whole = [source.examples for source in sources if source.complete]
    containers = {
        file for example in chain.from_iterable(whole) if (file := container_of(example.file))
    }
    inside = Digests(example.uri for example in chain.from_iterable(whole if containers else []))
    gone: list[str] = []
    objects: list[tuple[str, str]] = []
    replaced: list[tuple[str, str, str | None]] = []
    with store.scan(["id", "uri", "sha256"]) as reader:
        for batch in reader:
            absent = batch.filter(pa.array(~present.have(batch["id"].to_pylist())))
            columns = (absent[name].to_pylist() for name in ("id", "uri", "sha256"))
            for id_, uri, sha256 in zip(*columns, strict=True):
                file = file_of(uri) if uri else ""
                if not file or not any(root.contains(file) for root in roots):
                    continue
                if file in containers and file != uri:
                    if inside.have([uri])[0]:
                        replaced.append((id_, uri, sha256))
                    else:
                        gone.append(id_)
                elif is_remote(file):
                    objects.append((id_, file))
                elif _is_gone(Path(file)):
                    gone.append(id_)
    files = sorted({file for _, file in objects})
    lost = set(compress(files, ordered_map(_is_gone_object, files, ahead=256, threads=THREADS)))
    gone += [id_ for id_, file in objects if file in lost]
    return gone + _overwritten(store, replaced, present)


def _overwritten(
    store: VectorStore, rows: Sequence[tuple[str, str, str | None]], present: Digests
) -> list[str]:
    """Ids of rows (id, uri, sha256) whose uri now has another image, under a present id."""
    if not rows:
        return []
    uris = pa.array(list({uri for _, uri, _ in rows}))
    now: dict[str, str | None] = {}
    with store.scan(["id", "uri", "sha256"]) as reader:
        for batch in reader:
            chosen = batch.filter(pc.is_in(batch["uri"], uris))
            chosen = chosen.filter(pa.array(present.have(chosen["id"].to_pylist()), pa.bool_()))
            now.update(zip(chosen["uri"].to_pylist(), chosen["sha256"].to_pylist(), strict=True))
    return [id_ for id_, uri, sha256 in rows if uri in now and now[uri] != sha256]


class _Root:
    """A source's root, a path or a URL."""

    def __init__(self, root: Path | str) -> None:
        self._url = root if isinstance(root, str) else None
        self._path = None if isinstance(root, str) else plain_path(root)

    def contains(self, file: str) -> bool:
        """Whether a file is the root or below it."""
        if self._path is not None:
            return not is_remote(file) and Path(file).is_relative_to(self._path)
        return file == self._url or file.startswith(f"{self._url}/")


def is_another(uri: str, other: str) -> bool:
    """Whether a file exists at `uri` and is not the one at `other`."""
    if is_remote(uri) or is_remote(other):
        return _exists(file_of(uri)) and file_of(uri) != file_of(other)
    try:
        return not Path(file_of(uri)).samefile(file_of(other))
    except (OSError, ValueError):
        return False


def _exists(file: str) -> bool:
    if not is_remote(file):
        return Path(file).exists()
    try:
        head(file)
    except RemoteError:
        return False
    return True


def _is_gone_object(url: str) -> bool:
    """Whether a remote object certainly does not exist."""
    try:
        head(url)
    except RemoteMissingError:
        return True
    except RemoteError:
        return False
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
