"""A nearest-neighbour graph (NMSLib's HNSW): building, measuring, saving and searching it."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsicd_embed.errors import StoreError
from rsicd_embed.stores import recall

_EF_LADDER = (400, 800, 1600)
_SEED = 20_211
_BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class GraphSettings:
    """Parameters for building and searching a graph.

    Attributes:
        neighbours: M, the links of a node on each layer.
        ef_construction: number of candidates while a node is linked.
        ef_search: number of candidates during a search; None to choose it by measurement.
        recall: ANN recall@10 that the chosen `ef_search` must reach.
    """

    neighbours: int = 16
    ef_construction: int = 200
    ef_search: int | None = None
    recall: float = 0.999  # one miss in the thousand hits that are measured


@dataclass(frozen=True)
class Measured:
    """The lowest efSearch that reaches the goal, or else the best one, and its ANN recall@10."""

    ef_search: int
    ann_recall: float


@dataclass(frozen=True)
class GraphHits:
    """Hits of a graph, by query, then most similar first.

    Attributes:
        query, row: int64 (m,), query numbers and row positions.
        similarity: float32 (m,), cosine similarities.
        per_query: number of hits of each query; None if it differs between queries.
    """

    query: np.ndarray
    row: np.ndarray
    similarity: np.ndarray
    per_query: int | None


class Graph:
    """A graph over the rows of a matrix.

    Equal rows share a node: thousands of them (the blank tiles of an archive) would link only to
    each other, and searches would get stuck among them or never reach them.

    NMSLib returns garbage for queries of another length or with NaN, and crashes on a damaged
    file: callers check the queries and the file's SHA-256 first.
    """

    def __init__(self, index: Any, owners: np.ndarray | None, rows: int) -> None:
        """Wraps an NMSLib index; `owners` is the node of each row, None if row i is node i."""
        self._index = index
        self.owners = owners
        self._nodes = rows
        if owners is not None:
            self._rows = np.argsort(owners, kind="stable")
            self._starts = np.flatnonzero(np.diff(owners[self._rows], prepend=-1, append=-1))
            self._sizes = np.diff(self._starts)
            self._nodes = len(self._sizes)
        self._mutex = threading.Lock()  # efSearch is a setting of the index, not of a query
        self._ef_search = 0

    @classmethod
    def build(cls, matrix: np.ndarray, settings: GraphSettings) -> Graph:
        """Builds a graph over float32 (n, dim) unit vectors, using all cores."""
        index = _empty()
        first, owners = distinct_rows(matrix)
        if len(first) == len(matrix):
            index.addDataPointBatch(np.ascontiguousarray(matrix))
        else:
            index.addDataPointBatch(matrix[first])
        parameters = {
            "M": settings.neighbours,
            "efConstruction": settings.ef_construction,
            "post": 0,
        }
        index.createIndex(parameters, print_progress=False)
        return cls(index, owners if len(first) < len(matrix) else None, len(matrix))

    @classmethod
    def load(cls, path: Path, owners: np.ndarray | None, rows: int) -> Graph:
        """Loads a saved graph, whose file must have been verified."""
        index = _empty()
        index.loadIndex(str(path), load_data=False)
        return cls(index, owners, rows)

    def save(self, path: Path, dim: int, neighbours: int) -> None:
        """Writes the graph.

        Raises:
            StoreError: the disk is full (NMSLib itself would leave half a file) or failed.
        """
        smallest = self._nodes * 4 * dim
        need = int(1.2 * self._nodes * (4 * dim + 8 * neighbours + 64))
        free = shutil.disk_usage(path.parent).free
        if free >= need:
            try:
                self._index.saveIndex(str(path), save_data=False)
            except RuntimeError as error:  # NMSLib reports disk errors as these
                raise StoreError(
                    f"cannot write a graph in {path.parent}: {error}; check the disk and try again"
                ) from error
        if free < need or path.stat().st_size < smallest:
            raise StoreError(
                f"cannot write a graph of about {need} bytes in {path.parent}: "
                f"{free} bytes are free; free some space and try again"
            )

    def nearest(
        self, queries: np.ndarray, k: int, ef_search: int, wanted: int | None = None
    ) -> GraphHits:
        """Finds approximately the k nearest distinct rows, and all rows equal to those.

        Args:
            queries: float32 (q, dim), finite, q ≥ 1.
            k: number of distinct rows per query.
            ef_search: number of candidates during the search; at least k and 4 `wanted` are used.
            wanted: number of hits that will be used, default k.
        """
        least = max(k, 4 * (wanted or k), ef_search)
        if len(queries) == 1:  # avoids starting threads
            results = [self.nearest_nodes(queries[0], k, least)]
        else:
            with self._mutex:
                self._set_ef_search(least)
                results = self._index.knnQueryBatch(queries, k=k)
        counts = [len(distances) for _, distances in results]
        nodes, distances = map(np.concatenate, zip(*results, strict=True))
        query, similarity = np.arange(len(counts)).repeat(counts), 1.0 - distances
        per_query: int | None = counts[0] if min(counts) == max(counts) else None
        if self.owners is not None:
            sizes = self._sizes[nodes]
            query, similarity = np.repeat(query, sizes), np.repeat(similarity, sizes)
            per_query = None
        return GraphHits(query, self.rows_of(nodes), similarity, per_query)

    def nearest_nodes(
        self, query: np.ndarray, k: int, ef_search: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds approximately the k nearest nodes to one query (dim,).

        Returns:
            int32 (m,) nodes and float32 (m,) cosine distances, m ≤ k, nearest first.
        """
        with self._mutex:
            self._set_ef_search(max(k, ef_search))
            nodes, distances = self._index.knnQuery(query, k=k)
        return nodes, distances

    def reach(self, nodes: np.ndarray, k: int) -> int:
        """Number of leading nodes that together have k rows; len(nodes) + 1 if all have fewer."""
        if self.owners is None:
            return k
        rows = 0
        for count, size in enumerate(self._sizes[nodes].tolist(), start=1):
            rows += size
            if rows >= k:
                return count
        return len(nodes) + 1

    def rows_of(self, nodes: np.ndarray) -> np.ndarray:
        """The rows of int (n,) nodes as int64 (m,), m ≥ n, in the order of the nodes."""
        if self.owners is None:
            return nodes.astype(np.int64)
        starts, counts = self._starts[nodes], self._sizes[nodes]
        if (total := int(counts.sum())) > len(nodes):
            within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
            starts = np.repeat(starts, counts) + within
        rows: np.ndarray = self._rows[starts]
        return rows

    def _set_ef_search(self, ef_search: int) -> None:
        """Sets efSearch for the next query; the caller holds the mutex."""
        if self._ef_search != ef_search:
            self._index.setQueryTimeParams({"efSearch": ef_search})
            self._ef_search = ef_search

    def measure(self, matrix: np.ndarray, settings: GraphSettings) -> Measured:
        """Measures ANN recall@10 near sampled rows, and chooses the lowest sufficient efSearch."""
        ladder = (settings.ef_search,) if settings.ef_search else _EF_LADDER
        queries = recall.queries_near(matrix[recall.sample(len(matrix))])
        exact = queries @ matrix.T
        k = min(recall.K, len(matrix))
        kth = np.partition(exact, len(matrix) - k, axis=1)[:, len(matrix) - k]
        best = Measured(ladder[0], 0.0)
        for ef_search in ladder:
            hits = self.nearest(queries, k, ef_search)
            ends = np.searchsorted(hits.query, np.arange(1, len(queries)))
            similarities = np.split(exact[hits.query, hits.row], ends)
            measured = Measured(ef_search, recall.recall(similarities, kth, k))
            # A higher efSearch may not help: a row without incoming links is never found.
            if measured.ann_recall > best.ann_recall:
                best = measured
            if best.ann_recall >= settings.recall:
                break
        return best


def distinct_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups the rows of float32 (n, dim) that are equal bit by bit.

    Returns:
        int64 (m,), the first row of each group, and int64 (n,), the group of each row.
    """
    factors = np.random.default_rng(_SEED).integers(1, 2**63, matrix.shape[1], dtype=np.uint64)
    keys = np.empty(len(matrix), dtype=np.uint64)
    for start in range(0, len(matrix), _BLOCK_ROWS):
        bits = np.ascontiguousarray(matrix[start : start + _BLOCK_ROWS]).view(np.uint32)
        keys[start : start + len(bits)] = np.add.reduce(bits * factors, axis=1)
    _, first, owners = np.unique(keys, return_index=True, return_inverse=True)
    for start in range(0, len(matrix), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        equal = np.all(matrix[block] == matrix[first[owners[block]]], axis=1)
        # Rows whose keys collide by chance become groups of their own.
        others = np.flatnonzero(~equal) + start
        owners[others] = len(first) + np.arange(len(others))
        first = np.concatenate([first, others])
    return first, owners


def _empty() -> Any:
    from rsicd_embed.stores._lazy_nmslib import nmslib

    return nmslib.init(method="hnsw", space="cosinesimil", data_type=nmslib.DataType.DENSE_VECTOR)
