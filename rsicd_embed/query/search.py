"""Run composed queries on any store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.embedder.base import Embedder, require_embedder
from rsicd_embed.errors import QueryError
from rsicd_embed.geography.overlap import separate
from rsicd_embed.query import full_text, hybrid
from rsicd_embed.query.area import FOOTPRINT, has_footprints
from rsicd_embed.query.composed import Query, query_vector
from rsicd_embed.records import HIT_COLUMNS, VECTOR, all_of, vector_matrix, with_ids
from rsicd_embed.stores.base import VectorStore, require_store
from rsicd_embed.stores.filters import matching
from rsicd_embed.stores.row_view import without_vector
from rsicd_embed.stores.scoring import cosines_with, unit_queries

# Of searches whose hits are merged: their first depth, relative to k, and how much it grows.
_FIRST_DEPTH, _DEEPER = 4, 8


def search(query: Query, store: VectorStore, embedder: Embedder | None = None) -> pa.Table:
    """Runs a query composed of texts, images and rows.

    Args:
        query: the query, such as `Query([Part("a harbour"), Part("oil tanks", weight=-0.5)])`.
        store: store to search.
        embedder: embeds the texts and images; None loads the store's model if there are any.

    Returns:
        Hits as `VectorStore.search` returns them; ranks count from the best hit, also after an
        offset.

    Raises:
        QueryError: an unknown id, parts that cancel out, no coordinates for `within`, no
            footprints to merge, or a hybrid query without words or a text column.
        FilterError: an invalid `where`.
        FingerprintError: the store's vectors were made by another model.
        ImageError: an image cannot be read.
        ModelError: the model that made the store cannot be loaded.
        ArgumentError: a URI instead of a store, or a name instead of an embedder.
    """
    require_store(store)
    if embedder is not None:
        require_embedder(embedder)
    return hits(query, query_vector(query, store, model_loader(store, embedder)), store)


def model_loader(store: VectorStore, embedder: Embedder | None) -> Callable[[], Embedder]:
    """Returns the embedder when called, or loads the store's model for None."""

    def load() -> Embedder:
        from rsicd_embed.embedder.loading import load_for_a_query

        return load_for_a_query(store.provenance.model) if embedder is None else embedder

    return load


def condition(query: Query, schema: pa.Schema) -> str | None:
    """The SQL condition of a query's `where` and places; None without any.

    Raises:
        QueryError: rows of this schema have no coordinates for the places.
        FilterError: an invalid `where`.
    """
    places = [place for place in (query.within, query.near) if place is not None]
    conditions = [place.condition(schema, query.contained) for place in places]
    if query.where is None or not conditions:
        return all_of(conditions) or query.where
    matching(without_vector(schema).empty_table(), query.where)  # by itself, it must be valid
    return all_of([*conditions, query.where])


def hits(query: Query, vector: np.ndarray, store: VectorStore) -> pa.Table:
    """The hits of a query whose vector is known; see `search`."""
    where = condition(query, store.schema)
    if query.merge is not None and not has_footprints(store.schema):
        raise QueryError(
            "expected rows with footprints to merge hits, as WKB in a column geometry, found the "
            f"columns {', '.join(store.schema.names)}"
        )
    if query.hybrid:
        return _hybrid_hits(query, vector, store, where)
    if query.k is None:
        return select(_all_hits(query, vector, store, where), query)
    if query.merge is not None:
        return _merged_hits(query, vector, store, where)
    return select(store.search(vector, k=query.depth, where=where), query)


def select(ranked: pa.Table, query: Query) -> pa.Table:
    """Selects a query's hits, best first, from a table with at least these and its examples."""
    if query.excluded:
        ranked = ranked.filter(pc.invert(pc.is_in(ranked["id"], pa.array(query.excluded))))
    if query.min_score is not None:
        ranked = ranked.filter(pc.greater_equal(ranked["score"], _float32(query.min_score)))
    if query.merge is not None:
        most = None if query.k is None else query.offset + query.k
        ranked = ranked.take(separate(_single(ranked[FOOTPRINT]), query.merge, most))
    if query.k is not None and (query.offset or len(ranked) > query.k):
        ranked = ranked.slice(query.offset, query.k)
    elif query.offset:
        ranked = ranked.slice(query.offset)
    if query.excluded or query.offset or query.merge is not None:
        ranks = np.arange(query.offset + 1, query.offset + 1 + len(ranked), dtype=np.int32)
        column = ranked.schema.get_field_index("rank")
        ranked = ranked.set_column(column, ranked.schema.field(column), pa.array(ranks))
    return ranked


def _merged_hits(
    query: Query, vector: np.ndarray, store: VectorStore, where: str | None
) -> pa.Table:
    """Searches deeper until enough hits are left; those of a shallower search stay first."""
    depth = _FIRST_DEPTH * query.depth
    while True:
        ranked = store.search(vector, k=depth, where=where)
        merged = select(ranked, query)
        below = (
            query.min_score is not None
            and len(ranked) > 0
            and (ranked["score"][-1].as_py() < np.float32(query.min_score))
        )
        if len(merged) == query.k or len(ranked) < depth or below:
            return merged
        depth *= _DEEPER


def _single(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _float32(score: float) -> pa.Scalar:
    return pa.scalar(np.float32(score), pa.float32())


def _hybrid_hits(
    query: Query, vector: np.ndarray, store: VectorStore, where: str | None
) -> pa.Table:
    """The hits of a hybrid query; rows that only match by text are scored as well."""
    words = hybrid.query_words(query)
    column = full_text.text_column(store.schema, query.text_column)
    depth = hybrid.WINDOW + len(query.excluded)
    matching = full_text.ranked_ids(store, column, words, where, depth)
    matching = [hit for hit in matching if hit[0] not in query.excluded][: hybrid.WINDOW]
    similar = store.search(vector, k=depth, where=where)
    if query.excluded:
        similar = similar.filter(pc.invert(pc.is_in(similar["id"], pa.array(query.excluded))))
    similar = similar.slice(0, hybrid.WINDOW)
    ids = similar["id"].to_pylist()
    missing = {id_ for id_, _ in matching} - set(ids)
    rows = similar
    if missing:
        others = _ranked(_scored(vector, store, with_ids(sorted(missing)), np.float32(-1)))
        rows = pa.concat_tables([similar, others.select(similar.schema.names).cast(similar.schema)])
        # A row may have been deleted since.
        present = set(rows["id"].to_pylist())
        matching = [hit for hit in matching if hit[0] in present]
    return hybrid.fused(query, rows.combine_chunks(), ids, matching)


def _all_hits(query: Query, vector: np.ndarray, store: VectorStore, where: str | None) -> pa.Table:
    """All rows at or above the minimum score, best first; reads each row's vector once."""
    least = np.float32(-1 if query.min_score is None else query.min_score)
    return _ranked(_scored(vector, store, where, least))


def _scored(
    vector: np.ndarray, store: VectorStore, where: str | None, least: np.float32
) -> pa.Table:
    """The rows that match, with their scores, in any order."""
    unit = unit_queries(vector, store.provenance.dim)[0]
    batches = []
    with store.scan(None, where) as reader:
        schema = reader.schema.remove(reader.schema.get_field_index(VECTOR))
        schema = pa.schema([*((f.name, f.type) for f in schema), ("score", pa.float32())])
        for batch in reader:
            if len(batch):
                scores = cosines_with(vector_matrix(batch[VECTOR]), unit)
                rows = batch.drop_columns([VECTOR]).append_column(schema.field("score"), scores)
                batches.append(rows.filter(pa.array(scores >= least)))
    return pa.Table.from_batches([batch.cast(schema) for batch in batches], schema)


def _ranked(table: pa.Table) -> pa.Table:
    table = table.sort_by([("score", "descending"), ("id", "ascending")])
    ranks = np.arange(1, len(table) + 1, dtype=np.int32)
    table = table.append_column("query", pa.array(np.zeros_like(ranks)))
    table = table.append_column("rank", pa.array(ranks))
    others = (name for name in table.schema.names if name not in HIT_COLUMNS)
    return table.select([*HIT_COLUMNS, *others])
