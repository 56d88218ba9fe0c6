"""Statistics of timings: few samples, a long tail to the right, and pairs from the same round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Spread:
    """Where samples lie.

    Attributes:
        n: how many there are.
        median: the figure to quote.
        low, high: a bootstrap interval of the median, of level `LEVEL`; with less than six samples
            it can be no wider than the samples and says little.
        min, q1, q3, max: the least, the quartiles, the greatest.
    """

    n: int
    median: float
    low: float
    high: float
    min: float
    q1: float
    q3: float
    max: float


def spread(values: Sequence[float]) -> Spread:
    """Median, its interval, and quartiles of at least one value.

    Example:
        >>> spread([3, 1, 2]).median, spread([3, 1, 2]).min
        (2.0, 1.0)
    """
    sample = np.asarray(values, np.float64)
    if not sample.size:
        raise ValueError("expected at least one sample, found none")
    low, high = median_interval(sample)
    q1, median, q3 = (float(q) for q in np.quantile(sample, (0.25, 0.5, 0.75)))
    return Spread(len(sample), median, low, high, float(sample.min()), q1, q3, float(sample.max()))


def median_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap (Efron 1979) of the median; the same values give the same interval."""
    sample = np.asarray(values, np.float64)
    places = np.random.default_rng(0).integers(0, len(sample), (RESAMPLES, len(sample)))
    medians = np.median(sample[places], axis=1)
    low, high = np.quantile(medians, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The ratios of values from the same rounds: what slows a whole round down cancels.

    Example:
        >>> paired_ratio([2, 20, 4], [1, 10, 2]).median
        2.0
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"expected pairs, found {len(numerators)} and {len(denominators)} values")
    return spread([one / other for one, other in zip(numerators, denominators, strict=True)])
