"""The approximate index over a LanceDB table's vectors: building, measuring and searching it.

IVF_SQ builds in seconds, and refining (comparing more rows exactly) makes up for its errors. How
many partitions to search is measured on the table's own rows, and kept in the metadata of its
vector column.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.records import VECTOR
from rsicd_embed.stores import recall
from rsicd_embed.stores.base import StoreURI
from rsicd_embed.stores.lancedb._lazy_lancedb import lancedb
from rsicd_embed.stores.row_view import Rows

# Smaller tables are cached in memory: an exact search of 120,000 × 512 takes 7 ms, and one through
# the index 12 ms (benchmarks/ann-lancedb-120k).
INDEX_ROWS = 200_000
RECALL_GOAL = 0.99
SPARE_HITS = 2  # beyond k, so that rounding does not hide a better one
_LADDER = (5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 400)  # partitions
_REFINE = 4  # more does not improve recall, less is not faster
_NEAR_SHARE = 1 / 3  # of the measured queries, for which fewer partitions are worth a first try
_SHARES = (0.5, 0.1, 0.01)  # of the rows, for which recall with a filter is measured
_REBUILD = 2.0  # growth or shrinkage of the table after which the index is rebuilt
_MEASURE = 1.1  # … and after which it is measured again
_KEY = b"rsicd-embed.index"
_NAME = "vector_idx"
_SEED = 20_261


@dataclass
class Matches:
    """The rows that match a filter.

    Attributes:
        live: bool (rows,), whether each row matches.
        count: number of rows that do.
        rows: these rows, if they are cached.
    """

    live: np.ndarray
    count: int
    rows: Rows | None = None

    @classmethod
    def of(cls, live: np.ndarray) -> Matches:
        """From a mask of rows."""
        return cls(live, int(np.count_nonzero(live)))


# The k best of some rows (None: of all) for each query, exactly or through the index.
ExactSearch = Callable[[np.ndarray, int, Matches | None], pa.Table]
IndexSearch = Callable[["AnnIndex", np.ndarray, int, Matches | None], pa.Table | None]


@dataclass(frozen=True)
class FilteredRecall:
    """The recall of the index with filters that a share of the rows matches.

    Attributes:
        share: share of the rows, in (0, 1).
        partitions: partitions searched per query.
        ann_recall: ANN recall@10.
    """

    share: float
    partitions: int
    ann_recall: float


@dataclass(frozen=True)
class AnnIndex:
    """The settings of an index.

    Attributes:
        built_rows: number of rows when it was built.
        rows: number of rows when it was measured.
        partitions: partitions searched per query.
        refine: multiple of k rows that are compared exactly.
        ann_recall: ANN recall@10 with these settings.
        near_partitions: partitions that suffice for queries near to rows; None if all are needed.
        near_score: similarity of the tenth hit among these from which on they do.
        filtered: settings for searches with a filter, by descending share; None if they were
            not measured, as by earlier versions.
        goal: ANN recall@10 that the index is tuned to.
    """

    built_rows: int
    rows: int
    partitions: int
    refine: int
    ann_recall: float
    near_partitions: int | None = None
    near_score: float = 1.0
    filtered: tuple[FilteredRecall, ...] | None = None
    goal: float = RECALL_GOAL

    def __str__(self) -> str:
        near = f" or {self.near_partitions} near rows" if self.near_partitions else ""
        filters = "".join(
            f", {entry.ann_recall:.3f} with filters for {entry.share:.0%}"
            for entry in self.filtered or ()
        )
        return (
            f"IVF_SQ (nprobes={self.partitions}{near}, refine={self.refine}) "
            f"measured over {self.rows} rows: ANN recall@10 {self.ann_recall:.3f}{filters}"
        )

    def for_share(self, share: float) -> FilteredRecall | None:
        """The setting for a filter that matches a share of the rows; None if recall is too low."""
        chosen = next((entry for entry in self.filtered or () if entry.share <= share), None)
        return chosen if chosen and chosen.ann_recall >= self.goal else None


@dataclass(frozen=True)
class IndexSettings:
    """The options of a store URI that concern the index.

    Attributes:
        goal: ANN recall@10 that the index is tuned to.
        partitions, refine: search settings; None for the measured ones.
    """

    goal: float = RECALL_GOAL
    partitions: int | None = None
    refine: int | None = None

    @classmethod
    def of(cls, uri: StoreURI) -> IndexSettings:
        """Parses the options of a URI; StoreURIError for an unknown or invalid one."""
        given = uri.numbers(recall=(0.1, 1), nprobes=(1, 100_000), refine=(1, 1000))
        partitions, refine = (
            int(given[name]) if name in given else None for name in ("nprobes", "refine")
        )
        return cls(given.get("recall", RECALL_GOAL), partitions, refine)

    def applied(self, index: AnnIndex) -> AnnIndex:
        """The index with its search settings replaced by those of the URI."""
        index = replace(index, refine=self.refine or index.refine)
        if self.partitions is None:
            return index
        return replace(index, partitions=self.partitions, near_partitions=None)


def stored_index(schema: pa.Schema) -> AnnIndex | None:
    """Reads the index settings from a table's schema; None if there are none."""
    raw = (schema.field(VECTOR).metadata or {}).get(_KEY)
    try:
        if not raw:
            return None
        index = AnnIndex(**json.loads(raw))
        entries: Any = index.filtered
        if entries is None:
            return index
        return replace(index, filtered=tuple(FilteredRecall(*entry) for entry in entries))
    except (ValueError, TypeError):
        return None


def build(table: Any, index: AnnIndex | None, rows: int) -> AnnIndex | None:
    """Builds the index of an optimised table if its growth demands it.

    Returns:
        The index to be measured; None if there is none, or it needs no measurement.
    """
    if rows < INDEX_ROWS:
        return None
    missing = table.index_stats(_NAME) is None
    if index is None or missing or not 1 / _REBUILD <= rows / index.built_rows <= _REBUILD:
        table.create_index(
            VECTOR, config=lancedb.index.IvfSq(distance_type="cosine"), replace=True, name=_NAME
        )
        return AnnIndex(rows, rows, 0, _REFINE, 0.0)
    if index.filtered is not None and 1 / _MEASURE <= rows / index.rows <= _MEASURE:
        return None
    return replace(index, rows=rows, refine=_REFINE, near_partitions=None)


def store(table: Any, index: AnnIndex) -> None:
    """Writes the settings of an index to the metadata of its table."""
    entries = [[*asdict(entry).values()] for entry in index.filtered or ()]
    value = asdict(index) | {"filtered": entries}
    metadata = {_KEY.decode(): json.dumps(value)}
    table.update_field_metadata({"path": VECTOR, "metadata": metadata})


def measure(
    index: AnnIndex, queries: np.ndarray, exact: ExactSearch, approximate: IndexSearch
) -> AnnIndex:
    """Finds the fewest partitions that reach the goal, without and with filters.

    Args:
        index: the index, with its goal.
        queries: float32 (q, dim) unit queries.
        exact: exact search.
        approximate: search through the index.
    """
    units = queries.astype(np.float64)
    kth = _kth_scores(exact(units, recall.K, None))
    tried: list[tuple[int, np.ndarray, np.ndarray]] = []
    for partitions in _LADDER:
        index = replace(index, partitions=partitions)
        scores = _scores(approximate(index, units, recall.K, None), len(units))
        recalls = recall.recalls(scores, kth, recall.K)
        index = replace(index, ann_recall=float(recalls.mean()))
        if index.ann_recall >= index.goal:
            break
        tried.append((partitions, recalls, np.array([min(hits, default=-1) for hits in scores])))
    index = _with_near_setting(index, tried)
    filtered: list[FilteredRecall] = []
    for share in _SHARES:
        entry = _measure_filtered(index, share, units, exact, approximate)
        if entry is None:
            break
        filtered.append(entry)
    return replace(index, filtered=tuple(filtered))


def _with_near_setting(
    index: AnnIndex, tried: list[tuple[int, np.ndarray, np.ndarray]]
) -> AnnIndex:
    """Adds the fewest partitions with which the queries nearest to rows reach the goal.

    Args:
        index: the index.
        tried: partitions, with the recall and the tenth score of each query.
    """
    for partitions, recalls, scores in tried:
        nearest_first = np.argsort(-scores)
        running = np.cumsum(recalls[nearest_first]) / np.arange(1, len(scores) + 1)
        reached = np.flatnonzero(running >= index.goal)
        if len(reached) and reached[-1] + 1 >= _NEAR_SHARE * len(scores):
            score = float(scores[nearest_first[reached[-1]]])
            return replace(index, near_partitions=partitions, near_score=score)
    return index


def _measure_filtered(
    index: AnnIndex,
    share: float,
    units: np.ndarray,
    exact: ExactSearch,
    approximate: IndexSearch,
) -> FilteredRecall | None:
    """The fewest partitions that reach the goal with a filter; None if it is searched exactly."""
    matches = Matches.of(np.random.default_rng(_SEED).random(index.rows) < share)
    kth = _kth_scores(exact(units, recall.K, matches))
    matches.rows = None  # what an exact search cached would be preferred to the index
    entry = None
    for partitions in [step for step in _LADDER if step >= index.partitions]:
        trial = FilteredRecall(share, partitions, index.goal)
        hits = approximate(replace(index, filtered=(trial,)), units, recall.K, matches)
        if hits is None:
            break
        recalls = recall.recalls(_scores(hits, len(units)), kth, recall.K)
        entry = replace(trial, ann_recall=float(recalls.mean()))
        if entry.ann_recall >= index.goal:
            break
    return entry


def _kth_scores(hits: pa.Table) -> np.ndarray:
    scores: np.ndarray = hits.filter(pc.equal(hits["rank"], recall.K))["score"].to_numpy()
    return scores


def _scores(hits: pa.Table | None, queries: int) -> list[np.ndarray]:
    """The scores of each query's hits."""
    if hits is None:
        return [np.zeros(0, np.float32)] * queries
    begins = np.searchsorted(hits["query"].to_numpy(), np.arange(1, queries))
    return np.split(hits["score"].to_numpy(), begins)
