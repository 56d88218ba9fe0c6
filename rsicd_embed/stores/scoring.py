"""Exact search, shared by every store: the same rows get the same scores, to the last bit.

Matrix products choose the candidates, with a margin for their rounding. Each candidate is then
scored by itself in float64, so its score depends neither on the store nor on the batch it is in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.records import VECTOR
from rsicd_embed.stores.quantised import LEAST_ROWS, MOST_QUERIES, QuantisedQueries
from rsicd_embed.stores.queries import require_k, unit_queries
from rsicd_embed.stores.row_view import Rows, RowView, column_of

# Above twice the error of a float32 product of unit vectors (1e-7 to 1e-6 for 4,096 dimensions),
# the rows themselves being unit to 1e-6.
MARGIN = 4e-6
_BLOCK_ROWS = 65_536
_BLOCK_QUERIES = 256
# Of the float64 copies of pairs: they stay in the cache, and below the 128 KB from which on glibc
# asks the system for fresh pages each time.
_BLOCK_NUMBERS = 15_360
_COPIED_ROWS = 1024  # float64 copies of so many vectors stay in the processor's cache
_FEW = 32
_SPARSE = 0.1  # below this share of rows, copying the chosen ones is faster than masking all


@dataclass(frozen=True)
class Candidates:
    """Pairs that may be among the best: int64 (m,) query numbers and row positions."""

    query: np.ndarray
    row: np.ndarray


def cosines(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """float32 (m, dim) with float64 (m, dim) of unit norm → float32 (m,) in [-1, 1].

    Products are summed row by row, so a pair's score does not depend on the others.
    """
    wide = vectors.astype(np.float64)
    scores = np.vecdot(wide, queries) / np.sqrt(np.vecdot(wide, wide))
    # Above 1 by no more than the rounding of float64, which float32 does not see.
    narrow: np.ndarray = scores.astype(np.float32)
    narrow += 0.0  # no negative zero
    return narrow


def cosines_with(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """float32 (n, dim) with one float64 (dim,) of unit norm → float32 (n,), as `cosines`."""
    blocks = [
        cosines(vectors[start : start + _COPIED_ROWS], query[None])
        for start in range(0, len(vectors), _COPIED_ROWS)
    ]
    return np.concatenate([np.zeros(0, dtype=np.float32), *blocks])


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
    if len(candidates) == 1:
        return candidates[0]
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
    floor = np.full(len(queries), -2.0, dtype=np.float32)  # a lower bound of each k-th similarity
    query_ids, positions, bounds, widest = [], [], [], 0.0
    for index in range(first, len(rows.parts)):
        part, mask = rows.parts[index], masks[index]
        upper_bounds = _upper_bounds(part, mask, queries)
        for begin in range(0, len(part), _BLOCK_ROWS):
            chosen = slice(begin, min(begin + _BLOCK_ROWS, len(part)))
            local: np.ndarray | None = None
            if mask is not None:
                local = np.flatnonzero(mask[chosen])
                if local.size == 0:
                    continue
                if local.size >= _SPARSE * (chosen.stop - begin):
                    local = None
            upper, width = upper_bounds(chosen if local is None else local + begin)
            if mask is not None and local is None:
                upper[:, ~mask[chosen]] = -np.inf
            close = upper >= floor[:, None]
            if np.count_nonzero(close) > 4 * k * len(queries) and k < upper.shape[1]:
                at = upper.shape[1] - k
                kth = np.partition(upper, at, axis=1)[:, at] - np.float32(width)
                floor = np.maximum(floor, kth)
                close = upper >= floor[:, None]
            which, column = np.nonzero(close)
            query_ids.append(which)
            bounds.append(upper[which, column])
            column = column if local is None else local[column]
            positions.append(column + (begin + rows.offsets[index]))
            widest = max(widest, width)
    if not query_ids:
        return joined([])
    query, row = np.concatenate(query_ids), np.concatenate(positions)
    kept = _above_kth(query, np.concatenate(bounds), k, widest)
    return Candidates(query[kept] + start, row[kept])


# Rows of a part → float32 (q, m) bounds of their similarities, and by how much those may be lower.
UpperBounds = Callable[[slice | np.ndarray], tuple[np.ndarray, float]]


def _upper_bounds(part: RowView, mask: np.ndarray | None, queries: np.ndarray) -> UpperBounds:
    """By the part's codes where that is faster, or else by its vectors."""
    count = len(part) if mask is None else np.count_nonzero(mask)
    if part.codes is not None and len(queries) <= MOST_QUERIES and count >= LEAST_ROWS:
        return partial(QuantisedQueries(queries, part.codes.mean).upper_bounds, part.codes)
    narrow = queries.astype(np.float32)
    # Bounds but for half of the margin, which all of them lack.
    return lambda rows: (narrow @ part.matrix[rows].T, MARGIN)


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
    blocks = []
    step = max(1, _BLOCK_NUMBERS // queries.shape[1])
    for start in range(0, len(candidates.row), step):
        pairs = slice(start, start + step)
        vectors = rows.vectors(candidates.row[pairs])
        sought = queries if len(queries) == 1 else queries[candidates.query[pairs]]
        blocks.append(cosines(vectors, sought))
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate([np.zeros(0, dtype=np.float32), *blocks])


def hit_table(rows: Rows, queries: np.ndarray, candidates: Candidates, k: int) -> pa.Table:
    """Scores the candidates and keeps the k best of each query.

    Returns:
        query int32, rank int32 (from 1), id string, score float32, then every other column but
        the vector; sorted by query, then (-score, id).
    """
    if len(queries) == 1:
        return hits_of_one(rows, queries, candidates.row, k)
    return _ranked_hits(rows, candidates, score_pairs(rows, queries, candidates), k)


def hits_of_one(rows: Rows, query: np.ndarray, row: np.ndarray, k: int) -> pa.Table:
    """`hit_table` for one query, float64 (1, dim), and its candidates, int64 (m,).

    After a search in a graph no code of NumPy or Arrow is left in the processor's caches, so that
    each call of it takes some microseconds: a few candidates are put in order by Python alone.
    """
    if len(row) > _FEW:
        candidates = Candidates(np.zeros_like(row), row)
        return _ranked_hits(rows, candidates, score_pairs(rows, query, candidates), k)
    scores = cosines(rows.vectors(row), query)
    listed = scores.tolist()
    if len(set(listed)) < len(listed):  # ids decide
        return _ranked_hits(rows, Candidates(np.zeros_like(row), row), scores, k)
    order = sorted(range(len(listed)), key=listed.__getitem__, reverse=True)
    if order != [*range(len(order))]:  # they came from the graph in another order
        row, scores = row.take(order), scores.take(order)
    row, scores = row[:k], scores[:k]
    return _hits(rows, row, scores, _places_of_one(len(row)))


def _ranked_hits(rows: Rows, candidates: Candidates, scores: np.ndarray, k: int) -> pa.Table:
    query, rank, row, score = _ranked(rows, candidates, scores, k)
    places = (pa.array(query.astype(np.int32)), pa.array(rank.astype(np.int32)))
    return _hits(rows, row, score, places)


def _hits(
    rows: Rows, row: np.ndarray, scores: np.ndarray, places: tuple[pa.Array, pa.Array]
) -> pa.Table:
    # Each step that makes Python objects of all columns would take as long as all of these.
    query, rank, score = rows.place_fields
    hits = rows.take(row).add_column(1, score, column_of(scores))
    hits = hits.add_column(0, rank, places[1]).add_column(0, query, places[0])
    return pa.Table.from_batches([hits])


def _ranked(
    rows: Rows, candidates: Candidates, scores: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Query, rank from 1, position and score of the k best of each query, by (-score, id)."""
    order = np.lexsort((-scores, candidates.query))
    query, row, score = candidates.query[order], candidates.row[order], scores[order]
    if ((score[1:] == score[:-1]) & (query[1:] == query[:-1])).any():
        order = _by_id(rows, query, row, score)
        query, row, score = query[order], row[order], score[order]
    rank = np.arange(1, len(query) + 1) - query.searchsorted(query)
    best = rank <= k
    return query[best], rank[best], row[best], score[best]


@lru_cache(maxsize=4)
def _places_of_one(count: int) -> tuple[pa.Array, pa.Array]:
    """The columns query and rank of so many hits for one query."""
    return pa.array(np.zeros(count, np.int32)), pa.array(np.arange(1, count + 1, dtype=np.int32))


def _by_id(rows: Rows, query: np.ndarray, row: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The order by query, then (-score, id)."""
    ids = rows.take(row).column("id")
    table = pa.table({"query": query, "score": score, "id": ids})
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
