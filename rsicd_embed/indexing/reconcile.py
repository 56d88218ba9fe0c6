"""Updates of rows that need no embedding: new attributes and new paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.datasets.base import ETAG, Example
from rsicd_embed.records import corrected_name, python_rows, with_ids
from rsicd_embed.stores.base import AttributeWriter, RowMerger, VectorStore
from rsicd_embed.stores.columns import canonical, is_known
from rsicd_embed.stores.rows import conform, kept_columns, with_corrections, with_kept_values


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
    return store.upsert(with_corrections(rows, batches).to_batches())


def computed_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns that `label` or `caption` computed: there are probabilities of them."""
    names = schema.names
    return [name for name in names if {f"{name}_probability", f"{name}_log_probability"} & {*names}]


def corrected_columns(schema: pa.Schema, given: pa.Schema) -> list[str]:
    """Names of a source's columns of which a store has corrections that the source lacks.

    Args:
        schema: schema of the store.
        given: the attributes of the source.
    """
    return [
        name
        for name in given.names
        if name in schema.names
        and (corrected := corrected_name(name)) in schema.names
        and corrected not in given.names
        and schema.field(name).type == schema.field(corrected).type
    ]


def keep_stored(
    examples: Sequence[Example],
    known: KnownRows,
    inferred: Sequence[str],
    corrected: Sequence[str] = (),
) -> list[Example]:
    """Replaces values by those that take precedence over a source.

    Args:
        examples: images of the source.
        known: their rows, read with these columns and their corrections.
        inferred: columns in which values that the store already has are kept.
        corrected: columns in which people's corrections are; see `corrected_columns`.
    """
    kept = []
    for example in examples:
        row = known.rows.get(example.id, {})
        stored = {name: row[name] for name in inferred if row.get(name) is not None}
        corrections = {name: row.get(corrected_name(name)) for name in corrected}
        stored |= {name: value for name, value in corrections.items() if value is not None}
        if any(value != example.attributes.get(name) for name, value in stored.items()):
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

    Only these columns are written, and not over corrections: an update that reads whole rows and
    writes them back would undo what others write meanwhile.

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
            kept = {name: rows[name] for name in inferred if name in rows.schema.names}
            for name in corrected_columns(rows.schema, schema):
                correct = rows[corrected_name(name)]
                kept[name] = pc.coalesce(correct, kept[name]) if name in kept else correct
            merged = with_kept_values(new, [pa.record_batch({"id": rows["id"], **kept})])
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
