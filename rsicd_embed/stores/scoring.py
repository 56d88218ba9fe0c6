"""Exact search, shared by every store: the same rows get the same scores, to the last bit.

Matrix products choose the candidates, with a margin for their rounding. Each candidate is then
scored by itself in float64, so its score depends neither on the store nor on the batch it is in.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.errors import QueryError
from rsicd_embed.records import HIT_COLUMNS, VECTOR
from rsicd_embed.stores.parts import Rows

# Above twice the error of a float32 product of unit vectors (1e-7 to 1e-6 for 4,096 dimensions),
# the rows themselves being unit to 1e-6.
MARGIN = 4e-6
_BLOCK_ROWS = 65_536
_BLOCK_QUERIES = 256
_BLOCK_PAIRS = 256  # whose float64 copies stay in the cache
_SPARSE = 0.1  # below this share of rows, copying the chosen ones is faster than masking all


@dataclass(frozen=True)
class Candidates:
    """Pairs that may be among the best: int64 (m,) query numbers and row positions."""

    query: np.ndarray
    row: np.ndarray


def unit_queries(queries: np.ndarray, dim: int) -> np.ndarray:
    """Queries (q, dim), or (dim,) for one, of any real type → float64 (q, dim) of unit norm.

    Raises:
        QueryError: another shape or type, or a query that is zero or not finite.
    """
    try:
        given = np.asarray(queries)
        real = given.dtype.kind in "fiu"
        given = given.astype(np.float64) if real else given
    except (TypeError, ValueError) as error:
        raise QueryError(f"expected query vectors of numbers: {error}") from None
    if not real:
        raise QueryError(f"expected query vectors of real numbers, found dtype {given.dtype}")
    if given.ndim not in (1, 2) or given.shape[-1] != dim:
        raise QueryError(
            f"expected queries of shape (q, {dim}) or ({dim},), found {given.shape}; "
            "embed them with the model that made the store"
        )
    given = np.ascontiguousarray(np.atleast_2d(given))
    largest = np.abs(given).max(axis=1, initial=0.0)
    bad = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
    if bad.size:
        kind = "zero" if largest[bad[0]] == 0 else "not finite"
        raise QueryError(f"query {bad[0]} is {kind}: it has no direction to compare with")
    given = given / largest[:, None]  # so that no square overflows or vanishes
    units: np.ndarray = given / np.sqrt(np.add.reduce(given * given, axis=1))[:, None]
    return units


def require_k(k: int) -> int:
    """k as an int of at least 1.

    Raises:
        QueryError: it is not.
    """
    try:
        count = operator.index(k)
    except TypeError:
        count = 0
    if count < 1 or isinstance(k, bool):
        raise QueryError(f"expected k to be a whole number of at least 1, found {k!r}")
    return count


def cosines(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """float32 (m, dim) with float64 (m, dim) of unit norm → float32 (m,) in [-1, 1].

    Products are summed row by row, so a pair's score does not depend on the others.
    """
    wide = vectors.astype(np.float64)
    scores = np.vecdot(wide, queries) / np.sqrt(np.vecdot(wide, wide))
    narrow: np.ndarray = np.clip(scores, -1.0, 1.0).astype(np.float32)
    narrow += np.float32(0.0)  # no negative zero
    return narrow


def nearest(
    rows: Rows, queries: np.ndarray, k: int, masks: list[np.ndarray | None], first: int = 0
) -> Candidates:
    """Every pair that may be among the k best of its query, ties included.

    Args:
        rows: what is searched.
        queries: float64 (q, dim) of unit norm.
        k: rows wanted for each query.
        masks: for each part the rows to search (bool), or None for all.
        first: the part to begin with.
    """
    if first == len(rows.parts):
        return joined([])
    found = [
        _nearest_block(rows, queries[start : start + _BLOCK_QUERIES], k, masks, first, start)
        for start in range(0, len(queries), _BLOCK_QUERIES)
    ]
    return joined(found)


def joined(candidates: list[Candidates]) -> Candidates:
    """Several sets of candidates as one."""
    empty = np.zeros(0, dtype=np.int64)
    return Candidates(
        np.concatenate([empty, *(one.query for one in candidates)]),
        np.concatenate([empty, *(one.row for one in candidates)]),
    )


def _nearest_block(
    rows: Rows,
    queries: np.ndarray,
    k: int,
    masks: list[np.ndarray | None],
    first: int,
    start: int,
) -> Candidates:
    narrow = queries.astype(np.float32)
    floor = np.full(len(queries), -2.0, dtype=np.float32)  # a lower bound of each k-th similarity
    query_ids, positions, similarities = [], [], []
    for index in range(first, len(rows.parts)):
        matrix, mask = rows.parts[index].matrix, masks[index]
        for begin in range(0, len(matrix), _BLOCK_ROWS):
            block = matrix[begin : begin + _BLOCK_ROWS]
            local = None
            if mask is not None:
                chosen = mask[begin : begin + _BLOCK_ROWS]
                local = np.flatnonzero(chosen)
                if local.size == 0:
                    continue
                if local.size < _SPARSE * len(block):
                    block = block[local]
                else:
                    local = None
            products = narrow @ block.T
            if mask is not None and local is None:
                products[:, ~chosen] = -np.inf
            close = products >= (floor - MARGIN)[:, None]
            if np.count_nonzero(close) > 4 * k * len(queries) and k < products.shape[1]:
                at = products.shape[1] - k
                floor = np.maximum(floor, np.partition(products, at, axis=1)[:, at])
                close = products >= (floor - MARGIN)[:, None]
            which, column = np.nonzero(close)
            query_ids.append(which)
            similarities.append(products[which, column])
            column = column if local is None else local[column]
            positions.append(column + (begin + rows.offsets[index]))
    if not query_ids:
        return joined([])
    query, row = np.concatenate(query_ids), np.concatenate(positions)
    kept = _above_kth(query, np.concatenate(similarities), k, MARGIN)
    return Candidates(query[kept] + start, row[kept])


def _above_kth(query: np.ndarray, score: np.ndarray, k: int, margin: float) -> np.ndarray:
    """Indices of the pairs within `margin` of their query's k-th best, by query, then -score."""
    if not len(query):
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort((-score, query))
    begins = np.flatnonzero(np.diff(query[order], prepend=-1))
    counts = np.diff(begins, append=len(order))
    kth = score[order[begins + np.minimum(k, counts) - 1]] - np.float32(margin)
    return order[score[order] >= np.repeat(kth, counts)]


def score_pairs(rows: Rows, queries: np.ndarray, candidates: Candidates) -> np.ndarray:
    """float32 (m,): the score of each pair, the same in every store."""
    scores = np.empty(len(candidates.row), dtype=np.float32)
    for start in range(0, len(scores), _BLOCK_PAIRS):
        pairs = slice(start, start + _BLOCK_PAIRS)
        vectors = rows.vectors(candidates.row[pairs])
        scores[pairs] = cosines(vectors, queries[candidates.query[pairs]])
    return scores


def hit_table(rows: Rows, queries: np.ndarray, candidates: Candidates, k: int) -> pa.Table:
    """Scores the candidates and keeps the k best of each query.

    Returns:
        query int32, rank int32 (from 1), id string, score float32, then every other column but
        the vector; sorted by query, then (-score, id).
    """
    scores = score_pairs(rows, queries, candidates)
    order = np.lexsort((-scores, candidates.query))
    query, row, score = candidates.query[order], candidates.row[order], scores[order]
    if np.any((query[1:] == query[:-1]) & (score[1:] == score[:-1])):
        order = _by_id(rows, query, row, score)
        query, row, score = query[order], row[order], score[order]
    rank = np.arange(1, len(query) + 1) - np.searchsorted(query, query)
    best = rank <= k
    query, row, score, rank = query[best], row[best], score[best], rank[best]
    schema = rows.hit_schema
    attributes = rows.take(row, ["id", *schema.names[len(HIT_COLUMNS) :]])
    hits = {
        "query": pa.array(query.astype(np.int32)),
        "rank": pa.array(rank.astype(np.int32)),
        "id": attributes.column(0),
        "score": pa.array(score),
    }
    columns = [hits[name] for name in HIT_COLUMNS]
    return pa.Table.from_arrays([*columns, *attributes.columns[1:]], schema=schema)


def _by_id(rows: Rows, query: np.ndarray, row: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The order by query, then (-score, id)."""
    table = pa.table({"query": query, "score": score, "id": rows.take(row, ["id"])["id"]})
    keys = [("query", "ascending"), ("score", "descending"), ("id", "ascending")]
    order: np.ndarray = pc.sort_indices(table, sort_keys=keys).to_numpy()
    return order


def search(rows: Rows, queries: np.ndarray, k: int, where: str | None) -> pa.Table:
    """Exact search: the k best live rows for each query among those that `where` accepts.

    Raises:
        QueryError, FilterError: see `VectorStore.search`.
    """
    dim = rows.schema.field(VECTOR).type.list_size
    units, count = unit_queries(queries, dim), require_k(k)
    return hit_table(rows, units, nearest(rows, units, count, rows.masks(where)), count)
