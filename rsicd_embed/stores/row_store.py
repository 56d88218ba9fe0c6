"""The base class of stores that can present their rows as Arrow batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rsicd_embed.files import Closing
from rsicd_embed.records import Provenance
from rsicd_embed.stores import opening, row_view, scoring
from rsicd_embed.stores.base import StoreInfo, described
from rsicd_embed.stores.row_view import Rows


class RowStore(Closing):
    """The reading half of a `VectorStore`: exact search, conditions, scans and info.

    A subclass sets `uri` and `provenance`, and implements `rows`, `upsert` and `delete`.
    """

    uri: str
    provenance: Provenance
    _closed = False

    def rows(self) -> Rows:
        """Returns the newest rows; see `rows_of` to convert a table, and `require_open`."""
        raise NotImplementedError

    def require_open(self) -> None:
        """Raises StoreError if the store is closed."""
        if self._closed:
            raise opening.closed(self.uri)

    def close(self) -> None:
        """Frees resources; the store cannot be used afterwards."""
        self._closed = True

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the rows."""
        return self.rows().schema

    def search(self, queries: np.ndarray, k: int = 10, where: str | None = None) -> pa.Table:
        """Finds the k most similar rows for each query; see `VectorStore.search`."""
        return scoring.search(self.rows(), queries, k, where)

    def scan(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """Reads live rows as record batches; see `VectorStore.scan`."""
        return row_view.scan(self.rows(), columns, where)

    def optimize(self) -> None:
        """Does nothing, as there is no index."""
        self.require_open()

    def info(self) -> StoreInfo:
        """Describes the store."""
        rows = self.rows()
        return StoreInfo.of(
            self.provenance, rows.schema, len(rows), index="exact scan", ann_recall=1.0, bytes=None
        )

    def __len__(self) -> int:
        return len(self.rows())

    def __repr__(self) -> str:
        return described(self, self.uri, self.provenance)
