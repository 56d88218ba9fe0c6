"""A nearest-neighbour graph (HNSW of NMSLib): built, measured, saved, and searched."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsicd_embed.errors import StoreError

NEIGHBOURS = 16
EF_CONSTRUCTION = 200
_RECALL_GOAL = 0.999
_EF_LADDER = (200, 400, 800, 1600)
_SAMPLE = 100
_K = 10
_SEED = 20_211


@dataclass(frozen=True)
class Measured:
    """The efSearch that was enough for the goal, or the largest tried, and its ANN recall@10."""

    ef_search: int
    ann_recall: float


class Graph:
    """A graph over the rows of a matrix. It must never see a query of another length, or NaN.

    The library answers such a query with garbage, and crashes on a damaged file: callers check
    the one and the other's SHA-256 first.
    """

    def __init__(self, index: Any, nodes: int) -> None:
        self._index = index
        self._nodes = nodes
        self._mutex = threading.Lock()  # efSearch is a setting of the index, not of a query

    @classmethod
    def build(cls, matrix: np.ndarray) -> Graph:
        """Builds a graph over float32 (n, dim) unit vectors, on all cores."""
        index = _empty()
        index.addDataPointBatch(np.ascontiguousarray(matrix))
        settings = {"M": NEIGHBOURS, "efConstruction": EF_CONSTRUCTION, "post": 0}
        index.createIndex(settings, print_progress=False)
        return cls(index, len(matrix))

    @classmethod
    def load(cls, path: Path, nodes: int) -> Graph:
        """Loads what `save` wrote; the file must have been verified."""
        index = _empty()
        index.loadIndex(str(path), load_data=False)
        return cls(index, nodes)

    def save(self, path: Path, dim: int) -> None:
        """Writes the graph.

        Raises:
            StoreError: the disk has no room; the library itself would write half a file.
        """
        least = self._nodes * 4 * dim
        need = int(1.2 * self._nodes * (4 * dim + 8 * NEIGHBOURS + 64))
        free = shutil.disk_usage(path.parent).free
        if free >= need:
            self._index.saveIndex(str(path), save_data=False)
        if free < need or path.stat().st_size < least:
            raise StoreError(
                f"cannot write a graph of about {need} bytes in {path.parent}: "
                f"{free} bytes are free; free some space and try again"
            )

    def nearest(
        self, queries: np.ndarray, k: int, ef_search: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """About the k nearest nodes to each of float32 (q, dim) finite queries.

        Returns:
            For each query int32 (≤ k,) nodes and float32 (≤ k,) cosine similarities, best first.
        """
        with self._mutex:
            self._index.setQueryTimeParams({"efSearch": max(ef_search, 4 * k)})
            if len(queries) == 1:  # no threads to start for one
                found = [self._index.knnQuery(queries[0], k=k)]
            else:
                found = self._index.knnQueryBatch(queries, k=k)
        return [(nodes, 1.0 - distances) for nodes, distances in found]

    def measure(self, matrix: np.ndarray) -> Measured:
        """ANN recall@10 on rows moved a little, for the least efSearch that reaches the goal."""
        random = np.random.default_rng(_SEED)
        chosen = random.choice(len(matrix), size=min(_SAMPLE, len(matrix)), replace=False)
        noise = random.standard_normal((len(chosen), matrix.shape[1]))
        # Noise of half a vector's length: neighbours of a stored row itself are too easy.
        moved = matrix[chosen] + 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        queries = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
        exact = queries @ matrix.T
        k = min(_K, len(matrix))
        # A node as similar as the k-th counts, whichever of several equals it is.
        kth = np.partition(exact, len(matrix) - k, axis=1)[:, len(matrix) - k] - 1e-6
        measured = Measured(_EF_LADDER[0], 0.0)
        for ef_search in _EF_LADDER:
            found = self.nearest(queries, k, ef_search)
            good = [
                np.count_nonzero(exact[row, nodes] >= kth[row])
                for row, (nodes, _) in enumerate(found)
            ]
            measured = Measured(ef_search, float(np.mean(good) / k))
            if measured.ann_recall >= _RECALL_GOAL:
                break
        return measured


def _empty() -> Any:
    import nmslib

    return nmslib.init(method="hnsw", space="cosinesimil", data_type=nmslib.DataType.DENSE_VECTOR)
