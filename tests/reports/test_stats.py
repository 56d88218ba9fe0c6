"""Statistics on numbers whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from rsicd_embed.reports.timing import median_interval, paired_ratio, spread


def test_spread_of_known_numbers() -> None:
    found = spread([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (found.n, found.median, found.min, found.max) == (5, 3.0, 1.0, 5.0)
    assert (found.q1, found.q3) == (2.0, 4.0)
    assert found.min <= found.low <= found.median <= found.high <= found.max


def test_spread_of_one_number_and_of_none() -> None:
    assert spread([7.0]).low == spread([7.0]).high == spread([7.0]).median == 7.0
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_the_order_of_samples_changes_nothing_but_the_pairs() -> None:
    assert spread([3, 1, 2]).median == spread([1, 2, 3]).median
    assert paired_ratio([1, 2], [2, 1]).median != paired_ratio([1, 2], [1, 2]).median


def test_the_interval_narrows_with_samples_and_is_the_same_each_time() -> None:
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
    """As scipy's binomial distribution says: the most that may be left out on each side."""
    assert median_interval(range(n)) == (left_out, n - 1 - left_out)
    if left_out:
        assert binom.cdf(left_out, n, 0.5) <= 0.025 < binom.cdf(left_out + 1, n, 0.5)


@pytest.mark.parametrize("n", [6, 7, 10, 30])
def test_the_interval_holds_the_median_as_often_as_it_says(n: int) -> None:
    """Of samples with a long tail, as timings have; their true median is 1."""
    drawn = np.random.default_rng(n).lognormal(0, 1, (4000, n))
    held = [low <= 1 <= high for low, high in map(median_interval, drawn)]
    assert 0.94 < np.mean(held) < 0.995


def test_pairs_cancel_what_slows_a_whole_round() -> None:
    """The machine slows down tenfold; each round says the same of the two candidates."""
    slow, fast = [2.0, 20.0, 2.2], [1.0, 10.0, 1.1]
    found = paired_ratio(slow, fast)
    assert (found.low, found.median, found.high) == pytest.approx((2.0, 2.0, 2.0))
    with pytest.raises(ValueError, match="pairs"):
        paired_ratio([1.0], [1.0, 2.0])
