"""Searches of one version of a LanceDB table that is too large to cache.

Filters are evaluated over the attributes, which are cached, so they mean the same as in every other
store. The matching rows are then searched in the cheapest way: among many hits of the index,
exactly through int8 codes, by reading just their vectors, or by streaming all vectors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.errors import StoreError
from rsicd_embed.records import VECTOR
from rsicd_embed.stores import scoring
from rsicd_embed.stores.filters import is_volatile, matching
from rsicd_embed.stores.lancedb import lance_rows
from rsicd_embed.stores.lancedb.lance_index import SPARE_HITS, AnnIndex
from rsicd_embed.stores.lancedb.lance_searcher import SearchedTable
from rsicd_embed.stores.planner import SearchCosts, index_depth
from rsicd_embed.stores.quantised import QuantisedVectors, mean_of, quantise
from rsicd_embed.stores.row_view import Rows, RowView, without_vector
from rsicd_embed.stores.rows import unit_vectors
from rsicd_embed.stores.scoring import Candidates

_MEMORY_VARIABLE = "RSICD_EMBED_MEMORY"
_MEMORY_MB = 1024
_CODES_SHARE = 0.75  # of the memory budget; the rest is for attributes
_CACHED_MASKS = 8
_ROW_ID = "_rowid"
# Costs of searches with codes, and without.
_BY_CODES = SearchCosts(fixed_us=5_000, per_hit_us=4, per_row_us=0.08)
_BY_READING = SearchCosts(fixed_us=5_000, per_hit_us=4, per_row_us=12)
_STREAM_US = 3.0  # reading a row as part of a stream of all
_QUANTISE_US = 5.0  # reading and coding a row
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
    return int(value) * 2**20


class LargeTable:
    """The rows of one version of a table; a position counts them in the order they are read."""

    def __init__(self, table: Any, schema: pa.Schema, count: int, uri: str) -> None:
        """Reads nothing yet; `table` must be at this version whenever a method is called."""
        self._table, self._schema, self._count, self._uri = table, schema, count, uri
        self._dim = schema.field(VECTOR).type.list_size
        self._attributes = without_vector(schema)
        self._budget = memory_budget()
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._codes: QuantisedVectors | None = None
        self._spent_us = 0.0  # on exact searches that codes would have made faster
        self._cached_matches = lru_cache(_CACHED_MASKS)(self._evaluated)

    def matches(self, where: str) -> np.ndarray:
        """bool (rows,): the rows that satisfy a condition.

        Raises:
            FilterError: see `filters.matching`.
        """
        is_cacheable = isinstance(where, str) and not is_volatile(where)
        return self._cached_matches(where) if is_cacheable else self._evaluated(where)

    def search(self, units: np.ndarray, k: int, live: np.ndarray | None) -> pa.Table:
        """Finds the k best rows for each query exactly.

        Args:
            units: float64 (q, dim) unit queries.
            k: number of rows wanted per query, at least 1.
            live: bool (rows,), the rows to search; None for all.

        Returns:
            A table of hits; see `VectorStore.search`.
        """
        count = self._count if live is None else int(np.count_nonzero(live))
        if not count or not len(units):
            return scoring.hit_table(Rows(self._schema, ()), units, scoring.joined([]), k)
        if self._codes is None and self._is_worth_coding(count):
            self.quantise()
        if self._codes is None:
            return lance_rows.search_stream(self._read(live, count), self._schema, units, k)
        no_vectors = np.empty((self._count, 0), np.float32)
        part = RowView(no_vectors, self._attributes.empty_table(), codes=self._codes)
        rows = Rows(self._schema, (part,))
        return self._scored(scoring.nearest(rows, units, k, [live]), units, k)

    def search_index(
        self, searched: SearchedTable, index: AnnIndex, units: np.ndarray, k: int, live: np.ndarray
    ) -> pa.Table | None:
        """Finds the k best of some rows for each query among many hits of the index.

        Arguments are those of `search`, and the index with the table to search it in.

        Returns:
            A table of hits; None if an exact search is cheaper, or too few hits are live.
        """
        count = int(np.count_nonzero(live))
        share = count / self._count
        setting = index.for_share(share)
        if setting is None:
            return None
        wanted = (k + SPARE_HITS) * index.refine
        costs = _BY_READING if self._codes is None else _BY_CODES
        depth = index_depth(costs, wanted, count, self._count)
        if depth is None:
            return None
        version = int(self._table.version)
        hit_query, row_ids = searched.nearest_ids(version, units, depth, setting.partitions)
        positions = self._positions(row_ids)
        chosen = np.flatnonzero(live[positions])
        query = hit_query[chosen]
        begins = np.searchsorted(query, np.arange(len(units)))
        if np.diff(begins, append=len(query)).min() < min(wanted, count):
            return None
        is_near = np.arange(len(query)) - begins[query] < wanted
        return self._scored(Candidates(query[is_near], positions[chosen[is_near]]), units, k)

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
        return self._fetched(positions).vectors(np.arange(len(positions)))

    def _is_worth_coding(self, count: int) -> bool:
        """Whether the exact searches so far took as long as coding all vectors would."""
        self._spent_us += min(_BY_READING.per_row_us * count, _STREAM_US * self._count)
        return self._spent_us > _QUANTISE_US * self._count

    def _evaluated(self, where: str) -> np.ndarray:
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
        return np.concatenate(blocks)

    def _cached_attributes(self, names: list[str]) -> pa.Table | None:
        """Some attributes of all rows; None if they take too much memory."""
        limit = (1 - _CODES_SHARE) * self._budget
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
            table = pa.Table.from_batches(batches)
            self._columns |= dict(zip(names, table.columns, strict=True))
        fields = [self._attributes.field(name) for name in names]
        return pa.table([self._columns[name] for name in names], schema=pa.schema(fields))

    @cached_property
    def _row_ids(self) -> np.ndarray:
        """uint64 (rows,): LanceDB's number of each row."""
        query = self._table.search().select(["id"]).with_row_id(True)
        with lance_rows.reading(self._schema, self._uri):
            batches = query.to_batches(batch_size=lance_rows.STREAM_ROWS)
            return np.concatenate([batch.column(_ROW_ID).to_numpy() for batch in batches])

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
            batches = iter(query.to_batches(batch_size=lance_rows.STREAM_ROWS))
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

    def _read(self, live: np.ndarray | None, count: int) -> Iterator[Rows]:
        """The vectors and attributes of some rows; others may be included, but are dead."""
        if live is not None and count <= _MOST_FETCHED * self._count:
            positions = np.flatnonzero(live)
            for start in range(0, count, lance_rows.STREAM_ROWS):
                yield self._fetched(positions[start : start + lance_rows.STREAM_ROWS])
            return
        for rows, batch in self._batches(self._schema.names):
            mask = None if live is None else live[rows]
            if mask is None or mask.any():
                part = lance_rows.part_of(batch, self._schema, self._uri)
                yield Rows(self._schema, (RowView(part.matrix, part.attributes, mask),))

    def _fetched(self, positions: np.ndarray) -> Rows:
        """The rows at int64 `positions` (m,), in this order."""
        row_ids = self._row_ids[positions]
        with lance_rows.reading(self._schema, self._uri):
            query = self._table.take_row_ids(row_ids.tolist()).with_row_id()
            table = query.select(self._schema.names).to_arrow().combine_chunks()
        if len(table) != len(positions):
            raise StoreError(
                f"{self._uri}: expected {len(positions)} rows, found {len(table)}; open it again"
            )
        found = np.argsort(table[_ROW_ID].to_numpy())
        back = np.empty(len(positions), np.int64)
        back[np.argsort(row_ids)] = found
        batch = table.take(back).combine_chunks().to_batches()
        return Rows(
            self._schema, tuple(lance_rows.part_of(part, self._schema, self._uri) for part in batch)
        )

    def _scored(self, candidates: Candidates, units: np.ndarray, k: int) -> pa.Table:
        positions, row = np.unique(candidates.row, return_inverse=True)
        rows = self._fetched(positions)
        return scoring.hit_table(rows, units, Candidates(candidates.query, row), k)
