"""What is right: the k best rows by cosine, recomputed here, and how many of them were found.

Blocks of float32 products choose candidates, with a margin for their rounding; each is then scored
in float64, and the two must agree to that margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rsicd_embed.bench.ann.workload import PART, Workload
from rsicd_embed.errors import BenchError
from rsicd_embed.evaluation.bootstrap import Bootstrap, intervals
from rsicd_embed.reports import record

# Twice over the rounding of a float32 product of unit vectors, up to some thousand dimensions.
MARGIN = 1e-5
# Rows as similar as this are as good as each other: what a float32 score cannot tell apart.
TIE = 1e-6
_BLOCK_ROWS = 32_768
_BLOCK_PAIRS = 8_192


def cosines(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(m, dim) with (m, dim) → float64 (m,), pair by pair."""
    found = np.empty(len(vectors), np.float64)
    for start in range(0, len(vectors), _BLOCK_PAIRS):
        one = vectors[start : start + _BLOCK_PAIRS].astype(np.float64)
        other = queries[start : start + _BLOCK_PAIRS].astype(np.float64)
        product = np.einsum("nd,nd->n", one, other)
        norms = np.einsum("nd,nd->n", one, one) * np.einsum("nd,nd->n", other, other)
        found[start : start + _BLOCK_PAIRS] = product / np.sqrt(norms)
    return found


def kth_best(
    base: np.ndarray, queries: np.ndarray, k: int, mask: np.ndarray | None = None
) -> np.ndarray:
    """float64 (q,): the cosine of each query's k-th best row, or of its worst if there are fewer.

    Args:
        base: float32 (n, dim) of unit norm; may be mapped from a file.
        queries: float32 (q, dim) of unit norm.
        k: at least 1.
        mask: bool (n,), the rows that count; None for all.

    Raises:
        BenchError: no row counts, or the products cannot be trusted.

    Example:
        >>> rows = np.eye(3, dtype=np.float32)
        >>> kth_best(rows, rows[:1], 1), kth_best(rows, rows[:1], 2)
        (array([1.]), array([0.]))
    """
    best = [np.zeros(0)] * len(queries)
    for start in range(0, len(base), _BLOCK_ROWS):
        block = np.asarray(base[start : start + _BLOCK_ROWS])
        if mask is not None:
            block = block[mask[start : start + _BLOCK_ROWS]]
        if len(block):
            best = _merged(best, block, queries, k)
    if not len(best[0]):
        raise BenchError("no ground truth is possible: no row is to be searched")
    return np.array([one[-1] for one in best])


def _merged(
    best: Sequence[np.ndarray], block: np.ndarray, queries: np.ndarray, k: int
) -> list[np.ndarray]:
    """The k best cosines of each query so far, the best first, with those of another block."""
    products = queries @ block.T
    floor = np.array([one[k - 1] if len(one) >= k else -np.inf for one in best])
    if len(block) > k:
        own = np.partition(products, len(block) - k, axis=1)[:, len(block) - k]
        floor = np.maximum(floor, own)
    query, row = np.nonzero(products >= (floor - MARGIN)[:, None])
    scores = np.empty(len(query))
    for start in range(0, len(query), _BLOCK_PAIRS):
        pairs = slice(start, start + _BLOCK_PAIRS)
        scores[pairs] = cosines(block[row[pairs]], queries[query[pairs]])
    error = np.abs(scores - products[query, row]).max(initial=0.0)
    if not error <= MARGIN:
        raise BenchError(f"float32 products are wrong by {error:.2g}: no ground truth is possible")
    ends = np.searchsorted(query, np.arange(len(queries) + 1))
    return [
        -np.sort(-np.concatenate([one, scores[ends[i] : ends[i + 1]]]))[:k]
        for i, one in enumerate(best)
    ]


def ann_recalls(
    found: Sequence[np.ndarray],
    base: np.ndarray,
    queries: np.ndarray,
    kth: np.ndarray,
    k: int,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """float64 (q,): ANN recall@k of each query, from the rows alone.

    A row counts once, if it may be found and its cosine, recomputed, is that of the k-th best row
    or better; so of rows that tie at the k-th place any will do. Beyond k nothing counts.

    Args:
        found: for each query the int positions of what a search gave, best first.
        base, queries, k, mask: as for `kth_best`.
        kth: what it returned.
    """
    wanted = min(k, len(base) if mask is None else int(np.count_nonzero(mask)))
    shares = np.zeros(len(found))
    for i, rows in enumerate(found):
        given = np.unique(np.asarray(rows[:k], np.int64))
        given = given[(given >= 0) & (given < len(base))]
        if mask is not None:
            given = given[mask[given]]
        near = cosines(base[given], np.broadcast_to(queries[i], (len(given), queries.shape[1])))
        shares[i] = min(wanted, int(np.count_nonzero(near >= kth[i] - TIE))) / wanted
    return shares


@dataclass(frozen=True)
class Truth:
    """What the searches should find.

    Attributes:
        workload: rows and queries.
        k: rows for each query.
        below: only rows whose part is less count; None for all.
    """

    workload: Workload
    k: int
    below: int | None = None

    @property
    def where(self) -> str | None:
        """For the searches."""
        return None if self.below is None else f"{PART} < {self.below}"

    @property
    def mask(self) -> np.ndarray | None:
        """bool (rows,): those that count."""
        return None if self.below is None else self.workload.parts() < self.below

    @cached_property
    def kth(self) -> np.ndarray:
        """See `kth_best`."""
        return kth_best(self.workload.base, self.workload.queries, self.k, self.mask)

    def of_neighbours(self) -> float | None:
        """ANN recall@k of the rows that the source itself calls nearest; None where it says none.

        Less than 1 where the source is wrong, or names fewer than k.
        """
        if self.workload.neighbours is None:
            return None
        found = list(self.workload.neighbours)
        base, queries = self.workload.base, self.workload.queries
        shares = ann_recalls(found, base, queries, self.kth, self.k, self.mask)
        return record.significant(float(shares.mean()))

    def ann_recall(self, found: Sequence[np.ndarray]) -> dict[str, Any]:
        """Mean ANN recall@k, over all queries that were answered and by kind."""
        base, queries = self.workload.base, self.workload.queries
        shares = ann_recalls(found, base, queries, self.kth, self.k, self.mask)
        kinds = np.array(self.workload.kinds[: len(found)])
        by_kind = {kind: shares[kinds == kind] for kind in dict.fromkeys(self.workload.kinds)}
        low, high = _mean_interval(shares)
        return {
            "ann_recall": record.significant(float(shares.mean())),
            "ann_recall_interval": [record.significant(low), record.significant(high)],
            "ann_recall_by_kind": {
                kind: record.significant(float(one.mean()))
                for kind, one in by_kind.items()
                if one.size
            },
            "least_of_a_query": record.significant(float(shares.min())),
            "queries": len(found),
        }


def _mean_interval(shares: np.ndarray) -> tuple[float, float]:
    """Bootstrap interval of the mean over queries."""
    ends = intervals(lambda drawn: {"mean": drawn @ shares / len(shares)}, len(shares), Bootstrap())
    return ends["mean"]
