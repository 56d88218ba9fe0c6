"""Statistics of numbers with known results."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from rsicd_embed.reports.timing import median_interval, paired_ratio, spread


def test_spread_of_known_numbers() -> None:
    result = spread([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (result.n, result.median, result.min, result.max) == (5, 3.0, 1.0, 5.0)
    assert (result.q1, result.q3) == (2.0, 4.0)
    assert result.min <= result.low <= result.median <= result.high <= result.max


def test_spread_of_a_single_number_and_of_none() -> None:
    assert spread([7.0]).low == spread([7.0]).high == spread([7.0]).median == 7.0
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_the_order_of_samples_matters_for_pairs_only() -> None:
    assert spread([3, 1, 2]).median == spread([1, 2, 3]).median
    assert paired_ratio([1, 2], [2, 1]).median != paired_ratio([1, 2], [1, 2]).median


def test_the_interval_narrows_with_samples_and_is_deterministic() -> None:
    few = [float(i % 5) for i in range(10)]
    many = few * 20
    assert median_interval(few) == median_interval(few)
    low, high = median_interval(few)
    low_of_many, high_of_many = median_interval(many)
    assert high_of_many - low_of_many < high - low


@pytest.mark.parametrize(
    ("n", "left_out"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (20, 5), (2000, 955)]
)
def test_the_interval_lies_between_samples(n: int, left_out: int) -> None:
    """Leaves out as many samples on each side as scipy's binomial distribution allows."""
    assert median_interval(range(n)) == (left_out, n - 1 - left_out)
    if left_out:
        assert binom.cdf(left_out, n, 0.5) <= 0.025 < binom.cdf(left_out + 1, n, 0.5)


@pytest.mark.parametrize("n", [6, 7, 10, 30])
def test_the_interval_has_the_stated_coverage(n: int) -> None:
    """For samples with a long tail, like timings, whose true median is 1."""
    drawn = np.random.default_rng(n).lognormal(0, 1, (4000, n))
    covered = [low <= 1 <= high for low, high in map(median_interval, drawn)]
    assert 0.94 < np.mean(covered) < 0.995


def test_pairs_cancel_slow_rounds() -> None:
    """The machine slows down tenfold; the ratio within each round is the same."""
    slow, fast = [2.0, 20.0, 2.2], [1.0, 10.0, 1.1]
    result = paired_ratio(slow, fast)
    assert (result.low, result.median, result.high) == pytest.approx((2.0, 2.0, 2.0))
    with pytest.raises(ValueError, match="pairs"):
        paired_ratio([1.0], [1.0, 2.0])
