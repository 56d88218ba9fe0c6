"""Who is timed: a store, or nobody, to know what timing itself costs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from rsicd_embed import plugins
from rsicd_embed.errors import BenchError
from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import StoreURI, open_store

SCAN = "exact scan"


class Contender(Protocol):
    """Rows that can be searched. Only `upsert`, `optimize` and `search` are timed."""

    def upsert(self, batch: pa.RecordBatch) -> None:
        """Adds rows."""
        ...

    def optimize(self) -> None:
        """Makes searching fast, once all rows are there."""
        ...

    def index(self) -> str:
        """How it searches, in words."""
        ...

    def configure(self, settings: Mapping[str, int]) -> None:
        """Searches with these settings of its index from now on."""
        ...

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> Any:
        """The k best rows for each of float32 (q, dim) queries."""
        ...

    def found(self, answer: Any, queries: int) -> list[np.ndarray]:
        """The int positions of the rows in what `search` returned, for each query."""
        ...

    def close(self) -> None:
        """Lets go of files and memory."""
        ...


class Store:
    """Any `VectorStore`."""

    def __init__(self, uri: str, dim: int) -> None:
        self._uri, self._made_by = uri, Provenance("bench-ann", "weights:none", dim)
        self._store = open_store(uri, self._made_by)

    def upsert(self, batch: pa.RecordBatch) -> None:
        """Upserts a batch; durable when it returns."""
        self._store.upsert([batch])

    def optimize(self) -> None:
        """Optimizes the store."""
        self._store.optimize()

    def index(self) -> str:
        """What `info` says."""
        return self._store.info().index

    def configure(self, settings: Mapping[str, int]) -> None:
        """Opens it again, with these as options of its URI."""
        self._store.close()
        self._store = open_store(with_options(self._uri, settings), self._made_by)

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> pa.Table:
        """Hits, with all columns but the vector."""
        return self._store.search(queries, k, where)

    def found(self, answer: pa.Table, queries: int) -> list[np.ndarray]:
        """From the ids of the hits."""
        return grouped(answer["query"].to_numpy(), answer["id"].to_pylist(), queries)

    def close(self) -> None:
        """Closes the store."""
        self._store.close()


class Null:
    """Finds nothing, at once."""

    def upsert(self, batch: pa.RecordBatch) -> None:
        """Nothing."""

    def optimize(self) -> None:
        """Nothing."""

    def index(self) -> str:
        """Nothing."""
        return "none"

    def configure(self, settings: Mapping[str, int]) -> None:
        """Nothing."""

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> None:
        """Nothing."""
        return

    def found(self, answer: None, queries: int) -> list[np.ndarray]:
        """Nothing."""
        return [np.zeros(0, np.int64)] * queries

    def close(self) -> None:
        """Nothing."""


def grouped(query: np.ndarray, ids: list[str], queries: int) -> list[np.ndarray]:
    """Ids as the workload makes them → positions, for each query, in their order."""
    positions = np.array([int(one) for one in ids], np.int64)
    return [positions[query == one] for one in range(queries)]


def store_uri(kind: str, folder: Path) -> str:
    """`nmslib?M=32` → the URI of such a store in a folder.

    Raises:
        BenchError: nothing installed provides it, or it is more than a scheme and options.
    """
    scheme, _, options = kind.partition("?")
    known = plugins.names(plugins.STORES)
    uri = f"{scheme}:{folder / 'store'}{'?' if options else ''}{options}"
    if scheme not in known or (options and not StoreURI.parse(uri).options):
        raise BenchError(
            f"expected stores of {', '.join(known)}, with ?option=value if you like, found {kind!r}"
        )
    return uri


def with_options(uri: str, settings: Mapping[str, int]) -> str:
    """A store's URI with further options, or others in place of those it has.

    Example:
        >>> with_options("nmslib:./a?M=32", {"efSearch": 50})
        'nmslib:./a?M=32&efSearch=50'
    """
    parsed = StoreURI.parse(uri)
    options = dict(parsed.options) | {name: str(value) for name, value in settings.items()}
    return str(replace(parsed, options=tuple(options.items())))


def numbers(words: str) -> dict[str, int]:
    """The settings in the words for an index.

    Example:
        >>> numbers("IVF_SQ (nprobes=20, refine=2) measured over 9 rows")
        {'nprobes': 20, 'refine': 2}
    """
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", words)}
