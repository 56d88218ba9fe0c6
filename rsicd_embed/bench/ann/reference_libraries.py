"""Other libraries of vector search, as lines to compare with: hnswlib, faiss and usearch.

They are not what the stores are built on. Each is given graphs of the size that NMSLib's have
(M = 16, efConstruction = 200), or partitions, and is searched with the settings of the sweep; what
`optimized` tells of it is for efSearch = 100, or a tenth of the partitions.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from rsicd_embed.records import VECTOR, vector_matrix

NEEDS = {"hnswlib": ("hnswlib",), "faiss": ("faiss",), "usearch": ("usearch",)}
# It has no wheels, and so is in no extra.
PACKAGES = {"hnswlib": "hnswlib (it needs a C++ compiler)"}
_LINKS, _EF_CONSTRUCTION, _EF_SEARCH = 16, 200, 100


class Library(ABC):
    """Rows that are collected, and an index over them that is built at once."""

    knobs: ClassVar[tuple[str, ...]] = ("efSearch",)

    def __init__(self, folder: Path, dim: int) -> None:
        self._path, self._dim = folder / "index", dim
        self._collected: list[np.ndarray] = []
        self._rows = 0
        self._index: Any = None
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._index = self._load()
            self.configure(self._usual())

    def upsert(self, batch: pa.RecordBatch) -> None:
        """Keeps the vectors until it is optimized."""
        self._collected.append(vector_matrix(batch.column(VECTOR)).copy())

    def optimize(self) -> None:
        """Builds the index and saves it."""
        rows = np.concatenate(self._collected)
        self._collected, self._rows = [], len(rows)
        self._index = self._build(rows)
        self._save()
        self.configure(self._usual())

    def index(self) -> str:
        """Its parameters."""
        usual = ", ".join(f"{name}={value}" for name, value in self._usual().items())
        return f"HNSW (M={_LINKS}, efConstruction={_EF_CONSTRUCTION}, {usual})"

    @abstractmethod
    def configure(self, settings: Mapping[str, int]) -> None:
        """Searches with these."""

    @abstractmethod
    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> Any:
        """Finds the k best."""

    def found(self, answer: Any, queries: int) -> list[np.ndarray]:
        """The positions, for each query; -1 where there are too few."""
        return list(np.asarray(answer, np.int64))

    def close(self) -> None:
        """Lets go of the index."""
        self._index = None

    def _usual(self) -> dict[str, int]:
        return {"efSearch": _EF_SEARCH}

    @abstractmethod
    def _build(self, rows: np.ndarray) -> Any: ...

    @abstractmethod
    def _save(self) -> None: ...

    @abstractmethod
    def _load(self) -> Any: ...


class Hnswlib(Library):
    """hnswlib's graph."""

    def configure(self, settings: Mapping[str, int]) -> None:
        """Takes efSearch."""
        self._wanted = settings["efSearch"]

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> np.ndarray:
        """Positions of the k best; efSearch is no less than k."""
        if self._index.ef != max(k, self._wanted):
            self._index.set_ef(max(k, self._wanted))
        labels, _ = self._index.knn_query(queries, k=k, num_threads=1 if len(queries) == 1 else -1)
        found: np.ndarray = labels
        return found

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


class Faiss(Library):
    """faiss's HNSW graph over whole vectors."""

    def configure(self, settings: Mapping[str, int]) -> None:
        """Takes efSearch."""
        self._index.hnsw.efSearch = settings["efSearch"]

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> np.ndarray:
        """Positions of the k best."""
        _, found = self._index.search(queries, k)
        positions: np.ndarray = found
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
    """faiss's partitions (IVF) of whole vectors, four times the square root of the rows."""

    knobs = ("nprobes",)

    def configure(self, settings: Mapping[str, int]) -> None:
        """Takes nprobes, the partitions that are looked at."""
        self._index.nprobe = settings["nprobes"]

    def index(self) -> str:
        """Its parameters."""
        return f"IVF of {self._index.nlist} partitions (nprobes={self._usual()['nprobes']})"

    def _usual(self) -> dict[str, int]:
        return {"nprobes": max(1, self._index.nlist // 10)}

    def _build(self, rows: np.ndarray) -> Any:
        import faiss

        # No more partitions than leave the 39 rows in each that faiss asks for.
        lists = max(1, min(4 * math.isqrt(len(rows)), len(rows) // 39))
        measure = faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(self._dim), self._dim, lists, measure)
        index.train(rows)
        index.add(rows)
        return index


class Usearch(Library):
    """usearch's graph over float32 vectors."""

    def __init__(self, folder: Path, dim: int) -> None:
        self._mutex = threading.Lock()  # calls at the same time would share their workspace
        super().__init__(folder, dim)

    def configure(self, settings: Mapping[str, int]) -> None:
        """Takes efSearch."""
        self._index.expansion_search = settings["efSearch"]

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> Any:
        """Keys and distances of the k best, and how many there are."""
        with self._mutex:
            return self._index.search(queries, k)

    def found(self, answer: Any, queries: int) -> list[np.ndarray]:
        """Its keys are the positions."""
        counts = np.atleast_1d(getattr(answer, "counts", len(answer.keys)))
        keys = np.asarray(answer.keys, np.int64).reshape(queries, -1)
        return [one[:count] for one, count in zip(keys, counts, strict=True)]

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
CONTENDERS: Mapping[str, Mapping[str, type[Library]]] = {
    "hnswlib": {"hnswlib HNSW": Hnswlib},
    "faiss": {"faiss HNSW": Faiss, "faiss IVF": FaissPartitions},
    "usearch": {"usearch HNSW": Usearch},
}
