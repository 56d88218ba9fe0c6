"""LanceDB's approximate index over a table's vectors: built, measured, kept up to date, used.

IVF_SQ builds in seconds and its errors are mended by refining, that is by comparing some more rows
exactly. How many partitions and rows to look at is found on the table's own rows, and remembered in
the metadata of its vector column.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.records import VECTOR
from rsicd_embed.stores import recall
from rsicd_embed.stores.base import StoreURI
from rsicd_embed.stores.lancedb._lazy_lancedb import lancedb
from rsicd_embed.stores.lancedb.lance_async import SearchedTable
from rsicd_embed.stores.lancedb.lance_rows import part_of
from rsicd_embed.stores.row_view import Rows
from rsicd_embed.stores.scoring import Candidates, score_pairs

# Fewer are held in memory: of 120,000 × 512, an exact search takes 7 ms and one by the index 12 ms
# (benchmarks/ann-lancedb-120k).
INDEX_ROWS = 200_000
STALE_ROWS = 50_000  # rows not yet indexed are scanned, at some 2 µs each
RECALL_GOAL = 0.99
_LADDER = ((20, 2), (50, 4), (100, 8), (200, 16), (400, 32))  # partitions, refine factor
_SPARE = 2  # fetched beyond k, so that rounding leaves no better one behind
_REBUILD = 2.0  # partitions are made anew when the rows have grown by this factor
_MEASURE = 1.1  # and measured anew when they have grown, or shrunk, by this one
_KEY = b"rsicd-embed.index"
_NAME = "vector_idx"


@dataclass(frozen=True)
class AnnIndex:
    """What is remembered of an index.

    Attributes:
        built_rows: rows when it was built.
        rows: rows when it was measured.
        partitions: looked at for a query.
        refine: as many times k rows are compared exactly.
        ann_recall: ANN recall@10 with these settings.
    """

    built_rows: int
    rows: int
    partitions: int
    refine: int
    ann_recall: float

    def __str__(self) -> str:
        return (
            f"IVF_SQ (nprobes={self.partitions}, refine={self.refine}) "
            f"measured over {self.rows} rows"
        )


@dataclass(frozen=True)
class IndexSettings:
    """What a URI says of an index.

    Attributes:
        goal: the ANN recall@10 that it is tuned to.
        partitions, refine: what it is searched with; None for what was measured.
    """

    goal: float = RECALL_GOAL
    partitions: int | None = None
    refine: int | None = None

    @classmethod
    def of(cls, uri: StoreURI) -> IndexSettings:
        """From the options of a URI; StoreURIError for one that is not known."""
        given = uri.numbers(recall=(0.1, 1), nprobes=(1, 100_000), refine=(1, 1000))
        partitions, refine = (
            int(given[name]) if name in given else None for name in ("nprobes", "refine")
        )
        return cls(given.get("recall", RECALL_GOAL), partitions, refine)

    def applied(self, index: AnnIndex) -> AnnIndex:
        """An index, to be searched so."""
        return replace(
            index,
            partitions=self.partitions or index.partitions,
            refine=self.refine or index.refine,
        )


# The k-th best similarity, exactly, of each of float32 (q, dim) queries.
KthBest = Callable[[np.ndarray, int], np.ndarray]


def known(schema: pa.Schema) -> AnnIndex | None:
    """What the table's own schema says of its index; None where there is none of ours."""
    raw = (schema.field(VECTOR).metadata or {}).get(_KEY)
    try:
        return AnnIndex(**json.loads(raw)) if raw else None
    except (ValueError, TypeError):
        return None


def is_due(table: Any, index: AnnIndex | None, rows: int, most: int) -> bool:
    """Whether so much was written that an upsert should bring the index up to date.

    `most` is up to how many rows are searched well without one.
    """
    if index is None:
        return rows > max(most, INDEX_ROWS)
    unindexed = table.index_stats(_NAME)
    stale = unindexed.num_unindexed_rows if unindexed else rows
    return int(stale) > max(STALE_ROWS, index.rows // 5)


def renew(
    table: Any,
    searched: SearchedTable,
    index: AnnIndex | None,
    rows: int,
    schema: pa.Schema,
    uri: str,
    kth_best: KthBest,
    goal: float,
) -> None:
    """Builds, rebuilds or measures the index of an optimised table, as its growth demands."""
    if rows < INDEX_ROWS:
        return
    missing = table.index_stats(_NAME) is None
    if index is None or missing or not 1 / _REBUILD <= rows / index.built_rows <= _REBUILD:
        table.create_index(
            VECTOR, config=lancedb.index.IvfSq(distance_type="cosine"), replace=True, name=_NAME
        )
        index = None
    elif 1 / _MEASURE <= rows / index.rows <= _MEASURE:
        return
    built = rows if index is None else index.built_rows
    measured = _measure(
        table, searched, AnnIndex(built, rows, 0, 0, 0.0), schema, uri, kth_best, goal
    )
    said = {_KEY.decode(): json.dumps(asdict(measured))}
    table.update_field_metadata({"path": VECTOR, "metadata": said})


def nearest(
    table: SearchedTable,
    index: AnnIndex,
    units: np.ndarray,
    k: int,
    schema: pa.Schema,
    version: int,
    uri: str,
) -> tuple[Rows, Candidates]:
    """What the index finds for float64 (q, dim) unit queries: rows, and which query each is for."""
    found = table.nearest(
        version,
        units.astype(np.float32),
        k + _SPARE,
        partitions=index.partitions,
        refine=index.refine,
        columns=schema.names,
    )
    batches = found.combine_chunks().to_batches()
    if not batches:
        return Rows(schema, ()), Candidates(*(np.zeros(0, np.int64),) * 2)
    query = np.zeros(len(found), np.int64)
    if len(units) > 1:
        query = found["query_index"].to_numpy().astype(np.int64)
    rows = Rows(schema, (part_of(batches[0], schema, uri),))
    return rows, Candidates(query, np.arange(len(found)))


def _measure(
    table: Any,
    searched: SearchedTable,
    index: AnnIndex,
    schema: pa.Schema,
    uri: str,
    kth_best: KthBest,
    goal: float,
) -> AnnIndex:
    """The least settings of the ladder that reach the goal, or its last."""
    offsets = sorted(recall.sample(index.rows).tolist())
    batch = table.take_offsets(offsets).select(schema.names).to_arrow().combine_chunks()
    queries = recall.queries_near(part_of(batch.to_batches()[0], schema, uri).matrix)
    kth = kth_best(queries, recall.K)
    version = int(table.version)
    for partitions, refine in _LADDER:
        index = replace(index, partitions=partitions, refine=refine)
        rows, pairs = nearest(searched, index, queries, recall.K, schema, version, uri)
        scores = score_pairs(rows, queries.astype(np.float64), pairs)
        found = [np.sort(scores[pairs.query == one])[-recall.K :] for one in range(len(queries))]
        index = replace(index, ann_recall=recall.recall(found, kth, recall.K))
        if index.ann_recall >= goal:
            break
    return index
