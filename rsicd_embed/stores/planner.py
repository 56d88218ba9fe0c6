"""How a search is done: exactly over the matching rows, or through the index.

An index cannot skip rows that do not match, so more of its hits are fetched and the matching ones
are kept: if half of the rows match, twice the number needed; if one in a thousand does, a thousand
times that number. An exact search, on the other hand, takes time for every matching row, until
reading all rows is faster than picking the matching ones. The number of matching rows is known,
since a filter is evaluated over the attributes of all rows first, which takes about 15 ms per
million rows, once per filter. So the planner compares two costs:

    index:  fixed + per_hit * depth,  depth = (wanted + spread) * rows / matches
    exact:  min(per_row * matches, fixed_scan + per_scanned_row * rows)

Frequent matches go through the index and rare ones are searched exactly. The depth assumes that
matches are spread at random among a query's neighbours; `spread` is four standard deviations of
their number. If fewer hits match than were wanted, the search falls back to the exact one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_DEVIATIONS = 4  # margin of the expected number of matches, in standard deviations
_DEEPEST = 10_000  # hits; an index that returns more is slower than a scan


@dataclass(frozen=True)
class SearchCosts:
    """Rough costs of the parts of a search in a store.

    Attributes:
        fixed_us: search of the index, at any depth.
        per_hit_us: each hit that the index returns.
        per_row_us: each matching row of an exact search.
        per_scanned_row_us: each row of an exact search that reads them all; None if that is never
            faster.
        fixed_scan_us: such a search, whatever the number of rows.
    """

    fixed_us: float
    per_hit_us: float
    per_row_us: float
    per_scanned_row_us: float | None = None
    fixed_scan_us: float = 0

    def index_us(self, depth: int) -> float:
        """The cost of a search for `depth` hits of the index."""
        return self.fixed_us + self.per_hit_us * depth

    def exact_us(self, matches: int, rows: int) -> float:
        """The cost of an exact search for `matches` of `rows` rows."""
        scanned = self.fixed_scan_us + (self.per_scanned_row_us or math.inf) * rows
        return min(self.per_row_us * matches, scanned)


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
    share = matches / rows
    spread = _DEVIATIONS * math.sqrt(wanted * (1 - share))
    depth = math.ceil((wanted + spread) / share)
    if depth > min(_DEEPEST, rows):
        return None
    return depth if costs.index_us(depth) < costs.exact_us(matches, rows) else None
