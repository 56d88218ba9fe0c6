"""Statistics on numbers whose answers are known."""

from __future__ import annotations

import pytest

from rsicd_embed.bench.stats import median_interval, paired_ratio, spread


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


def test_pairs_cancel_what_slows_a_whole_round() -> None:
    """The machine slows down tenfold; each round says the same of the two candidates."""
    slow, fast = [2.0, 20.0, 2.2], [1.0, 10.0, 1.1]
    found = paired_ratio(slow, fast)
    assert (found.low, found.median, found.high) == pytest.approx((2.0, 2.0, 2.0))
    with pytest.raises(ValueError, match="pairs"):
        paired_ratio([1.0], [1.0, 2.0])
