"""Exact nearest rows by cosine, and the ANN recall of search results.

Float32 products of blocks select candidates, with a margin for rounding; each candidate is then
scored in float64, and the two scores must agree within that margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rsicd_embed.bench.ann.workload import PART, Workload
from rsicd_embed.errors import BenchError
from rsicd_embed.evaluation.metrics import Bootstrap, intervals
from rsicd_embed.reports.record_types import SearchAccuracy
from rsicd_embed.reports.timing import significant

# Twice the rounding error of a float32 product of unit vectors, up to some thousand dimensions.
MARGIN = 1e-5
# Rows whose cosines differ by less count as tied: a float32 score cannot tell them apart.
TIE = 1e-6
_BLOCK_ROWS = 32_768
_BLOCK_PAIRS = 8_192


def cosines(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Cosines of pairs: (m, dim) and (m, dim) → float64 (m,)."""
    result = np.empty(len(vectors), np.float64)
    for start in range(0, len(vectors), _BLOCK_PAIRS):
        block = slice(start, start + _BLOCK_PAIRS)
        left, right = vectors[block].astype(np.float64), queries[block].astype(np.float64)
        norms = np.einsum("nd,nd->n", left, left) * np.einsum("nd,nd->n", right, right)
        result[block] = np.einsum("nd,nd->n", left, right) / np.sqrt(norms)
    return result


def kth_best(
    base: np.ndarray, queries: np.ndarray, k: int, mask: np.ndarray | None = None
) -> np.ndarray:
    """float64 (q,): the cosine of each query's k-th best row, or of its worst if there are fewer.

    Args:
        base: float32 (n, dim) of unit norm; may be memory-mapped.
        queries: float32 (q, dim) of unit norm.
        k: at least 1.
        mask: bool (n,), the rows that pass the filter; None for all.

    Raises:
        BenchError: no row passes, or float32 products are too inexact.

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
            best = _merge(best, block, queries, k)
    if not len(best[0]):
        raise BenchError("expected at least one row to search, found none")
    return np.array([scores[-1] for scores in best])


def _merge(
    best: Sequence[np.ndarray], block: np.ndarray, queries: np.ndarray, k: int
) -> list[np.ndarray]:
    """The k best cosines of each query so far, best first, with those of another block."""
    products = queries @ block.T
    floor = np.array([scores[k - 1] if len(scores) >= k else -np.inf for scores in best])
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
        raise BenchError(
            f"expected float32 products of unit vectors to be exact to {MARGIN:g}, found errors of "
            f"{error:.2g}; the ground truth cannot be computed"
        )
    ends = np.searchsorted(query, np.arange(len(queries) + 1))
    return [
        -np.sort(-np.concatenate([before, scores[ends[i] : ends[i + 1]]]))[:k]
        for i, before in enumerate(best)
    ]


def ann_recalls(
    results: Sequence[np.ndarray],
    base: np.ndarray,
    queries: np.ndarray,
    kth: np.ndarray,
    k: int,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """float64 (q,): ANN recall@k of each query, from row positions alone.

    A row counts once, if it passes the filter and its recomputed cosine reaches that of the k-th
    best row; among rows tied at the k-th place, any will do. Results beyond k do not count.

    Args:
        results: int positions of the results of each query, best first.
        base, queries, k, mask: as for `kth_best`.
        kth: the result of `kth_best`.
    """
    relevant = min(k, len(base) if mask is None else int(np.count_nonzero(mask)))
    shares = np.zeros(len(results))
    for i, positions in enumerate(results):
        rows = np.unique(np.asarray(positions[:k], np.int64))
        rows = rows[(rows >= 0) & (rows < len(base))]
        if mask is not None:
            rows = rows[mask[rows]]
        near = cosines(base[rows], np.broadcast_to(queries[i], (len(rows), queries.shape[1])))
        shares[i] = min(relevant, int(np.count_nonzero(near >= kth[i] - TIE))) / relevant
    return shares


@dataclass(frozen=True)
class GroundTruth:
    """The correct results of the searches of a workload.

    Attributes:
        workload: rows and queries.
        k: rows per query.
        below: filter: only rows whose part is below this; None for all.
    """

    workload: Workload
    k: int
    below: int | None = None

    @property
    def where(self) -> str | None:
        """The filter of the searches."""
        return None if self.below is None else f"{PART} < {self.below}"

    @property
    def mask(self) -> np.ndarray | None:
        """bool (rows,): the rows that pass the filter; None for all."""
        return None if self.below is None else self.workload.parts() < self.below

    @cached_property
    def kth(self) -> np.ndarray:
        """Cosine of each query's k-th best row; see `kth_best`."""
        return kth_best(self.workload.base, self.workload.queries, self.k, self.mask)

    def ann_recall_of_source(self) -> float | None:
        """ANN recall@k of the source's own ground truth; None if it has none.

        Below 1 if the source is wrong, or lists fewer than k rows.
        """
        if self.workload.neighbours is None:
            return None
        return significant(float(self._shares(list(self.workload.neighbours)).mean()))

    def ann_recall(self, results: Sequence[np.ndarray]) -> SearchAccuracy:
        """Mean ANN recall@k of the queries that were answered, in total and by kind."""
        shares = self._shares(results)
        kinds = np.array(self.workload.kinds[: len(results)])
        by_kind = {kind: shares[kinds == kind] for kind in dict.fromkeys(self.workload.kinds)}
        n = len(shares)
        ends = intervals(lambda drawn: {"mean": drawn @ shares / n}, n, Bootstrap())["mean"]
        return {
            "ann_recall": significant(float(shares.mean())),
            "ann_recall_interval": [significant(end) for end in ends],
            "ann_recall_by_kind": {
                kind: significant(float(own.mean())) for kind, own in by_kind.items() if own.size
            },
            "least_of_a_query": significant(float(shares.min())),
            "queries": n,
        }

    def _shares(self, results: Sequence[np.ndarray]) -> np.ndarray:
        base, queries = self.workload.base, self.workload.queries
        return ann_recalls(results, base, queries, self.kth, self.k, self.mask)
