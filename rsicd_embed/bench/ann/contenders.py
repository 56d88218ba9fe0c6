"""Contenders of `bench ann`: stores, the libraries below them, and a null store.

Calling a library directly shows the cost of a store's guarantees. It only searches: there is no
check of queries, no exact scores, no order among ties, no snapshots.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed import plugins
from rsicd_embed.errors import BenchError
from rsicd_embed.records import VECTOR, Provenance, vector_matrix
from rsicd_embed.stores.base import open_store
from rsicd_embed.stores.graph import GraphSettings
from rsicd_embed.stores.uri import StoreURI

NULL = "null store"
SCAN = "exact scan"
_BLOCK_QUERIES = 32
_TABLE = "rows"


class Contender:
    """Rows that can be searched. Only `upsert`, `optimize` and `search` are timed.

    This base class does nothing; timing it measures the cost of timing.
    """

    def upsert(self, batch: pa.RecordBatch) -> None:
        """Adds rows."""

    def optimize(self) -> None:
        """Prepares for searching, once all rows are added."""

    def index(self) -> str:
        """The kind of index and its parameters, in words."""
        return "none"

    def configure(self, settings: Mapping[str, int]) -> None:
        """Sets the search settings of the index."""

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> Any:
        """Searches for the k best rows of each query, float32 (q, dim)."""

    def positions(self, results: Any, queries: int) -> list[np.ndarray]:
        """The row positions in the results of `search`: int (at most k,) for each query."""
        return [np.zeros(0, np.int64)] * queries

    def close(self) -> None:
        """Releases files and memory."""


class Store(Contender):
    """Any `VectorStore`."""

    def __init__(self, uri: str, dim: int) -> None:
        self._uri, self._provenance = uri, Provenance("bench-ann", "weights:none", dim)
        self._store = open_store(uri, self._provenance)

    def upsert(self, batch: pa.RecordBatch) -> None:
        """Upserts a batch, durably."""
        self._store.upsert([batch])

    def optimize(self) -> None:
        """Optimizes the store."""
        self._store.optimize()

    def index(self) -> str:
        """Description of the index, as in `info`."""
        return self._store.info().index

    def configure(self, settings: Mapping[str, int]) -> None:
        """Reopens the store with the settings as options of its URI."""
        self._store.close()
        self._store = open_store(with_options(self._uri, settings), self._provenance)

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> pa.Table:
        """Searches; hits have all columns except the vector."""
        return self._store.search(queries, k, where)

    def positions(self, results: pa.Table, queries: int) -> list[np.ndarray]:
        """The positions, from the ids of the hits."""
        return _positions_of_ids(results["query"].to_numpy(), results["id"].to_pylist(), queries)

    def close(self) -> None:
        """Closes the store."""
        self._store.close()


class NumPy(Contender):
    """One matrix product with all rows, and a partition."""

    def __init__(self, path: Path) -> None:
        self._matrix = np.load(path)

    def index(self) -> str:
        """Always an exact scan."""
        return SCAN

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> list[np.ndarray]:
        """Searches; returns the positions of the k best rows."""
        matrix, positions = self._matrix, []
        k = min(k, len(matrix))
        for start in range(0, len(queries), _BLOCK_QUERIES):
            block = queries[start : start + _BLOCK_QUERIES]
            # A matrix-vector product is faster for a single query.
            products = block @ matrix.T if len(block) > 1 else (matrix @ block[0])[None]
            for similarities in products:
                best = np.argpartition(similarities, len(matrix) - k)[len(matrix) - k :]
                positions.append(best[np.argsort(-similarities[best])])
        return positions

    def positions(self, results: list[np.ndarray], queries: int) -> list[np.ndarray]:
        """The results themselves."""
        return results

    def close(self) -> None:
        """Releases the rows."""
        del self._matrix


class NmslibIndex(Contender):
    """NMSLib's HNSW index with the parameters of a store's graph."""

    def __init__(self, folder: Path, graph: GraphSettings) -> None:
        from rsicd_embed.stores._lazy_nmslib import nmslib

        self._graph, self._path, self._rows = graph, folder / "index", 0
        self._index = nmslib.init(
            method="hnsw", space="cosinesimil", data_type=nmslib.DataType.DENSE_VECTOR
        )
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._index.loadIndex(str(self._path), load_data=False)

    def upsert(self, batch: pa.RecordBatch) -> None:
        """Adds the vectors; they can be searched after `optimize`."""
        ids = np.arange(self._rows, self._rows + len(batch), dtype=np.int32)
        self._index.addDataPointBatch(vector_matrix(batch.column(VECTOR)), ids)
        self._rows += len(batch)

    def optimize(self) -> None:
        """Builds and saves the index."""
        graph = self._graph
        self._index.createIndex(
            {"M": graph.neighbours, "efConstruction": graph.ef_construction, "post": 0},
            print_progress=False,
        )
        self._index.saveIndex(str(self._path), save_data=False)

    def index(self) -> str:
        """Parameters of the graph."""
        return f"HNSW (M={self._graph.neighbours}, efConstruction={self._graph.ef_construction})"

    def configure(self, settings: Mapping[str, int]) -> None:
        """Sets efSearch; a store may use more for a large k.

        Raises:
            BenchError: the settings are of a graph with other parameters.
        """
        own = index_settings(self.index())
        if {name: settings.get(name, value) for name, value in own.items()} != own:
            raise BenchError(f"expected a graph with {self.index()}, found {dict(settings)}")
        self._index.setQueryTimeParams({"efSearch": settings["efSearch"]})

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> Any:
        """Searches; returns positions and distances."""
        if len(queries) == 1:
            return [self._index.knnQuery(queries[0], k=k)]
        return self._index.knnQueryBatch(queries, k=k)

    def positions(self, results: Any, queries: int) -> list[np.ndarray]:
        """The positions, without the distances."""
        return [positions for positions, _ in results]

    def close(self) -> None:
        """Releases the index."""
        del self._index


class LanceTable(Contender):
    """A LanceDB table with the columns, and the index, of a store's table."""

    def __init__(
        self, folder: Path, index_rows: int | None = None, kind: str | None = None
    ) -> None:
        """Opens or creates the table.

        Args:
            folder: of the database.
            index_rows: least number of rows for an index; by default that of a store.
            kind: kind of index, such as IVF_RQ; by default that of a store.
        """
        import lancedb

        from rsicd_embed.stores.lancedb import lance_index

        self._index_rows = lance_index.INDEX_ROWS if index_rows is None else index_rows
        self._kind = kind or lance_index.KIND
        self._database = lancedb.connect(str(folder))
        self._table: Any = None
        self._settings: dict[str, int] = {}
        if _TABLE in self._database.list_tables().tables:
            self._open(self._database.open_table(_TABLE))

    def upsert(self, batch: pa.RecordBatch) -> None:
        """Adds rows, without looking for existing ones."""
        rows = pa.Table.from_batches([batch])
        if self._table is None:
            self._open(self._database.create_table(_TABLE, rows))
        else:
            self._table.add(rows)

    def optimize(self) -> None:
        """Compacts, removes old versions as a store does, and builds the index."""
        from rsicd_embed.stores.lancedb import lance_index

        self._table.optimize(cleanup_older_than=timedelta(milliseconds=1))
        if self._table.count_rows() >= self._index_rows:
            self._table.create_index(VECTOR, config=lance_index.config(self._kind))

    def index(self) -> str:
        """The kind of index, if there is one."""
        return self._kind if self._table.list_indices() else SCAN

    def configure(self, settings: Mapping[str, int]) -> None:
        """Sets nprobes and refine; without them, the table is scanned."""
        self._settings = dict(settings)

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> pa.Table:
        """Searches; rows have all columns except the vector, and their distances."""
        vectors = list(queries) if len(queries) > 1 else queries[0]
        query = self._table.search(vectors, vector_column_name=VECTOR).distance_type("cosine")
        if self._settings:
            query = query.nprobes(self._settings["nprobes"])
            query = query.refine_factor(self._settings["refine"])
        if where is not None:
            query = query.where(where, prefilter=True)
        return query.limit(k).select(self._columns).to_arrow()

    def positions(self, results: pa.Table, queries: int) -> list[np.ndarray]:
        """The positions, from the ids of the rows, best first."""
        results = results.sort_by("_distance")
        query = np.zeros(len(results), np.int64)
        if queries > 1:
            query = results["query_index"].to_numpy()
        return _positions_of_ids(query, results["id"].to_pylist(), queries)

    def close(self) -> None:
        """Releases the table."""
        self._table = None

    def _open(self, table: Any) -> None:
        self._table = table
        self._columns = [*(name for name in table.schema.names if name != VECTOR), "_distance"]


def _positions_of_ids(query: np.ndarray, ids: list[str], queries: int) -> list[np.ndarray]:
    """Ids of a workload → positions for each query, in their order."""
    positions = np.array([int(id_) for id_ in ids], np.int64)
    return [positions[query == number] for number in range(queries)]


def store_uri(kind: str, folder: Path) -> str:
    """`nmslib?M=32` → the URI of such a store in a folder.

    Raises:
        BenchError: the scheme is unknown, or `kind` has more than a scheme and options.
    """
    scheme, _, options = kind.partition("?")
    known = plugins.names(plugins.STORES)
    uri = f"{scheme}:{folder / 'store'}{'?' if options else ''}{options}"
    if scheme not in known or (options and not StoreURI.parse(uri).options):
        raise BenchError(
            f"expected stores of {', '.join(known)}, optionally with ?option=value, found {kind!r}"
        )
    return uri


def with_options(uri: str, settings: Mapping[str, int]) -> str:
    """Adds options to a store's URI, replacing those of the same name.

    Example:
        >>> with_options("nmslib:./a?M=32", {"efSearch": 50})
        'nmslib:./a?M=32&efSearch=50'
    """
    parsed = StoreURI.parse(uri)
    options = dict(parsed.options) | {name: str(value) for name, value in settings.items()}
    return str(replace(parsed, options=tuple(options.items())))


def index_settings(description: str) -> dict[str, int]:
    """Parses the settings in the description of an index.

    Example:
        >>> index_settings("IVF_SQ (nprobes=20, refine=2) measured over 9 rows")
        {'nprobes': 20, 'refine': 2}
    """
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", description)}
