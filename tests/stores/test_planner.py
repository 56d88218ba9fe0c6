"""When a filtered search goes through the index, and how deep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed.stores.planner import SearchCosts, index_depth

COSTS = SearchCosts(fixed_us=5000, per_hit_us=4, per_row_us=12)


def test_everything_matches() -> None:
    assert index_depth(COSTS, 48, 1_000_000, 1_000_000) == 48


def test_the_depth_grows_as_fewer_rows_match() -> None:
    assert index_depth(COSTS, 48, 500_000, 1_000_000) == 136
    assert index_depth(COSTS, 48, 100_000, 1_000_000) == 743
    assert index_depth(COSTS, 48, 10_000, 1_000_000) == 7558


def test_rare_matches_are_searched_exactly() -> None:
    assert index_depth(COSTS, 48, 1000, 1_000_000) is None  # 76,000 hits
    assert index_depth(COSTS, 48, 400, 100_000) is None  # 400 rows are read in 4.8 ms
    assert index_depth(COSTS, 48, 48, 1_000_000) is None  # all are hits


def test_cheap_exact_searches_are_preferred() -> None:
    cheap = SearchCosts(fixed_us=5000, per_hit_us=4, per_row_us=0.08)
    assert index_depth(cheap, 48, 10_000, 1_000_000) is None
    assert index_depth(cheap, 48, 500_000, 1_000_000) == 136


def test_reading_all_rows_bounds_the_cost_of_an_exact_search() -> None:
    scanned = SearchCosts(fixed_us=5000, per_hit_us=4, per_row_us=12, per_scanned_row_us=0.007)
    assert scanned.exact_us(100, 10_000) == 70
    assert scanned.exact_us(2, 10_000) == 24
    assert index_depth(scanned, 48, 500_000, 1_000_000) == 136  # 5.5 ms, and a scan 7 ms
    assert index_depth(scanned, 48, 100_000, 1_000_000) is None  # 8 ms


@given(
    wanted=st.integers(1, 10_000),
    matches=st.integers(0, 10**7),
    others=st.integers(0, 10**7),
)
def test_depth_suffices_and_is_bounded(wanted: int, matches: int, others: int) -> None:
    rows = matches + others
    depth = index_depth(COSTS, wanted, matches, rows)
    if depth is not None:
        assert wanted <= depth <= rows
        assert depth * matches >= wanted * rows  # if matches are spread evenly
