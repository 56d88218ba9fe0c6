"""Exact search and scores, shared by all stores: equal rows get equal scores, to the last bit.

Matrix products select candidates, with a margin for rounding errors. Each candidate is then scored
in float64, independently of the store and of the batch it is in.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.arguments import shown
from rsicd_embed.errors import QueryError
from rsicd_embed.records import VECTOR
from rsicd_embed.stores.quantised import LEAST_ROWS, MOST_QUERIES, QuantisedQueries
from rsicd_embed.stores.row_view import Rows, RowView, column_of

# More than twice the error of a float32 product of unit vectors (1e-7, or 1e-6 for 4,096
# dimensions), the rows themselves being unit to 1e-6.
MARGIN = 4e-6
_BLOCK_ROWS = 65_536
_BLOCK_QUERIES = 256
# Numbers in a block of float64 copies: they fit the cache, and stay below the 128 KB from which
# glibc asks the system for fresh pages each time.
_BLOCK_NUMBERS = 15_360
_BLOCK_SCORED = 1024  # vectors copied to float64 at a time, for the same reason
_FEW = 32
_SPARSE = 0.1  # below this share of rows, copying the chosen ones is faster than masking the rest
_MAX_K = 2**31 - 1  # ranks are int32
_SAFE = 1e100  # squares of numbers up to it, and of their reciprocals, are finite in float64


def unit_queries(queries: np.ndarray, dim: int) -> np.ndarray:
    """Normalises queries (q, dim), or (dim,) for one, of any real type → float64 (q, dim).

    Raises:
        QueryError: another shape or type, or a query that is zero or not finite.
    """
    _require_embedded(queries)
    try:
        given = np.asarray(queries)
        real = given.dtype.kind in "fiu"
        could_overflow = given.dtype.itemsize > 4
        given = given.astype(np.float64, order="C") if real else given
    except (TypeError, ValueError) as error:
        raise QueryError(f"expected query vectors of numbers: {error}") from None
    if not real:
        raise QueryError(f"expected query vectors of real numbers, found dtype {given.dtype}")
    if given.ndim not in (1, 2) or given.shape[-1] != dim:
        raise QueryError(
            f"expected queries of shape (q, {dim}) or ({dim},), found {given.shape}; "
            "embed them with the model that made the store"
        )
    wide = given.reshape(-1, dim)
    if could_overflow:
        _scale_extremes(wide)
    squares = np.vecdot(wide, wide)
    if len(squares) == 1 and 0 < (norm := math.sqrt(squares.item())) < math.inf:
        unit: np.ndarray = wide / norm  # the usual case, in fewer steps
        return unit
    norms = np.sqrt(squares)
    usable = (norms > 0) & (norms < np.inf)
    if not usable.all():
        bad = int(usable.argmin())
        kind = "zero" if norms[bad] == 0 else "not finite"
        raise QueryError(f"query {bad} is {kind}, so it has no direction to compare with")
    units: np.ndarray = wide / norms[:, None]
    return units


def _require_embedded(queries: object) -> None:
    """Refuses texts and images, which must be embedded first."""
    first = queries[0] if isinstance(queries, list | tuple) and queries else queries
    for kind, method in ((str, "embed_texts"), (os.PathLike, "embed_images")):
        if isinstance(first, kind):
            raise QueryError(
                f"expected query vectors, found {shown(first)}; embed it first: "
                f"store.search(embedder.{method}([{shown(first)}]))"
            )


def _scale_extremes(queries: np.ndarray) -> None:
    """Scales, in place, the queries whose squares would overflow or vanish."""
    largest = np.abs(queries).max(axis=1, initial=0.0)
    finite = (largest > 0) & (largest < np.inf)
    extreme = finite & ((largest > _SAFE) | (largest < 1 / _SAFE))
    queries[extreme] /= largest[extreme, None]


def require_k(k: int) -> int:
    """Returns k as an int, limited to what int32 ranks can count; QueryError if it is below 1."""
    try:
        count = operator.index(k)
    except TypeError:
        count = 0
    if count < 1 or isinstance(k, bool):
        raise QueryError(f"expected k to be a whole number of at least 1, found {k!r}")
    return min(count, _MAX_K)


@dataclass(frozen=True)
class Candidates:
    """Pairs of int64 (m,) query numbers and row positions that may be among the best."""

    query: np.ndarray
    row: np.ndarray


def cosines(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Scores float32 (m, dim) against float64 (m, dim) of unit norm → float32 (m,) in [-1, 1].

    Products are summed row by row, so the score of a pair does not depend on the others.
    """
    wide = vectors.astype(np.float64)
    scores = np.vecdot(wide, queries) / np.sqrt(np.vecdot(wide, wide))
    # A score exceeds 1 by at most a rounding error of float64, which float32 removes.
    narrow: np.ndarray = scores.astype(np.float32)
    narrow += 0.0  # no negative zero
    return narrow


def cosines_with(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Scores float32 (n, dim) against one float64 (dim,) of unit norm → float32 (n,)."""
    blocks = [
        cosines(vectors[start : start + _BLOCK_SCORED], query[None])
        for start in range(0, len(vectors), _BLOCK_SCORED)
    ]
    return np.concatenate([np.zeros(0, dtype=np.float32), *blocks])


def search(rows: Rows, queries: np.ndarray, k: int, where: str | None) -> pa.Table:
    """Finds the k most similar live rows for each query, among those that match `where`.

    Raises:
        QueryError, FilterError: see `VectorStore.search`.
    """
    dim = rows.schema.field(VECTOR).type.list_size
    units, count = unit_queries(queries, dim), require_k(k)
    return hit_table(rows, units, nearest(rows, units, count, rows.masks(where)), count)


def nearest(
    rows: Rows, queries: np.ndarray, k: int, masks: list[np.ndarray | None], first: int = 0
) -> Candidates:
    """Every pair that may be among the k best of its query, ties included.

    Args:
        rows: the rows to search.
        queries: float64 (q, dim) of unit norm.
        k: number of rows wanted per query.
        masks: for each part the rows to search (bool), or None for all.
        first: the first part to search.
    """
    if first == len(rows.parts):
        return joined([])
    return joined(
        [
            _nearest_block(rows, queries[start : start + _BLOCK_QUERIES], k, masks, first, start)
            for start in range(0, len(queries), _BLOCK_QUERIES)
        ]
    )


def joined(candidates: list[Candidates]) -> Candidates:
    """Concatenates candidates."""
    if len(candidates) == 1:
        return candidates[0]
    empty = np.zeros(0, dtype=np.int64)
    return Candidates(
        np.concatenate([empty, *(each.query for each in candidates)]),
        np.concatenate([empty, *(each.row for each in candidates)]),
    )


def _nearest_block(
    rows: Rows,
    queries: np.ndarray,
    k: int,
    masks: list[np.ndarray | None],
    first: int,
    start: int,
) -> Candidates:
    floor = np.full(len(queries), -2.0, dtype=np.float32)  # lower bounds of the k-th similarities
    query_ids, positions, bounds, widest = [], [], [], 0.0
    for index in range(first, len(rows.parts)):
        part, mask = rows.parts[index], masks[index]
        upper_bounds = _upper_bounds(part, mask, queries)
        for begin in range(0, len(part), _BLOCK_ROWS):
            block = slice(begin, min(begin + _BLOCK_ROWS, len(part)))
            local: np.ndarray | None = None
            if mask is not None:
                local = np.flatnonzero(mask[block])
                if local.size == 0:
                    continue
                if local.size >= _SPARSE * (block.stop - begin):
                    local = None
            upper, width = upper_bounds(block if local is None else local + begin)
            if mask is not None and local is None:
                upper[:, ~mask[block]] = -np.inf
            close = upper >= floor[:, None]
            if np.count_nonzero(close) > 4 * k * len(queries) and k < upper.shape[1]:
                kth = upper.shape[1] - k
                least = np.partition(upper, kth, axis=1)[:, kth] - np.float32(width)
                floor = np.maximum(floor, least)
                close = upper >= floor[:, None]
            query, column = np.nonzero(close)
            query_ids.append(query)
            bounds.append(upper[query, column])
            column = column if local is None else local[column]
            positions.append(column + (begin + rows.offsets[index]))
            widest = max(widest, width)
    if not query_ids:
        return joined([])
    query, row = np.concatenate(query_ids), np.concatenate(positions)
    best = above_kth(query, np.concatenate(bounds), k, widest)
    return Candidates(query[best] + start, row[best])


# Rows of a part → float32 (q, m) upper bounds of their similarities, and how wide the bounds are.
_UpperBounds = Callable[[slice | np.ndarray], tuple[np.ndarray, float]]


def _upper_bounds(part: RowView, mask: np.ndarray | None, queries: np.ndarray) -> _UpperBounds:
    """Bounds by the codes of a part if that is faster, or else by its vectors."""
    if part.codes is not None:
        count = len(part) if mask is None else np.count_nonzero(mask)
        has_vectors = part.matrix.shape[1] > 0
        if not has_vectors or (len(queries) <= MOST_QUERIES and count >= LEAST_ROWS):
            return partial(QuantisedQueries(queries, part.codes.mean).upper_bounds, part.codes)
    narrow = queries.astype(np.float32)
    # All are low by the same half of the margin, which changes nothing.
    return lambda rows: (narrow @ part.matrix[rows].T, MARGIN)


def above_kth(query: np.ndarray, score: np.ndarray, k: int, margin: float = 0.0) -> np.ndarray:
    """Indices of the pairs within `margin` of their query's k-th best, by query, then -score."""
    if not len(query):
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort((-score, query))
    begins = np.flatnonzero(np.diff(query[order], prepend=-1))
    counts = np.diff(begins, append=len(order))
    kth = score[order[begins + np.minimum(k, counts) - 1]] - np.float32(margin)
    return order[score[order] >= np.repeat(kth, counts)]


def score_pairs(rows: Rows, queries: np.ndarray, candidates: Candidates) -> np.ndarray:
    """The exact score of each pair as float32 (m,)."""
    blocks = []
    step = max(1, _BLOCK_NUMBERS // queries.shape[1])
    for start in range(0, len(candidates.row), step):
        pairs = slice(start, start + step)
        vectors = rows.vectors(candidates.row[pairs])
        paired = queries if len(queries) == 1 else queries[candidates.query[pairs]]
        blocks.append(cosines(vectors, paired))
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate([np.zeros(0, dtype=np.float32), *blocks])


def hit_table(rows: Rows, queries: np.ndarray, candidates: Candidates, k: int) -> pa.Table:
    """Scores the candidates and returns the k best of each query.

    Returns:
        query int32, rank int32 (from 1), id string, score float32, then every other column but
        the vector; sorted by query, then (-score, id).
    """
    if len(queries) == 1:
        return single_query_hits(rows, queries, candidates.row, k)
    return _ranked_hits(rows, candidates, score_pairs(rows, queries, candidates), k)


def single_query_hits(rows: Rows, query: np.ndarray, row: np.ndarray, k: int) -> pa.Table:
    """`hit_table` for one query, float64 (1, dim), and its candidate rows, int64 (m,).

    A graph search evicts the code of NumPy and Arrow from the processor's caches, after which each
    call takes some microseconds, so a few candidates are sorted by Python alone.
    """
    if len(row) > _FEW:
        candidates = Candidates(np.zeros_like(row), row)
        return _ranked_hits(rows, candidates, score_pairs(rows, query, candidates), k)
    scores = cosines(rows.vectors(row), query)
    values = scores.tolist()
    if len(set(values)) < len(values):  # ids break the ties
        return _ranked_hits(rows, Candidates(np.zeros_like(row), row), scores, k)
    order = sorted(range(len(values)), key=values.__getitem__, reverse=True)
    if order != [*range(len(order))]:
        row, scores = row.take(order), scores.take(order)
    row, scores = row[:k], scores[:k]
    return _hits(rows, row, scores, _single_query_ranks(len(row)))


def _ranked_hits(rows: Rows, candidates: Candidates, scores: np.ndarray, k: int) -> pa.Table:
    order = np.lexsort((-scores, candidates.query))
    query, row, score = candidates.query[order], candidates.row[order], scores[order]
    if ((score[1:] == score[:-1]) & (query[1:] == query[:-1])).any():
        order = _by_id(rows, query, row, score)
        query, row, score = query[order], row[order], score[order]
    rank = np.arange(1, len(query) + 1) - query.searchsorted(query)
    best = rank <= k
    query_and_rank = pa.array(query[best].astype(np.int32)), pa.array(rank[best].astype(np.int32))
    return _hits(rows, row[best], score[best], query_and_rank)


def _hits(
    rows: Rows, row: np.ndarray, scores: np.ndarray, query_and_rank: tuple[pa.Array, pa.Array]
) -> pa.Table:
    # Creating Python objects for all columns in any step would double the time of this function.
    query, rank, score = rows.ranking_fields
    hits = rows.take(row).add_column(1, score, column_of(scores))
    hits = hits.add_column(0, rank, query_and_rank[1]).add_column(0, query, query_and_rank[0])
    return pa.Table.from_batches([hits])


@lru_cache(maxsize=4)
def _single_query_ranks(count: int) -> tuple[pa.Array, pa.Array]:
    """The query and rank columns of `count` hits for one query."""
    return column_of(np.zeros(count, np.int32)), column_of(np.arange(1, count + 1, dtype=np.int32))


def _by_id(rows: Rows, query: np.ndarray, row: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The order by query, then (-score, id)."""
    ids = rows.take(row).column("id")
    table = pa.table({"query": query, "score": score, "id": ids})
    keys = [("query", "ascending"), ("score", "descending"), ("id", "ascending")]
    order: np.ndarray = pc.sort_indices(table, sort_keys=keys).to_numpy()
    return order
