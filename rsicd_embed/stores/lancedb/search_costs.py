"""Costs of searches of a large LanceDB table: through its index, by codes, or by reading vectors.

They were measured on two machines, for vectors of length 100, 256 and 512; see `stores.planner`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rsicd_embed.stores.lancedb.lance_index import SPARE_HITS, AnnIndex, Matches
from rsicd_embed.stores.planner import SearchCosts, index_depth

# Without codes; the index also takes time for each partition. All rows are read as a stream.
BY_READING = SearchCosts(4_000, per_hit_us=2, per_row_us=12, per_scanned_row_us=3)
_PARTITION_US, _PARTITION_NUMBER_US = 200, 0.6  # each partition, and per number of a vector


def by_codes(dim: int) -> SearchCosts:
    """Costs of searches with codes of vectors of length `dim`."""
    return SearchCosts(
        4_000,
        per_hit_us=2,
        per_row_us=0.16,
        per_scanned_row_us=0.006 + 1.1e-4 * dim,
        fixed_scan_us=3_500,
    )


@dataclass(frozen=True)
class IndexPlan:
    """A search through the index.

    Attributes:
        partitions: partitions to search.
        wanted: hits needed per query.
        depth: hits to fetch per query, so that about `wanted` match.
        us: cost of the search.
    """

    partitions: int
    wanted: int
    depth: int
    us: float


def index_plan(
    index: AnnIndex, k: int, matches: Matches | None, *, rows: int, dim: int, coded: bool
) -> IndexPlan | None:
    """How to search the index for the k best rows that match a filter, or of all.

    Args:
        index: the index.
        k: number of rows wanted per query.
        matches: the rows that match; None for all.
        rows: number of rows of the table.
        dim: length of a vector.
        coded: whether an exact search could use codes.

    Returns:
        The plan; None if an exact search for matches is cheaper, or the index misses too many.
    """
    setting = index if matches is None else index.for_share(matches.count / rows)
    if setting is None:
        return None
    costs = by_codes(dim) if coded else BY_READING
    partition_us = _PARTITION_US + _PARTITION_NUMBER_US * dim
    costs = replace(costs, fixed_us=costs.fixed_us + partition_us * setting.partitions)
    wanted = (k + SPARE_HITS) * index.refine
    depth = wanted if matches is None else index_depth(costs, wanted, matches.count, rows)
    if depth is None:
        return None
    return IndexPlan(setting.partitions, wanted, depth, costs.index_us(depth))
