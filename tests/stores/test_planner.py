"""When a filtered search goes through the index, and how deep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed.stores.planner import SearchCosts, index_depth

COSTS = SearchCosts(fixed_us=5000, per_hit_us=4, per_row_us=12)


def test_everything_matches() -> None:
    assert index_depth(COSTS, 48, 1_000_000, 1_000_000) == 48


def test_the_depth_grows_as_fewer_rows_match() -> None:
    assert index_depth(COSTS, 48, 500_000, 1_000_000) == 144
    assert index_depth(COSTS, 48, 100_000, 1_000_000) == 720
    assert index_depth(COSTS, 48, 10_000, 1_000_000) == 7200


def test_rare_matches_are_searched_exactly() -> None:
    assert index_depth(COSTS, 48, 1000, 1_000_000) is None  # 72,000 hits
    assert index_depth(COSTS, 48, 400, 100_000) is None  # 400 rows are read in 4.8 ms
    assert index_depth(COSTS, 48, 48, 1_000_000) is None  # all are hits


def test_cheap_exact_searches_are_preferred() -> None:
    cheap = SearchCosts(fixed_us=5000, per_hit_us=4, per_row_us=0.08)
    assert index_depth(cheap, 48, 10_000, 1_000_000) is None
    assert index_depth(cheap, 48, 500_000, 1_000_000) == 144


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
