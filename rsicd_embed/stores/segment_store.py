"""What the stores on a folder of segments share: all but how they search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from rsicd_embed.errors import StoreError, StoreURIError
from rsicd_embed.records import Provenance
from rsicd_embed.stores import changes, scoring
from rsicd_embed.stores.base import StoreInfo, StoreURI
from rsicd_embed.stores.manifest import Manifest
from rsicd_embed.stores.parts import scan
from rsicd_embed.stores.rows import checked_ids, conform
from rsicd_embed.stores.segments import SegmentLog, Snapshot


class SegmentStore:
    """A VectorStore on a folder of segments; see `VectorStore` for what its methods promise."""

    kind: ClassVar[str]

    def __init__(self, uri: StoreURI, log: SegmentLog) -> None:
        self.uri = str(uri)
        self.provenance: Provenance = log.read().manifest.provenance
        self._open_log: SegmentLog | None = log

    @classmethod
    def open(cls, uri: StoreURI, provenance: Provenance | None, *, create: bool) -> Self:
        """Opens the store at `uri`; see `StoreType.open`."""
        if uri.table != "images":
            raise StoreURIError(
                f"{uri}: {cls.kind} stores have no tables; use {uri.scheme}:{uri.location}"
            )
        return cls(uri, SegmentLog.open(uri, cls.kind, provenance, create=create))

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the rows."""
        return self._now().rows.schema

    def upsert(self, batches: Iterable[pa.RecordBatch]) -> int:
        """Inserts rows, replacing those with the same id; see `VectorStore.upsert`."""
        schema = self._now().rows.schema
        table = conform(batches, schema)  # before locking: making the batches may take long
        if not table.num_rows:
            return 0
        with self._log.writing() as now:
            if now.rows.schema != schema:  # another process added columns meanwhile
                table = conform(table.to_batches(), now.rows.schema)
            after = changes.upsert(self._log, now, table, self._kept(now.manifest))
            self._after_upsert(after)
        return int(table.num_rows)

    def delete(self, ids: Iterable[str]) -> int:
        """Removes rows by id; see `VectorStore.delete`."""
        chosen = checked_ids(ids)
        if not len(chosen):
            return 0
        with self._log.writing() as now:
            return changes.delete(self._log, now, chosen, self._kept(now.manifest))

    def search(self, queries: np.ndarray, k: int = 10, where: str | None = None) -> pa.Table:
        """The k best rows for each query; see `VectorStore.search`."""
        return scoring.search(self._now().rows, queries, k, where)

    def scan(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """Live rows as record batches; see `VectorStore.scan`."""
        return scan(self._now().rows, columns, where)

    def optimize(self) -> None:
        """Merges all segments into one without dead rows."""
        with self._log.writing() as now:
            changes.merge_all(self._log, now)

    def info(self) -> StoreInfo:
        """What is in the store."""
        now = self._now()
        index, recall = self._index(now)
        return StoreInfo(
            rows=len(now.rows),
            dim=self.provenance.dim,
            model=self.provenance.model,
            fingerprint=self.provenance.fingerprint,
            index=index,
            ann_recall=recall,
            bytes=len(now.raw) + sum(entry.bytes for entry in now.manifest.files),
            columns={field.name: str(field.type) for field in now.rows.schema},
        )

    def __len__(self) -> int:
        return len(self._now().rows)

    def close(self) -> None:
        """Lets go of the files; the store is not usable afterwards."""
        if self._open_log is not None:
            self._open_log.close()
            self._open_log = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _log(self) -> SegmentLog:
        if self._open_log is None:
            raise StoreError(f"{self.uri} is closed; open it again")
        return self._open_log

    def _now(self) -> Snapshot:
        return self._log.read()

    def _kept(self, manifest: Manifest) -> int:
        """How many of the first segments must not be merged."""
        return 0

    def _after_upsert(self, now: Snapshot) -> None:
        """What is due after an upsert is committed, while the folder is still locked."""

    def _index(self, now: Snapshot) -> tuple[str, float | None]:
        """`StoreInfo.index` and `StoreInfo.ann_recall`."""
        return "exact scan", 1.0
