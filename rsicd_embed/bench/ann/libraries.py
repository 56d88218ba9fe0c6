"""The libraries that stores are built on, called directly: what a store's guarantees cost.

They do nothing that a store does beyond searching: no check of queries, no exact scores, no order
among ties, no snapshot, no row but the k that are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.bench.ann.contenders import SCAN, grouped, numbers
from rsicd_embed.errors import BenchError
from rsicd_embed.records import VECTOR, vector_matrix
from rsicd_embed.stores.graph import GraphSettings
from rsicd_embed.stores.lancedb.lance_store import KEEP

_BLOCK_QUERIES = 32
_TABLE = "rows"


class NumPy:
    """One matrix product with all rows, and a partition."""

    def __init__(self, path: Path) -> None:
        self._matrix = np.load(path)

    def upsert(self, batch: pa.RecordBatch) -> None:
        """It has the rows already."""

    def optimize(self) -> None:
        """There is no index."""

    def index(self) -> str:
        """What it does."""
        return SCAN

    def configure(self, settings: Mapping[str, int]) -> None:
        """There are no settings."""

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> list[np.ndarray]:
        """Positions and float32 similarities of the k best."""
        matrix, found = self._matrix, []
        k = min(k, len(matrix))
        for start in range(0, len(queries), _BLOCK_QUERIES):
            block = queries[start : start + _BLOCK_QUERIES]
            # One query by a matrix-vector product, which is the faster one.
            products = block @ matrix.T if len(block) > 1 else (matrix @ block[0])[None]
            for similarities in products:
                best = np.argpartition(similarities, len(matrix) - k)[len(matrix) - k :]
                found.append(best[np.argsort(-similarities[best])])
        return found

    def found(self, answer: list[np.ndarray], queries: int) -> list[np.ndarray]:
        """They are the answer."""
        return answer

    def close(self) -> None:
        """Lets go of the rows."""
        del self._matrix


class NmslibIndex:
    """NMSLib's HNSW index with the parameters of a store's graph."""

    def __init__(self, folder: Path, how: GraphSettings) -> None:
        from rsicd_embed.stores._lazy_nmslib import nmslib

        self._how, self._path, self._rows = how, folder / "index", 0
        self._index = nmslib.init(
            method="hnsw", space="cosinesimil", data_type=nmslib.DataType.DENSE_VECTOR
        )
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._index.loadIndex(str(self._path), load_data=False)

    def upsert(self, batch: pa.RecordBatch) -> None:
        """Hands the library the vectors; it can search them once it is optimized."""
        ids = np.arange(self._rows, self._rows + len(batch), dtype=np.int32)
        self._index.addDataPointBatch(vector_matrix(batch.column(VECTOR)), ids)
        self._rows += len(batch)

    def optimize(self) -> None:
        """Builds the index and saves it."""
        self._index.createIndex(
            {"M": self._how.neighbours, "efConstruction": self._how.ef_construction, "post": 0},
            print_progress=False,
        )
        self._index.saveIndex(str(self._path), save_data=False)

    def index(self) -> str:
        """Its parameters."""
        return f"HNSW (M={self._how.neighbours}, efConstruction={self._how.ef_construction})"

    def configure(self, settings: Mapping[str, int]) -> None:
        """Takes efSearch, of which a store may take more for a large k.

        Raises:
            BenchError: these are of a graph that was built in another way.
        """
        own = numbers(self.index())
        if {name: settings.get(name, value) for name, value in own.items()} != own:
            raise BenchError(f"expected a graph with {self.index()}, found {dict(settings)}")
        self._index.setQueryTimeParams({"efSearch": settings["efSearch"]})

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> Any:
        """Positions and distances."""
        if len(queries) == 1:
            return [self._index.knnQuery(queries[0], k=k)]
        return self._index.knnQueryBatch(queries, k=k)

    def found(self, answer: Any, queries: int) -> list[np.ndarray]:
        """The positions, for each query."""
        return [positions for positions, _ in answer]

    def close(self) -> None:
        """Lets go of the index."""
        del self._index


class LanceTable:
    """A LanceDB table with the columns, and the index, of a store's table."""

    def __init__(self, folder: Path, index_rows: int | None = None) -> None:
        """It gets an index from `index_rows` rows on, by default from where the store has one."""
        import lancedb

        from rsicd_embed.stores.lancedb import lance_index

        self._least = lance_index.INDEX_ROWS if index_rows is None else index_rows
        self._folder = lancedb.connect(str(folder))
        self._table: Any = None
        self._settings: dict[str, int] = {}
        if _TABLE in self._folder.list_tables().tables:
            self._open(self._folder.open_table(_TABLE))

    def upsert(self, batch: pa.RecordBatch) -> None:
        """Adds rows, which LanceDB does not look for among those that are there."""
        rows = pa.Table.from_batches([batch])
        if self._table is None:
            self._open(self._folder.create_table(_TABLE, rows))
        else:
            self._table.add(rows)

    def optimize(self) -> None:
        """Compacts, keeps old versions as long as a store does, and builds the index."""
        from lancedb.index import IvfSq

        self._table.optimize(cleanup_older_than=KEEP)
        if self._table.count_rows() >= self._least:
            self._table.create_index(VECTOR, config=IvfSq(distance_type="cosine"))

    def index(self) -> str:
        """What is searched."""
        return "IVF_SQ" if self._table.list_indices() else SCAN

    def configure(self, settings: Mapping[str, int]) -> None:
        """Takes nprobes and refine; without them, the table is scanned."""
        self._settings = dict(settings)

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> pa.Table:
        """Rows with all columns but the vector, and their distances."""
        given = list(queries) if len(queries) > 1 else queries[0]
        query = self._table.search(given, vector_column_name=VECTOR).distance_type("cosine")
        if self._settings:
            query = query.nprobes(self._settings["nprobes"])
            query = query.refine_factor(self._settings["refine"])
        if where is not None:
            query = query.where(where, prefilter=True)
        return query.limit(k).select(self._columns).to_arrow()

    def found(self, answer: pa.Table, queries: int) -> list[np.ndarray]:
        """From the ids of the rows, the best first."""
        answer = answer.sort_by("_distance")
        query = np.zeros(len(answer), np.int64)
        if queries > 1:
            query = answer["query_index"].to_numpy()
        return grouped(query, answer["id"].to_pylist(), queries)

    def close(self) -> None:
        """Lets go of the table."""
        self._table = None

    def _open(self, table: Any) -> None:
        self._table = table
        self._columns = [*(name for name in table.schema.names if name != VECTOR), "_distance"]
