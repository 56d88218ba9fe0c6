"""A nearest-neighbour graph (HNSW of NMSLib): built, measured, saved, and searched."""

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
    """How a graph is built and searched.

    Attributes:
        neighbours: M, the links of a node on each layer.
        ef_construction: how many nodes are kept in view when a node is linked.
        ef_search: how many when the graph is searched; None to find it by measurement.
        recall: the ANN recall@10 that is aimed at by that.
    """

    neighbours: int = 16
    ef_construction: int = 200
    ef_search: int | None = None
    recall: float = 0.999  # one row of the thousand that are looked for


@dataclass(frozen=True)
class Measured:
    """The least efSearch that reaches the goal, or else the best recall, and its ANN recall@10."""

    ef_search: int
    ann_recall: float


@dataclass(frozen=True)
class GraphHits:
    """What a graph gave, by query, then best first.

    Attributes:
        query, row: int64 (m,), query numbers and rows.
        similarity: float32 (m,), their cosine similarities.
        each: how many there are for each query; None where that differs.
    """

    query: np.ndarray
    row: np.ndarray
    similarity: np.ndarray
    each: int | None


class Graph:
    """A graph over the rows of a matrix. It must never see a query of another length, or NaN.

    Equal rows share a node: thousands of them (the blank tiles of an archive) would link only to
    each other, and searches would be caught among them or never get there.

    The library answers such a query with garbage, and crashes on a damaged file: callers check
    the one and the other's SHA-256 first.
    """

    def __init__(self, index: Any, owners: np.ndarray | None, rows: int) -> None:
        """`owners` holds int (rows,) the node of each row; None where row i is node i."""
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
    def build(cls, matrix: np.ndarray, how: GraphSettings) -> Graph:
        """Builds a graph over float32 (n, dim) unit vectors, on all cores."""
        index = _empty()
        first, owners = distinct_rows(matrix)
        if len(first) == len(matrix):
            index.addDataPointBatch(np.ascontiguousarray(matrix))
        else:
            index.addDataPointBatch(matrix[first])
        settings = {"M": how.neighbours, "efConstruction": how.ef_construction, "post": 0}
        index.createIndex(settings, print_progress=False)
        return cls(index, owners if len(first) < len(matrix) else None, len(matrix))

    @classmethod
    def load(cls, path: Path, owners: np.ndarray | None, rows: int) -> Graph:
        """Loads what `save` wrote; the file must have been verified."""
        index = _empty()
        index.loadIndex(str(path), load_data=False)
        return cls(index, owners, rows)

    def save(self, path: Path, dim: int, neighbours: int) -> None:
        """Writes the graph.

        Raises:
            StoreError: the disk has no room, where the library itself would write half a file; or
                it refuses the file.
        """
        least = self._nodes * 4 * dim
        need = int(1.2 * self._nodes * (4 * dim + 8 * neighbours + 64))
        free = shutil.disk_usage(path.parent).free
        if free >= need:
            try:
                self._index.saveIndex(str(path), save_data=False)
            except RuntimeError as error:  # what the library makes of errors of the disk
                raise StoreError(
                    f"cannot write a graph in {path.parent}: {error}; see to the disk and try again"
                ) from error
        if free < need or path.stat().st_size < least:
            raise StoreError(
                f"cannot write a graph of about {need} bytes in {path.parent}: "
                f"{free} bytes are free; free some space and try again"
            )

    def nearest(self, queries: np.ndarray, k: int, ef_search: int) -> GraphHits:
        """About the k nearest distinct rows to each of float32 (q, dim) finite queries, q ≥ 1.

        Rows that are equal to those come along.
        """
        if len(queries) == 1:  # no threads to start for one
            found = [self.nearest_nodes(queries[0], k, ef_search)]
        else:
            with self._mutex:
                self._set_ef_search(k, ef_search)
                found = self._index.knnQueryBatch(queries, k=k)
        counts = [len(nodes) for nodes, _ in found]
        rows, distances = map(np.concatenate, zip(*found, strict=True))
        query, similarity = np.arange(len(counts)).repeat(counts), 1.0 - distances
        each: int | None = counts[0] if min(counts) == max(counts) else None
        if self.owners is not None:
            query, rows, similarity = self._expanded(query, rows, similarity)
            each = None
        return GraphHits(query, rows.astype(np.int64), similarity, each)

    def nearest_nodes(
        self, query: np.ndarray, k: int, ef_search: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """`nearest` for one query (dim,), and without the rows that share a node.

        Returns:
            int32 (m,) nodes and float32 (m,) their cosine distances, m ≤ k, nearest first.
        """
        with self._mutex:
            self._set_ef_search(k, ef_search)
            nodes, distances = self._index.knnQuery(query, k=k)
        return nodes, distances

    def reach(self, nodes: np.ndarray, k: int) -> int:
        """How many of the first of some nodes have k rows or more; one too many if all have not."""
        if self.owners is None:
            return k
        rows = 0
        for place, size in enumerate(self._sizes[nodes].tolist(), start=1):
            rows += size
            if rows >= k:
                return place
        return len(nodes) + 1

    def rows_of(self, nodes: np.ndarray) -> np.ndarray:
        """int64 (m,): the rows of int (n,) nodes, in their order, m ≥ n."""
        return nodes.astype(np.int64) if self.owners is None else self._rows_of_shared(nodes)

    def _set_ef_search(self, k: int, ef_search: int) -> None:
        """Only while the mutex is held."""
        wanted = max(ef_search, 4 * k)
        if self._ef_search != wanted:
            self._index.setQueryTimeParams({"efSearch": wanted})
            self._ef_search = wanted

    def _expanded(
        self, query: np.ndarray, nodes: np.ndarray, similarity: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All rows of each node, in place of it."""
        counts = self._sizes[nodes]
        rows = self._rows_of_shared(nodes)
        return np.repeat(query, counts), rows, np.repeat(similarity, counts)

    def _rows_of_shared(self, nodes: np.ndarray) -> np.ndarray:
        starts, counts = self._starts[nodes], self._sizes[nodes]
        if (total := int(counts.sum())) > len(nodes):
            within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
            starts = np.repeat(starts, counts) + within
        rows: np.ndarray = self._rows[starts]
        return rows

    def measure(self, matrix: np.ndarray, how: GraphSettings) -> Measured:
        """ANN recall@10 on rows moved a little, for the least efSearch that is enough."""
        ladder = (how.ef_search,) if how.ef_search else _EF_LADDER
        queries = recall.queries_near(matrix[recall.sample(len(matrix))])
        exact = queries @ matrix.T
        k = min(recall.K, len(matrix))
        kth = np.partition(exact, len(matrix) - k, axis=1)[:, len(matrix) - k]
        best = Measured(ladder[0], 0.0)
        for ef_search in ladder:
            found = self.nearest(queries, k, ef_search)
            ends = np.searchsorted(found.query, np.arange(1, len(queries)))
            similarities = np.split(exact[found.query, found.row], ends)
            measured = Measured(ef_search, recall.recall(similarities, kth, k))
            # A row that no other links to is not found however long one looks.
            if measured.ann_recall > best.ann_recall:
                best = measured
            if best.ann_recall >= how.recall:
                break
        return best


def distinct_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of float32 (n, dim) are equal, bit by bit.

    Returns:
        int64 (m,), the first row of each distinct kind, and int64 (n,), the kind of each row.
    """
    factors = np.random.default_rng(_SEED).integers(1, 2**63, matrix.shape[1], dtype=np.uint64)
    keys = np.empty(len(matrix), dtype=np.uint64)
    for start in range(0, len(matrix), _BLOCK_ROWS):
        bits = np.ascontiguousarray(matrix[start : start + _BLOCK_ROWS]).view(np.uint32)
        keys[start : start + len(bits)] = np.add.reduce(bits * factors, axis=1)
    _, first, owners = np.unique(keys, return_index=True, return_inverse=True)
    for start in range(0, len(matrix), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        same = np.all(matrix[block] == matrix[first[owners[block]]], axis=1)
        # Rows whose keys agree by chance alone become kinds of their own.
        others = np.flatnonzero(~same) + start
        owners[others] = len(first) + np.arange(len(others))
        first = np.concatenate([first, others])
    return first, owners


def _empty() -> Any:
    from rsicd_embed.stores._lazy_nmslib import nmslib

    return nmslib.init(method="hnsw", space="cosinesimil", data_type=nmslib.DataType.DENSE_VECTOR)
