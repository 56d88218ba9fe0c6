"""Validates rows and ids that users pass to a store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.arguments import require_items
from rsicd_embed.errors import SchemaError
from rsicd_embed.records import (
    FIXED_COLUMNS,
    VECTOR,
    corrected_name,
    is_number_list,
    require_unit_vectors,
    vector_array,
)
from rsicd_embed.stores.columns import canonical, cast, is_known, require_column_names

_RENORMALISE = 1e-6  # vectors closer to unit norm than this are stored unchanged


def conform(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Converts rows to the columns of a store plus their new ones, with each id once.

    If an id is repeated, its last row wins. Missing columns become null. Columns that the store
    lacks are appended, unless their type is unknown because all values are null. Vectors whose
    norm is off by 1e-6 to 1e-3 are normalised.

    Args:
        batches: record batches with at least id and vector; a table counts as its batches.
        schema: schema of the store's rows, see `records.row_schema`.

    Returns:
        A table in one chunk; its first columns are those of `schema`.

    Raises:
        SchemaError: see `VectorStore.upsert`.
    """
    given = as_batches(batches)
    merged = _merged_schema(schema, [batch.schema for batch in given])
    tables = [_conformed(batch, merged, index) for index, batch in enumerate(given)]
    table = pa.Table.from_batches(tables, merged).combine_chunks()
    return _last_of_each_id(table)


def conform_new(batches: Sequence[pa.RecordBatch], schema: pa.Schema, seen: SeenIds) -> pa.Table:
    """`conform` for rows of which each id may occur once, also among those of `seen`.

    Raises:
        SchemaError: an id occurs again.
    """
    rows = conform(batches, schema)
    if len(rows) < sum(map(len, batches)) or seen.may_have(rows["id"]):
        raise SchemaError("expected each id once in all batches, found some twice; remove them")
    seen.add(rows["id"])
    return rows


def _merged_schema(schema: pa.Schema, others: Sequence[pa.Schema]) -> pa.Schema:
    """Appends the new columns of other schemas, in order of appearance."""
    fields = {field.name: field for field in schema}
    for other in others:
        require_column_names([*other.names])
        for field in other:
            if field.name not in fields:
                kind = canonical(field.type, field.name)
                if is_known(kind):
                    fields[field.name] = pa.field(field.name, kind)
    return pa.schema(list(fields.values()))


def kept_columns(
    given: Iterable[pa.RecordBatch], schema: pa.Schema, keep: Collection[str]
) -> list[str]:
    """Names of the columns that `RowMerger.merge` keeps in a store with this schema."""
    names = {name for batch in given for name in batch.schema.names}
    return [name for name in schema.names if name in keep or name not in names]


def with_kept_values(rows: pa.Table, stored: Iterable[pa.RecordBatch]) -> pa.Table:
    """Replaces values of rows by the stored ones that are not null.

    Args:
        rows: new rows, each id once.
        stored: rows of a store: their ids, and the columns whose values are kept.
    """
    batches = [batch.filter(pc.is_in(batch["id"], rows["id"])) for batch in stored]
    if not (batches := list(filter(len, batches))):
        return rows
    kept = pa.Table.from_batches(batches).combine_chunks()
    places = pc.index_in(rows["id"].combine_chunks(), kept["id"].combine_chunks())
    own = np.arange(len(rows))
    for name in kept.schema.names[1:]:
        values = kept[name].combine_chunks()
        known = values.is_valid().take(places).fill_null(False)
        # A selection from both, since if_else does not support all types.
        chosen = pc.if_else(known, places.cast(pa.int64()), pa.array(own + len(values)))
        both = pa.concat_arrays([values, rows[name].combine_chunks()])
        rows = rows.set_column(rows.schema.names.index(name), rows.field(name), both.take(chosen))
    return rows.combine_chunks()


def with_corrections(rows: pa.Table, given: Iterable[pa.RecordBatch]) -> pa.Table:
    """Replaces values by corrections of them, unless the given batches have a column of these.

    Args:
        rows: new rows with all columns, and kept values; see `with_kept_values`.
        given: the batches of which they were made.
    """
    names = {name for batch in given for name in batch.schema.names}
    for name in names & {*rows.schema.names}:
        corrected = corrected_name(name)
        if corrected in names or corrected not in rows.schema.names:
            continue
        if rows.schema.field(corrected).type == rows.schema.field(name).type:
            values = pc.coalesce(rows[corrected], rows[name])
            rows = rows.set_column(rows.schema.names.index(name), rows.field(name), values)
    return rows.combine_chunks()


def attributes_of(schema: pa.Schema) -> pa.Schema:
    """Removes the six fixed columns from a schema."""
    return pa.schema([field for field in schema if field.name not in FIXED_COLUMNS])


def checked_ids(ids: Iterable[str]) -> pa.Array:
    """Converts ids to an Arrow array of distinct strings; SchemaError if one is not a string."""
    require_items(ids, "ids")
    given = [item.as_py() if isinstance(item, pa.Scalar) else item for item in ids]
    for item in given:
        if not isinstance(item, str):
            raise SchemaError(f"expected ids that are strings, found {item!r}")
    return pa.array(dict.fromkeys(given), pa.string())


def as_batches(batches: Iterable[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Lists batches, or those of a table; SchemaError for anything else."""
    if isinstance(batches, pa.Table):
        return list(batches.to_batches())
    if isinstance(batches, pa.RecordBatch):
        return [batches]
    require_items(batches, "Arrow record batches")
    given = list(batches)
    for item in given:
        if not isinstance(item, pa.RecordBatch):
            raise SchemaError(
                f"expected Arrow record batches, found {type(item).__name__}; "
                "create them with pyarrow.RecordBatch.from_pylist(rows)"
            )
    return given


def _conformed(batch: pa.RecordBatch, schema: pa.Schema, index: int) -> pa.RecordBatch:
    place = f"record batch {index}"
    for name in ("id", VECTOR):
        if name not in batch.schema.names:
            raise SchemaError(
                f"{place}: expected a column {name!r}, found {', '.join(batch.schema.names)}"
            )
        if batch.column(name).null_count:
            raise SchemaError(f"{place}: expected a value of {name!r} in each row, found nulls")
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(len(batch), field.type))
        elif field.name == VECTOR:
            dim = field.type.list_size
            columns.append(vector_array(unit_vectors(batch.column(VECTOR), dim, place)))
        else:
            columns.append(cast(batch.column(field.name), field.type, field.name))
    return pa.record_batch(columns, schema=schema)


def unit_vectors(column: pa.Array, dim: int, place: str) -> np.ndarray:
    """Converts Arrow lists of numbers, without nulls, to float32 (n, dim) of unit norm.

    Messages start with `place`.

    Raises:
        SchemaError: not lists of `dim` numbers, not finite, or with a norm off by 1e-3.
    """
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    kind = column.type
    if not is_number_list(kind):
        raise SchemaError(f"{place}: expected vectors as lists of {dim} float32, found {kind}")
    if pt.is_fixed_size_list(kind):
        lengths = [kind.list_size]
    else:
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if lengths not in ([], [dim]):
        wrong = next(length for length in lengths if length != dim)
        raise SchemaError(
            f"{place}: expected vectors of length {dim}, found length {wrong}; "
            "embed with the model that made the store"
        )
    values = column.flatten()
    if values.null_count:
        raise SchemaError(f"{place}: expected vectors of numbers, found nulls in them")
    matrix = values.to_numpy(zero_copy_only=False).reshape(len(column), dim)
    norms = require_unit_vectors(matrix, dim, source=place)
    narrow = np.ascontiguousarray(matrix, dtype=np.float32)
    off = np.abs(norms - 1.0) > _RENORMALISE
    if off.any():
        narrow = narrow.copy()
        narrow[off] = matrix[off].astype(np.float64) / norms[off, None]
    return narrow


def _last_of_each_id(table: pa.Table) -> pa.Table:
    codes = table["id"].combine_chunks().dictionary_encode().indices.to_numpy()
    if not len(codes):
        return table
    _, last = np.unique(codes[::-1], return_index=True)
    if len(last) == len(codes):
        return table
    return table.take(pa.array(np.sort(len(codes) - 1 - last))).combine_chunks()


class SeenIds:
    """Hashes of the ids written since a store was empty, eight bytes each.

    Attributes:
        version: version of the store up to which the ids are complete.
    """

    def __init__(self, version: int = 0) -> None:
        self.version = version
        self._hashes = np.zeros(0, np.int64)

    def may_have(self, ids: pa.ChunkedArray) -> bool:
        """False if certainly none of `ids` was added."""
        hashes = _sorted_hashes(ids)
        positions = np.searchsorted(self._hashes, hashes)
        inside = positions < len(self._hashes)
        return bool(np.any(self._hashes[positions[inside]] == hashes[inside]))

    def add(self, ids: pa.ChunkedArray) -> None:
        """Adds ids, some of which may be known already."""
        hashes = _sorted_hashes(ids)
        self._hashes = np.insert(self._hashes, np.searchsorted(self._hashes, hashes), hashes)


def _sorted_hashes(ids: pa.ChunkedArray) -> np.ndarray:
    hashes = np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids))
    hashes.sort()
    return hashes
