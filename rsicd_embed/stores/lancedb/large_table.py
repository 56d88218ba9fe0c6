"""Searches of one version of a LanceDB table that is too large to cache.

Filters are evaluated over the attributes, which are cached, so they mean the same as in every other
store. The matching rows are then searched in the cheapest way: among many hits of the index,
exactly through int8 codes, by reading just their vectors, or by streaming all vectors.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.errors import StoreError
from rsicd_embed.records import VECTOR
from rsicd_embed.stores import recall, scoring
from rsicd_embed.stores.filters import CACHED_FILTERS, RecentFilters, matching
from rsicd_embed.stores.lancedb import lance_rows, search_costs
from rsicd_embed.stores.lancedb.lance_index import SPARE_HITS, AnnIndex, Matches
from rsicd_embed.stores.lancedb.lance_searcher import SearchedTable
from rsicd_embed.stores.lancedb.search_costs import IndexPlan, index_plan
from rsicd_embed.stores.quantised import MOST_QUERIES, QuantisedVectors, mean_of, quantise
from rsicd_embed.stores.row_view import Rows, RowView, without_vector
from rsicd_embed.stores.rows import unit_vectors
from rsicd_embed.stores.scoring import Candidates

_MEMORY_VARIABLE = "RSICD_EMBED_MEMORY"
_MEMORY_MB = 1024
_MEGABYTE = 2**20
# Shares of the memory budget: codes, attributes, and the rows that match recent filters.
_CODES_SHARE, _ATTRIBUTES_SHARE, _ROWS_SHARE = 0.5, 0.25, 0.25
_ROW_ID = "_rowid"
_QUANTISE_US = 0.017  # reading and coding a row, per number of its vector
_FETCH_US = 12_000  # reading the attributes of some hits, and per row those of all rows
_ATTRIBUTES_US = 0.5
_SAMPLED = 2048  # rows that queries are compared with, to see how near to rows they are
_MOST_FETCHED = 0.25  # share of rows above which all are streamed instead


def memory_budget() -> int:
    """Bytes of memory that a large table may use for its caches.

    Raises:
        StoreError: the environment variable is not a positive number of megabytes.
    """
    value = os.environ.get(_MEMORY_VARIABLE, "").strip() or str(_MEMORY_MB)
    if not re.fullmatch("[0-9]{1,9}", value) or not int(value):
        raise StoreError(
            f"{_MEMORY_VARIABLE}: expected a positive number of megabytes, found {value!r}; "
            f"unset it for {_MEMORY_MB}"
        )
    return int(value) * _MEGABYTE


class LargeTable:
    """The rows of one version of a table; a position counts them in the order they are read."""

    def __init__(
        self, table: Any, searched: SearchedTable, schema: pa.Schema, count: int, uri: str
    ) -> None:
        """Reads nothing yet; `table` must be at this version whenever a method is called."""
        self._table, self._searched, self._version = table, searched, int(table.version)
        self._schema, self._count, self._uri = schema, count, uri
        self._dim = schema.field(VECTOR).type.list_size
        self._attributes = without_vector(schema)
        self._budget = memory_budget()
        self._columns: dict[str, pa.ChunkedArray] = {}  # one chunk each
        self._codes: QuantisedVectors | None = None
        self._spent_us = 0.0  # time of exact searches that codes would have made faster
        self._fetches: float = 0  # reads of attributes before they are cached
        self._recent: RecentFilters[Matches] = RecentFilters()

    def matches(self, where: str) -> Matches:
        """Finds the rows that satisfy a condition.

        Raises:
            FilterError: see `filters.matching`.
        """
        return self._recent.result(where, self._evaluated)

    def search(self, units: np.ndarray, k: int, matches: Matches | None) -> pa.Table:
        """Finds the k best rows for each query exactly.

        Args:
            units: float64 (q, dim) unit queries.
            k: number of rows wanted per query, at least 1.
            matches: the rows to search; None for all.

        Returns:
            A table of hits; see `VectorStore.search`.
        """
        count = self._count if matches is None else matches.count
        if not count or not len(units):
            return scoring.hit_table(Rows(self._schema, ()), units, scoring.joined([]), k)
        if matches is not None and self._is_cacheable(matches):
            if matches.rows is None:
                matching_rows = self._fetched(np.flatnonzero(matches.live))
                matches.rows = lance_rows.in_one_part(self._schema, matching_rows)
            candidates = scoring.nearest(matches.rows, units, k, [None])
            return scoring.hit_table(matches.rows, units, candidates, k)
        reading_us = search_costs.BY_READING.exact_us(count, self._count)
        if self._codes is None and self._is_worth_coding(reading_us):
            self.quantise()
        if self._codes is None:
            return lance_rows.search_stream(self._read(matches), self._schema, units, k)
        no_vectors = np.empty((self._count, 0), np.float32)
        part = RowView(no_vectors, self._attributes.empty_table(), codes=self._codes)
        mask = None if matches is None else matches.live
        candidates = scoring.nearest(Rows(self._schema, (part,)), units, k, [mask])
        positions, row = np.unique(candidates.row, return_inverse=True)
        vectors = self.vectors(positions)
        return self._scored(vectors, positions, Candidates(candidates.query, row), units, k)

    def is_scan_faster(
        self, index: AnnIndex, queries: int, k: int, matches: Matches | None
    ) -> bool:
        """Whether `search` finds the hits by codes before `search_index` does.

        Vectors are coded as soon as that would have saved time. Arguments are those of `search`,
        the index, and the number of queries.
        """
        plan = self._plan(index, k, matches) if queries <= MOST_QUERIES else None
        if plan is None or (matches is not None and matches.rows is not None):
            return False
        count = self._count if matches is None else matches.count
        saved_us = plan.us - search_costs.by_codes(self._dim).exact_us(count, self._count)
        if saved_us <= 0:
            return False
        if self._codes is None and self._is_worth_coding(saved_us):
            self.quantise()
        return self._codes is not None

    def search_index(
        self, index: AnnIndex, units: np.ndarray, k: int, matches: Matches | None
    ) -> pa.Table | None:
        """Finds the k best of some rows for each query among the hits of the index.

        Arguments are those of `search`, and the index.

        Returns:
            A table of hits; None if an exact search is cheaper, or too few hits match.
        """
        if not len(units):
            return None
        if matches is None:
            hits = self._searched.refined(
                self._version, units, k + SPARE_HITS, index.partitions, index.refine
            )
            if len(hits.query) < k * len(units):
                return None
            vectors = unit_vectors(hits.vectors, self._dim, self._uri)
            attributes = self._attributes_at(self._positions(hits.row_id))
            rows = Rows(self._schema, (RowView(vectors, attributes),))
            pairs = Candidates(hits.query, np.arange(len(vectors)))
            return scoring.hit_table(rows, units, pairs, k)
        plan = self._plan(index, k, matches)
        if plan is None or matches.rows is not None:
            return None
        matches.spent_us += plan.us
        reading_us = search_costs.BY_READING.per_row_us * matches.count
        if self._is_cacheable(matches) and matches.spent_us > reading_us:
            return None
        hits = self._searched.nearest(self._version, units, plan.depth, plan.partitions)
        positions = self._positions(hits.row_id)
        is_live = matches.live[positions]
        query, positions = hits.query[is_live], positions[is_live]
        begins = np.searchsorted(query, np.arange(len(units)))
        if np.diff(begins, append=len(query)).min() < plan.wanted:
            return None
        is_near = np.arange(len(query)) - begins[query] < plan.wanted
        positions, row = np.unique(positions[is_near], return_inverse=True)
        pairs = Candidates(query[is_near], row)
        return self._scored(self.vectors(positions), positions, pairs, units, k)

    def kth_scores(
        self, units: np.ndarray, k: int, masks: Sequence[np.ndarray | None]
    ) -> np.ndarray:
        """Scores the k-th best row for each query; see `lance_rows.kth_scores`."""
        blocks = (
            (rows, unit_vectors(batch.column(VECTOR), self._dim, self._uri))
            for rows, batch in self._batches([VECTOR])
        )
        return lance_rows.kth_scores(blocks, units, k, masks)

    def nearness(self, units: np.ndarray) -> np.ndarray:
        """float32 (q,): similarity of float (q, dim) unit queries to the nearest sampled row."""
        # A matrix product would leave a thread of BLAS spinning, which then slows LanceDB down.
        narrow = units.astype(np.float32)
        return np.array([np.vecdot(self._sampled, query).max() for query in narrow], np.float32)

    @cached_property
    def _sampled(self) -> np.ndarray:
        """A sample of the rows, float32 (m, dim)."""
        return self.vectors(np.sort(recall.sample(self._count, _SAMPLED)))

    def quantise(self) -> bool:
        """Codes all vectors, for faster exact searches; False if that takes too much memory."""
        if self._codes is None and self._count * (self._dim + 8) <= _CODES_SHARE * self._budget:
            codes = np.empty((self._count, self._dim), np.int8)
            scales, errors = np.empty((2, self._count), np.float32)
            mean: np.ndarray | None = None
            for rows, batch in self._batches([VECTOR]):
                matrix = unit_vectors(batch.column(VECTOR), self._dim, self._uri)
                mean = mean_of(matrix) if mean is None else mean
                codes[rows], scales[rows], errors[rows] = quantise(matrix, mean)
            if mean is not None:
                self._codes = QuantisedVectors(codes, scales, errors, mean)
        return self._codes is not None

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """The vectors at int64 (m,) positions, as float32 (m, dim)."""
        vectors = self._take(positions, [VECTOR])[VECTOR].combine_chunks()
        return unit_vectors(vectors, self._dim, self._uri)

    def _is_worth_coding(self, lost_us: float) -> bool:
        """Whether searches took so much longer without codes as coding all vectors would take.

        Args:
            lost_us: what the present search adds.
        """
        self._spent_us += lost_us
        return bool(self._spent_us > _QUANTISE_US * self._dim * self._count)

    def _plan(self, index: AnnIndex, k: int, matches: Matches | None) -> IndexPlan | None:
        coded = self._codes is not None
        return index_plan(index, k, matches, rows=self._count, dim=self._dim, coded=coded)

    def _is_cacheable(self, matches: Matches) -> bool:
        """Whether the matching rows are few enough to be cached with the filter."""
        row_bytes = 4 * self._dim + 200
        limit = _ROWS_SHARE * self._budget / CACHED_FILTERS
        return bool(matches.count * row_bytes <= limit)

    def _evaluated(self, where: str) -> Matches:
        return Matches.of(self._mask(where))

    def _mask(self, where: str) -> np.ndarray:
        matching(self._attributes.empty_table(), where)  # its errors name all columns
        bare = where.replace('"', "").casefold()
        names = [
            name for name in self._attributes.names if name.replace('"', "").casefold() in bare
        ]
        names = names or ["id"]
        table = self._cached_attributes(names)
        if table is not None:
            return matching(table, where)
        blocks = [
            matching(pa.Table.from_batches([batch]).select(names), where)
            for _, batch in self._batches(names)
        ]
        return np.concatenate([np.zeros(0, bool), *blocks])

    def _cached_attributes(self, names: list[str]) -> pa.Table | None:
        """Some attributes of all rows; None if they take too much memory."""
        limit = _ATTRIBUTES_SHARE * self._budget
        empty = pa.schema([self._attributes.field(name) for name in names]).empty_table()
        if not self._columns.keys() >= set(names):
            batches: list[pa.RecordBatch] = []
            size = 0
            for _, batch in self._batches(names):
                size += batch.nbytes
                if size > limit:
                    return None
                batches.append(batch.select(names))
            if size + sum(column.nbytes for column in self._columns.values()) > limit:
                self._columns.clear()
            table = pa.Table.from_batches(batches).combine_chunks() if batches else empty
            self._columns |= dict(zip(names, table.columns, strict=True))
        return pa.table([self._columns[name] for name in names], schema=empty.schema)

    @cached_property
    def _row_ids(self) -> np.ndarray:
        """uint64 (rows,): LanceDB's number of each row."""
        query = self._table.search().select(["id"]).with_row_id(True)
        with lance_rows.reading(self._schema, self._uri):
            batches = query.to_batches(batch_size=lance_rows.STREAM_ROWS)
            row_ids = [batch.column(_ROW_ID).to_numpy() for batch in batches]
            return np.concatenate([np.zeros(0, np.uint64), *row_ids])

    @cached_property
    def _order(self) -> np.ndarray:
        """int64 (rows,): positions by ascending row id."""
        return np.argsort(self._row_ids)

    def _positions(self, row_ids: np.ndarray) -> np.ndarray:
        """int64 (m,): the positions of rows."""
        ordered = np.searchsorted(self._row_ids, row_ids, sorter=self._order)
        return self._order[ordered]

    def _batches(self, names: list[str]) -> Iterator[tuple[slice, pa.RecordBatch]]:
        """All rows by blocks: their positions, and the named columns."""
        query = self._table.search().select(names).with_row_id(True)
        with lance_rows.reading(self._schema, self._uri):
            batches = iter(query.to_batches(batch_size=lance_rows.stream_rows(self._schema)))
        start = 0
        while True:
            with lance_rows.reading(self._schema, self._uri):
                batch = next(batches, None)
            if batch is None:
                break
            rows = slice(start, start + len(batch))
            if not np.array_equal(batch.column(_ROW_ID).to_numpy(), self._row_ids[rows]):
                raise StoreError(f"{self._uri}: rows were read in another order; open it again")
            start = rows.stop
            yield rows, batch

    def _read(self, matches: Matches | None) -> Iterator[Rows]:
        """The vectors and attributes of some rows, or all; others may be included, but are dead."""
        if matches is not None and matches.count <= _MOST_FETCHED * self._count:
            yield from self._fetched(np.flatnonzero(matches.live))
            return
        for rows, batch in self._batches(self._schema.names):
            live = None if matches is None else matches.live[rows]
            if live is None or live.any():
                part = lance_rows.part_of(batch, self._schema, self._uri)
                yield Rows(self._schema, (replace(part, live=live),))

    def _take(self, positions: np.ndarray, names: list[str]) -> pa.Table:
        """Columns of the rows at int64 `positions` (m,), in this order."""
        # LanceDB returns each row once, in an order of its own.
        distinct, back = np.unique(self._row_ids[positions], return_inverse=True)
        with lance_rows.reading(self._schema, self._uri):
            table = self._searched.take(self._version, distinct, names)
        if len(table) != len(distinct):
            raise StoreError(
                f"{self._uri}: expected {len(distinct)} rows, found {len(table)}; open it again"
            )
        return table.select(names).take(np.argsort(table[_ROW_ID].to_numpy())[back])

    def _attributes_at(self, positions: np.ndarray) -> pa.Table:
        """The attributes of the rows at int64 `positions` (m,), from memory if that pays."""
        names = self._attributes.names
        self._fetches += 1
        table = None
        if _FETCH_US * self._fetches > _ATTRIBUTES_US * self._count:
            table = self._cached_attributes(names)
            if table is None:
                self._fetches = -math.inf
        if table is None:
            return self._take(positions, names)
        return table.take(positions)

    def _fetched(self, positions: np.ndarray) -> Iterator[Rows]:
        """The rows at int64 `positions` (m,), in this order, by blocks."""
        step = lance_rows.stream_rows(self._schema)
        for start in range(0, len(positions), step):
            block = positions[start : start + step]
            for batch in self._take(block, self._schema.names).combine_chunks().to_batches():
                yield Rows(self._schema, (lance_rows.part_of(batch, self._schema, self._uri),))

    def _scored(
        self,
        vectors: np.ndarray,
        positions: np.ndarray,
        pairs: Candidates,
        units: np.ndarray,
        k: int,
    ) -> pa.Table:
        """Scores pairs of queries and rows, and reads the attributes of the best.

        Args:
            vectors: float32 (m, dim), vectors of the rows.
            positions: int64 (m,), their positions.
            pairs: what to score; rows count within `vectors`.
            units, k: see `search`.
        """
        rows = Rows(self._schema, (RowView(vectors, self._attributes.empty_table()),))
        best = scoring.above_kth(pairs.query, scoring.score_pairs(rows, units, pairs), k)
        chosen, row = np.unique(pairs.row[best], return_inverse=True)
        part = RowView(vectors[chosen], self._attributes_at(positions[chosen]))
        candidates = Candidates(pairs.query[best], row)
        return scoring.hit_table(Rows(self._schema, (part,)), units, candidates, k)
