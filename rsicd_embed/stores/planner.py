"""How a filtered search is done: exactly over the matching rows, or through the index.

An index cannot skip rows that do not match, so more of its hits are fetched and the matching ones
are kept: if half of the rows match, twice the number needed; if one in a thousand does, a thousand
times that number. An exact search, on the other hand, takes time for every matching row. The number
of matching rows is known, since a filter is evaluated over the attributes of all rows first, which
takes about 15 ms per million rows, once per filter. So the planner compares two costs:

    index:  fixed + per_hit * depth,  depth = margin * wanted * rows / matches
    exact:  per_row * matches

Frequent matches go through the index and rare ones are searched exactly. The depth assumes that
matches are spread evenly among a query's neighbours. If fewer hits match than were wanted, they are
not, and the search falls back to the exact one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_MARGIN = 1.5  # hits fetched beyond the expected number, since matches are not spread evenly
_DEEPEST = 10_000  # hits; an index that returns more is slower than a scan


@dataclass(frozen=True)
class SearchCosts:
    """Rough costs of the parts of a search in a store.

    Attributes:
        fixed_us: search of the index, at any depth.
        per_hit_us: each hit that the index returns.
        per_row_us: each matching row of an exact search.
    """

    fixed_us: float
    per_hit_us: float
    per_row_us: float


def index_depth(costs: SearchCosts, wanted: int, matches: int, rows: int) -> int | None:
    """How many hits to fetch from an index so that about `wanted` of them match.

    Args:
        costs: costs in this store.
        wanted: matching hits that are needed.
        matches: number of rows that match.
        rows: number of rows that the index covers.

    Returns:
        The number of hits, at most `rows`; None if an exact search over the matches is cheaper.
    """
    if matches <= wanted:
        return None
    depth = wanted if matches == rows else math.ceil(_MARGIN * wanted * rows / matches)
    if depth > min(_DEEPEST, rows):
        return None
    index_us = costs.fixed_us + costs.per_hit_us * depth
    return depth if index_us < costs.per_row_us * matches else None
