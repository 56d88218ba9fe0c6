"""Reference libraries for vector search: hnswlib, faiss and usearch.

The stores are not built on them. Each gets graphs of the same size as NMSLib's (M = 16,
efConstruction = 200), or partitions, and is searched with the settings of the sweep. In the state
`optimized`, efSearch is 100, or a tenth of the partitions is searched.
"""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from rsicd_embed.bench.ann.contenders import Contender
from rsicd_embed.records import VECTOR, vector_matrix

NEEDS = {"hnswlib": ("hnswlib",), "faiss": ("faiss",), "usearch": ("usearch",)}
# hnswlib has no wheels, so no extra includes it.
PACKAGES = {"hnswlib": "hnswlib (it needs a C++ compiler)"}
_LINKS, _EF_CONSTRUCTION, _EF_SEARCH = 16, 200, 100


class ReferenceLibrary(Contender):
    """Collects rows and builds an index over them at once."""

    knobs: ClassVar[tuple[str, ...]] = ("efSearch",)

    def __init__(self, folder: Path, dim: int) -> None:
        self._path, self._dim = folder / "index", dim
        self._collected: list[np.ndarray] = []
        self._index: Any = None
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._index = self._load()
            self.configure(self._defaults())

    def upsert(self, batch: pa.RecordBatch) -> None:
        """Collects the vectors until `optimize`."""
        self._collected.append(vector_matrix(batch.column(VECTOR)).copy())

    def optimize(self) -> None:
        """Builds and saves the index."""
        self._index = self._build(np.concatenate(self._collected))
        self._collected = []
        self._save()
        self.configure(self._defaults())

    def index(self) -> str:
        """Parameters of the index."""
        return f"HNSW (M={_LINKS}, efConstruction={_EF_CONSTRUCTION}, efSearch={_EF_SEARCH})"

    def positions(self, results: Any, queries: int) -> list[np.ndarray]:
        """The positions for each query; -1 where there are too few."""
        return list(np.asarray(results, np.int64))

    def close(self) -> None:
        """Releases the index."""
        self._index = None

    def _defaults(self) -> dict[str, int]:
        return {"efSearch": _EF_SEARCH}

    @abstractmethod
    def _build(self, rows: np.ndarray) -> Any: ...

    @abstractmethod
    def _save(self) -> None: ...

    @abstractmethod
    def _load(self) -> Any: ...


class Hnswlib(ReferenceLibrary):
    """The HNSW graph of hnswlib."""

    def configure(self, settings: Mapping[str, int]) -> None:
        """Sets efSearch."""
        self._ef_search = settings["efSearch"]

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> np.ndarray:
        """Searches with an efSearch of at least k; returns positions."""
        if self._index.ef != max(k, self._ef_search):
            self._index.set_ef(max(k, self._ef_search))
        threads = 1 if len(queries) == 1 else -1
        positions: np.ndarray = self._index.knn_query(queries, k=k, num_threads=threads)[0]
        return positions

    def _build(self, rows: np.ndarray) -> Any:
        index = self._empty()
        index.init_index(max_elements=len(rows), M=_LINKS, ef_construction=_EF_CONSTRUCTION)
        index.add_items(rows, np.arange(len(rows)))
        return index

    def _save(self) -> None:
        self._index.save_index(str(self._path))

    def _load(self) -> Any:
        index = self._empty()
        index.load_index(str(self._path))
        return index

    def _empty(self) -> Any:
        import hnswlib

        return hnswlib.Index(space="cosine", dim=self._dim)


class Faiss(ReferenceLibrary):
    """The HNSW graph of faiss over uncompressed vectors."""

    def configure(self, settings: Mapping[str, int]) -> None:
        """Sets efSearch."""
        self._index.hnsw.efSearch = settings["efSearch"]

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> np.ndarray:
        """Searches; returns positions."""
        positions: np.ndarray = self._index.search(queries, k)[1]
        return positions

    def _build(self, rows: np.ndarray) -> Any:
        import faiss

        index = faiss.IndexHNSWFlat(self._dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _EF_CONSTRUCTION
        index.add(rows)
        return index

    def _save(self) -> None:
        import faiss

        faiss.write_index(self._index, str(self._path))

    def _load(self) -> Any:
        import faiss

        return faiss.read_index(str(self._path))


class FaissPartitions(Faiss):
    """The partitions (IVF) of faiss over uncompressed vectors: four times the root of the rows."""

    knobs = ("nprobes",)

    def configure(self, settings: Mapping[str, int]) -> None:
        """Sets nprobes, the number of partitions to search."""
        self._index.nprobe = settings["nprobes"]

    def index(self) -> str:
        """Parameters of the index."""
        nprobes = self._defaults()["nprobes"]
        return f"IVF of {self._index.nlist} partitions (nprobes={nprobes})"

    def _defaults(self) -> dict[str, int]:
        return {"nprobes": max(1, self._index.nlist // 10)}

    def _build(self, rows: np.ndarray) -> Any:
        import faiss

        # faiss wants at least 39 rows per partition.
        partitions = max(1, min(4 * math.isqrt(len(rows)), len(rows) // 39))
        quantizer, metric = faiss.IndexFlatIP(self._dim), faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexIVFFlat(quantizer, self._dim, partitions, metric)
        index.train(rows)
        index.add(rows)
        return index


class Usearch(ReferenceLibrary):
    """The graph of usearch over float32 vectors."""

    def __init__(self, folder: Path, dim: int) -> None:
        self._lock = threading.Lock()  # concurrent calls would share their workspace
        super().__init__(folder, dim)

    def configure(self, settings: Mapping[str, int]) -> None:
        """Sets efSearch."""
        self._index.expansion_search = settings["efSearch"]

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> Any:
        """Searches; returns keys, distances and counts."""
        with self._lock:
            return self._index.search(queries, k)

    def positions(self, results: Any, queries: int) -> list[np.ndarray]:
        """The positions, which are the keys."""
        counts = np.atleast_1d(getattr(results, "counts", len(results.keys)))
        keys = np.asarray(results.keys, np.int64).reshape(queries, -1)
        return [row[:count] for row, count in zip(keys, counts, strict=True)]

    def _build(self, rows: np.ndarray) -> Any:
        index = self._empty()
        index.add(np.arange(len(rows)), rows)
        return index

    def _save(self) -> None:
        self._index.save(str(self._path))

    def _load(self) -> Any:
        index = self._empty()
        index.load(str(self._path))
        return index

    def _empty(self) -> Any:
        from usearch.index import Index

        return Index(
            ndim=self._dim,
            metric="cos",
            dtype="f32",
            connectivity=_LINKS,
            expansion_add=_EF_CONSTRUCTION,
        )


# Contenders of each reference.
CONTENDERS: Mapping[str, Mapping[str, type[ReferenceLibrary]]] = {
    "hnswlib": {"hnswlib HNSW": Hnswlib},
    "faiss": {"faiss HNSW": Faiss, "faiss IVF": FaissPartitions},
    "usearch": {"usearch HNSW": Usearch},
}
