"""Statistics of timings: few samples, a long tail to the right, and pairs from the same round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Where samples lie.

    Attributes:
        n: how many there are.
        median: the figure to quote.
        low, high: an interval of the median, of level `LEVEL`; see `median_interval`.
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
    """Between two of the samples, so that the median is there in at least `LEVEL` of all cases.

    At most j of n samples lie below the median with the probability of at most j heads among n
    tosses (Thompson 1936), however they are distributed. Less than six samples are too few for the
    level; all of them are taken. (A percentile bootstrap is too narrow for such numbers: of seven
    samples it leaves out the outermost two, and holds the median in 88 of 100 cases.)

    Example:
        >>> median_interval([3, 1, 2, 7, 6, 5, 4]), median_interval(range(1, 11))
        ((1.0, 7.0), (2.0, 9.0))
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    tail, out = 1, 0  # sequences of tosses with at most `out` heads, of 2**n
    while 2 * tail / 2**n <= 1 - LEVEL:
        out += 1
        tail += math.comb(n, out)
    left_out = max(0, out - 1)
    return float(ordered[left_out]), float(ordered[n - 1 - left_out])


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The ratios of values from the same rounds: what slows a whole round down cancels.

    Example:
        >>> paired_ratio([2, 20, 4], [1, 10, 2]).median
        2.0
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"expected pairs, found {len(numerators)} and {len(denominators)} values")
    return spread([one / other for one, other in zip(numerators, denominators, strict=True)])
