"""The approximate index over a LanceDB table's vectors: building, measuring and searching it.

IVF_SQ builds in seconds, and refining (comparing more rows exactly) makes up for its errors. How
many partitions to search is measured on the table's own rows, and kept in the metadata of its
vector column. A query that resembles rows needs fewer partitions than one that does not, such as
a text, so there is a setting for each of several levels of similarity to a sample of the rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.records import VECTOR
from rsicd_embed.stores import recall
from rsicd_embed.stores.lancedb._lazy_lancedb import lancedb
from rsicd_embed.stores.row_view import Rows
from rsicd_embed.stores.uri import StoreURI

# Smaller tables are cached in memory: an exact search of 120,000 × 512 takes 7 ms, and one through
# the index 12 ms (benchmarks/ann-lancedb-120k).
INDEX_ROWS = 200_000
RECALL_GOAL = 0.99
SPARE_HITS = 2  # fetched beyond k, so that rounding does not hide a better hit
KIND = "IVF_SQ"
# LanceDB's kinds of index, and the names of their configurations.
KINDS = {"IVF_SQ": "IvfSq", "IVF_PQ": "IvfPq", "IVF_RQ": "IvfRq", "IVF_HNSW_SQ": "HnswSq"}
_LADDER = (3, 5, 8, 12, 20, 30, 42, 60, 84, 120, 170, 240, 340, 480)  # partitions
_REFINES, _REFINED_PARTITIONS = (2, 4, 8), 60
_LEAST_SHARE = 0.05  # smallest share of the queries that gets a level of its own
_ALLOWED_LOSS = 0.6  # share of the goal's loss to use, as other queries may be harder
_LEAST_GAIN = 0.001  # gain in recall that justifies refining more rows
_BLOCK_QUERIES = 100  # searched at a time
_SOME = 6  # every sixth query is searched with filters, and to choose the rows to refine
_SIMILAR = 0.8  # a filter that matches at least this part of a share is like one of that share
_SHARES = (0.5, 0.1, 0.01)  # shares of the rows for which filtered recall is measured
_REBUILD = 2.0  # growth or shrinkage of the table after which the index is rebuilt
_MEASURE = 1.1  # … and after which it is measured again
# Vectors per partition that LanceDB trains with: its default, and what k-means needs.
_MOST_SAMPLES, _LEAST_SAMPLES = 256, 40
_TRAINING_BYTES = 2**28
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
        spent_us: time of searches through the index that cached rows would have made faster.
    """

    live: np.ndarray
    count: int
    rows: Rows | None = None
    spent_us: float = 0.0

    @classmethod
    def of(cls, live: np.ndarray) -> Matches:
        """From a mask of rows."""
        return cls(live, int(np.count_nonzero(live)))


# For each mask of rows (None: all), the score of each query's k-th best row: (masks, q).
KthScores = Callable[[np.ndarray, int, Sequence[np.ndarray | None]], np.ndarray]
# The k best of some rows (None: of all) for each query through the index.
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
class NearLevel:
    """The setting for queries near to rows.

    Attributes:
        least: their lowest similarity to a sample of the rows, as `LargeTable.nearness` gives it.
        partitions: partitions searched per query.
    """

    least: float
    partitions: int


@dataclass(frozen=True)
class AnnIndex:
    """The settings of an index.

    Attributes:
        built_rows: number of rows when it was built.
        rows: number of rows when it was measured.
        partitions: partitions searched for the hardest queries.
        refine: multiple of k rows that are compared exactly.
        ann_recall: ANN recall@10 with these settings.
        levels: partitions that suffice for queries of a level of similarity to rows, by descending
            similarity; None if they were not measured, as by earlier versions.
        filtered: settings for searches with a filter, by descending share; None if they were
            not measured, as by earlier versions.
        goal: ANN recall@10 that the index is tuned to.
    """

    built_rows: int
    rows: int
    partitions: int
    refine: int
    ann_recall: float
    levels: tuple[NearLevel, ...] | None = None
    filtered: tuple[FilteredRecall, ...] | None = None
    goal: float = RECALL_GOAL

    def __str__(self) -> str:
        fewest = min((level.partitions for level in self.levels or ()), default=self.partitions)
        near = f" or down to {fewest} near rows" if fewest < self.partitions else ""
        filters = "".join(
            f", {entry.ann_recall:.3f} with filters for {entry.share:.0%}"
            for entry in self.filtered or ()
        )
        return (
            f"IVF_SQ (nprobes={self.partitions}{near}, refine={self.refine}) "
            f"measured over {self.rows} rows: ANN recall@10 {self.ann_recall:.3f}{filters}"
        )

    def partitions_for(self, nearness: float) -> int:
        """The number of partitions for queries of a similarity to a sample of the rows."""
        levels = (level.partitions for level in self.levels or () if nearness >= level.least)
        return next(levels, self.partitions)

    def for_share(self, share: float) -> FilteredRecall | None:
        """The setting for a filter that matches a share of the rows; None if recall is too low."""
        entries = (entry for entry in self.filtered or () if _SIMILAR * entry.share <= share)
        chosen = next(entries, None)
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
        return replace(index, partitions=self.partitions, levels=())


def stored_index(schema: pa.Schema) -> AnnIndex | None:
    """Reads the index settings from a table's schema; None if there are none."""
    raw = (schema.field(VECTOR).metadata or {}).get(_KEY)
    try:
        if not raw:
            return None
        known = {field.name for field in fields(AnnIndex)}
        stored = {name: value for name, value in json.loads(raw).items() if name in known}
        for name, kind in (("filtered", FilteredRecall), ("levels", NearLevel)):
            if stored.get(name) is not None:
                stored[name] = tuple(kind(*entry) for entry in stored[name])
        return AnnIndex(**stored)
    except (ValueError, TypeError, AttributeError):
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
        dim = table.schema.field(VECTOR).type.list_size
        settings = config(KIND, samples_per_partition(rows, dim))
        table.create_index(VECTOR, config=settings, replace=True, name=_NAME)
        return AnnIndex(rows, rows, 0, _REFINES[-1], 0.0)
    if index.levels is not None and 1 / _MEASURE <= rows / index.rows <= _MEASURE:
        return None
    return replace(index, rows=rows, levels=())


def drop(table: Any) -> None:
    """Removes the index, if there is one; its files may be damaged."""
    if any(index.name == _NAME for index in table.list_indices()):
        table.drop_index(_NAME)


def config(kind: str, sample_rate: int = _MOST_SAMPLES) -> Any:
    """LanceDB's default configuration of a kind of index, one of `KINDS`, but for the number of
    vectors per partition to train with."""
    return getattr(lancedb.index, KINDS[kind])(distance_type="cosine", sample_rate=sample_rate)


def samples_per_partition(rows: int, dim: int) -> int:
    """Vectors per partition to train with: all of them are in memory at once, about twice."""
    vectors = _TRAINING_BYTES // (4 * dim)
    return max(_LEAST_SAMPLES, min(_MOST_SAMPLES, vectors // math.isqrt(rows)))


def store(table: Any, index: AnnIndex) -> None:
    """Writes the settings of an index to the metadata of its table."""
    value = asdict(index)
    for name in ("filtered", "levels"):
        value[name] = [[*entry.values()] for entry in value[name] or ()]
    metadata = {_KEY.decode(): json.dumps(value)}
    table.update_field_metadata({"path": VECTOR, "metadata": metadata})


def measure(
    index: AnnIndex,
    queries: np.ndarray,
    nearness: np.ndarray,
    kth_scores: KthScores,
    approximate: IndexSearch,
) -> AnnIndex:
    """Finds the fewest partitions that reach the goal, without and with filters.

    Args:
        index: the index, with its goal.
        queries: float32 (q, dim) unit queries.
        nearness: (q,), their similarity to a sample of the rows.
        kth_scores: exact search.
        approximate: search through the index.
    """
    nearest_first = np.argsort(-nearness, kind="stable")
    units, nearness = queries[nearest_first].astype(np.float64), nearness[nearest_first]
    filters = [
        Matches.of(np.random.default_rng(_SEED).random(index.rows) < share) for share in _SHARES
    ]
    kth, *kth_filtered = kth_scores(units, recall.K, [None, *(each.live for each in filters)])

    def recalls(index: AnnIndex, chosen: np.ndarray) -> np.ndarray:
        scores: list[np.ndarray] = []
        for start in range(0, len(chosen), _BLOCK_QUERIES):
            block = units[chosen[start : start + _BLOCK_QUERIES]]
            scores += _scores(approximate(index, block, recall.K, None), len(block))
        return recall.recalls(scores, kth[chosen], recall.K)

    index = _with_refine(replace(index, levels=()), np.arange(0, len(units), _SOME), recalls)
    index = _with_levels(index, nearness, recalls)
    entries: list[FilteredRecall] = []
    for share, matches, scores in zip(_SHARES, filters, kth_filtered, strict=True):
        entry = _measure_filtered(
            index, share, matches, units[::_SOME], scores[::_SOME], approximate
        )
        if entry is None:
            break
        entries.append(entry)
    return replace(index, filtered=tuple(entries))


# Recall of each of some queries (int positions) with the settings of an index.
_Recalls = Callable[[AnnIndex, np.ndarray], np.ndarray]


def _with_refine(index: AnnIndex, chosen: np.ndarray, recalls: _Recalls) -> AnnIndex:
    """The index with the fewest rows to refine that hardly reduce the recall of some queries."""
    index = replace(index, partitions=_REFINED_PARTITIONS)
    best = recalls(replace(index, refine=_REFINES[-1]), chosen).mean()
    trials = (replace(index, refine=refine) for refine in _REFINES[:-1])
    good = (trial for trial in trials if recalls(trial, chosen).mean() >= best - _LEAST_GAIN)
    return next(good, replace(index, refine=_REFINES[-1]))


def _with_levels(index: AnnIndex, nearness: np.ndarray, recalls: _Recalls) -> AnnIndex:
    """The index with the fewest partitions that suffice for queries of each level.

    Each step of the ladder serves as many of the nearest remaining queries as possible, as long as
    their mean recall reaches the goal, with a margin.

    Args:
        index: the index.
        nearness: (q,), in descending order.
        recalls: measures the recall of queries.
    """
    count, served, levels = len(nearness), 0, []
    least = 1 - _ALLOWED_LOSS * (1 - index.goal)
    reached = np.zeros(count)
    for partitions in _LADDER:
        index = replace(index, partitions=partitions)
        # More partitions only add hits, so queries without a miss are not searched again.
        missing = served + np.flatnonzero(reached[served:] < 1)
        if len(missing):
            reached[missing] = recalls(index, missing)
        running = np.cumsum(reached[served:]) / np.arange(1, count - served + 1)
        length = int(max(np.flatnonzero(running >= least) + 1, default=0))
        if served + length == count:
            break
        if length >= _LEAST_SHARE * count:
            served += length
            levels.append(NearLevel(float(nearness[served - 1]), partitions))
    return replace(index, levels=tuple(levels), ann_recall=float(reached.mean()))


def _measure_filtered(
    index: AnnIndex,
    share: float,
    matches: Matches,
    units: np.ndarray,
    kth: np.ndarray,
    approximate: IndexSearch,
) -> FilteredRecall | None:
    """The fewest partitions that reach the goal with a filter; None if it is searched exactly."""
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


def _scores(hits: pa.Table | None, queries: int) -> list[np.ndarray]:
    """The scores of each query's hits."""
    if hits is None:
        return [np.zeros(0, np.float32)] * queries
    begins = np.searchsorted(hits["query"].to_numpy(), np.arange(1, queries))
    return np.split(hits["score"].to_numpy(), begins)
