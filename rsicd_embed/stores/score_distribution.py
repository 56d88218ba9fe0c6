"""How unusual a score is, compared with the scores of all rows of a store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rsicd_embed.errors import QueryError
from rsicd_embed.records import VECTOR, vector_matrix
from rsicd_embed.stores.base import VectorStore
from rsicd_embed.stores.scoring import cosines_with, unit_queries


@dataclass(frozen=True)
class ScoreDistribution:
    """The scores of all rows of a store for one query, equal to those that `search` reports.

    Attributes:
        scores: float32 (rows,), ascending.
    """

    scores: np.ndarray

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.scores)

    @property
    def mean(self) -> float:
        """Mean score; 0 without rows."""
        return float(self.scores.mean(dtype=np.float64)) if self.rows else 0.0

    @property
    def median(self) -> float:
        """Median score; 0 without rows."""
        return float(np.median(self.scores)) if self.rows else 0.0

    @property
    def standard_deviation(self) -> float:
        """Standard deviation of the scores; 0 without rows."""
        return float(self.scores.std(dtype=np.float64)) if self.rows else 0.0

    def percentile(self, score: float) -> float:
        """Percentage of rows that score below `score`; 0 without rows.

        Example:
            >>> ScoreDistribution(np.array([0.1, 0.2, 0.2, 0.4], np.float32)).percentile(0.4)
            75.0
        """
        below = int(self.scores.searchsorted(np.float32(score)))
        return 100 * below / self.rows if self.rows else 0.0

    def deviations(self, score: float) -> float | None:
        """Standard deviations of `score` above the mean; None if all scores are equal."""
        deviation = self.standard_deviation
        return (score - self.mean) / deviation if deviation else None


def measure(store: VectorStore, query: np.ndarray) -> ScoreDistribution:
    """Scores every row of a store against one vector, (1, dim) or (dim,), in batches.

    Raises:
        QueryError: not one usable vector of the store's dimension.
    """
    units = unit_queries(query, store.provenance.dim)
    if len(units) != 1:
        raise QueryError(f"expected one query to explain, found {len(units)}")
    scores = [np.zeros(0, np.float32)]
    with store.scan([VECTOR]) as reader:
        scores += [cosines_with(vector_matrix(batch[VECTOR]), units[0]) for batch in reader]
    return ScoreDistribution(np.sort(np.concatenate(scores)))
