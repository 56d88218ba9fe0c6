"""A store as a table that DataFusion scans: only the columns it asks for, a batch at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow.dataset import Dataset

from rsicd_embed.errors import FilterError
from rsicd_embed.records import VECTOR
from rsicd_embed.stores.base import VectorStore


class StoreTable(Dataset):  # type: ignore[misc]
    """A store in the form of a pyarrow dataset, of which DataFusion uses what is defined here.

    Args:
        store: what is read.
        instead: what stands in the place of a batch's vectors; None for them as they are.
        kind: the type of what stands there.
    """

    def __init__(
        self,
        store: VectorStore,
        instead: Callable[[pa.Array], pa.Array] | None = None,
        kind: pa.DataType | None = None,
    ) -> None:
        self._store, self._instead = store, instead
        self._schema = store.schema
        if instead is not None:
            place = self._schema.get_field_index(VECTOR)
            self._schema = self._schema.set(place, pa.field(VECTOR, kind, nullable=False))
        self._mutex = threading.Lock()
        self.start()

    def start(self, where: str | None = None, *, hold: bool = False) -> None:
        """Forgets what was planned and read, before a query runs.

        Args:
            where: a condition on all rows that it can use, if it scans the table but once.
            hold: a scan may be repeated.
        """
        self._where, self._hold = where, hold
        self._scans: list[list[str]] = []
        self._held: list[pa.RecordBatch] | None = None
        self.failure: BaseException | None = None  # of reading; DataFusion keeps only its text

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the table."""
        return self._schema

    @property
    def columns(self) -> set[str]:
        """What the scans planned so far need."""
        return {name for scan in self._scans for name in scan}

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None) -> _Scan:
        """Called once for each scan while a query is planned."""
        if filter is not None:
            raise NotImplementedError("expected no filter: DataFusion has a rule of another name")
        names = list(self._schema.names if columns is None else columns)
        self._scans.append(names)
        return _Scan(self, names)

    def get_fragments(self, filter: Any = None) -> Iterator[_Fragment]:
        """The table is one piece."""
        yield _Fragment(self)

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The rows of one scan, read on a thread: stores use DataFusion too, which cannot nest."""
        try:
            yield from _on_a_thread(lambda: self._batches(columns))
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                self.failure = error
            raise

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        if len(self._scans) == 1 and not self._hold:
            return self._read(columns, self._where)
        with self._mutex:
            if self._held is None:
                names = [name for name in self._schema.names if name in self.columns]
                self._held = list(self._read(names or ["id"], None))
        return (batch.select(columns) for batch in self._held)

    def _read(self, columns: list[str], where: str | None) -> Iterator[pa.RecordBatch]:
        names = columns or ["id"]  # to count the rows
        try:
            reader = self._store.scan(names, where)
        except FilterError:  # the store has less SQL than it should; DataFusion has all of it
            reader = self._store.scan(names)
        with reader:
            for batch in reader:
                yield self._served(batch).select(columns)

    def _served(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        place = batch.schema.get_field_index(VECTOR)
        if self._instead is None or place < 0:
            return batch
        return batch.set_column(
            place, self._schema.field(VECTOR), self._instead(batch.column(place))
        )


@dataclass(frozen=True)
class _Scan:
    """One scan, as DataFusion wants it described."""

    table: StoreTable
    columns: list[str]

    @property
    def projected_schema(self) -> pa.Schema:
        return pa.schema([self.table.schema.field(name) for name in self.columns])

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        return self.table.batches(self.columns)


@dataclass(frozen=True)
class _Fragment:
    """The piece that a table is."""

    table: StoreTable

    def scanner(self, schema: pa.Schema, columns: list[str] | None = None, **_: Any) -> _Scan:
        return _Scan(self.table, self.table.schema.names if columns is None else columns)


def _on_a_thread(make: Callable[[], Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """What an iterator gives, which is made and advanced on a thread, one item ahead."""
    with ThreadPoolExecutor(1) as pool:
        items = pool.submit(make).result()
        ahead = pool.submit(next, items, None)
        while (item := ahead.result()) is not None:
            ahead = pool.submit(next, items, None)
            yield item
