"""A store as a DataFusion table, which reads only the columns that a query needs."""

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
    """A store as a pyarrow dataset, with the methods that DataFusion calls.

    Args:
        store: the store to read.
        replace: replaces the vectors of a batch; None keeps them.
        kind: type of the replaced column.
    """

    def __init__(
        self,
        store: VectorStore,
        replace: Callable[[pa.Array], pa.Array] | None = None,
        kind: pa.DataType | None = None,
    ) -> None:
        self._store, self._replace = store, replace
        self._schema = store.schema
        if replace is not None:
            index = self._schema.get_field_index(VECTOR)
            self._schema = self._schema.set(index, pa.field(VECTOR, kind, nullable=False))
        self._mutex = threading.Lock()
        self.start()

    def start(self, where: str | None = None, *, repeatable: bool = False) -> None:
        """Resets the planned scans and cached rows before a query runs.

        Args:
            where: a condition on all rows that it uses, if it scans the table only once.
            repeatable: whether a scan may be repeated.
        """
        self._where, self._repeatable = where, repeatable
        self._scans: list[list[str]] = []
        self._cached: list[pa.RecordBatch] | None = None
        # An error while reading, of which DataFusion only keeps the message.
        self.failure: BaseException | None = None

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the table."""
        return self._schema

    @property
    def columns(self) -> set[str]:
        """The columns of the scans planned so far."""
        return {name for scan in self._scans for name in scan}

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None) -> _Scan:
        """Called once per scan while a query is planned."""
        if filter is not None:
            raise NotImplementedError("expected no filter: a rule of DataFusion was renamed")
        names = list(self._schema.names if columns is None else columns)
        self._scans.append(names)
        return _Scan(self, names)

    def get_fragments(self, filter: Any = None) -> Iterator[_Fragment]:
        """Returns the only fragment, the whole table."""
        yield _Fragment(self)

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Reads the rows of a scan on a thread: stores use DataFusion too, which cannot nest."""
        try:
            yield from _on_a_thread(lambda: self._batches(columns))
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                self.failure = error
            raise

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        if len(self._scans) == 1 and not self._repeatable:
            return self._read(columns, self._where)
        with self._mutex:
            if self._cached is None:
                names = [name for name in self._schema.names if name in self.columns]
                self._cached = list(self._read(names or ["id"], None))
        return (batch.select(columns) for batch in self._cached)

    def _read(self, columns: list[str], where: str | None) -> Iterator[pa.RecordBatch]:
        names = columns or ["id"]  # to count the rows
        try:
            reader = self._store.scan(names, where)
        except FilterError:  # DataFusion applies conditions that a store does not support
            reader = self._store.scan(names)
        with reader:
            for batch in reader:
                yield self._replaced(batch).select(columns)

    def _replaced(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        index = batch.schema.get_field_index(VECTOR)
        if self._replace is None or index < 0:
            return batch
        values = self._replace(batch.column(index))
        return batch.set_column(index, self._schema.field(VECTOR), values)


@dataclass(frozen=True)
class _Scan:
    """A scan, with the methods that DataFusion calls."""

    table: StoreTable
    columns: list[str]

    @property
    def projected_schema(self) -> pa.Schema:
        return pa.schema([self.table.schema.field(name) for name in self.columns])

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        return self.table.batches(self.columns)


@dataclass(frozen=True)
class _Fragment:
    """The only fragment of a table."""

    table: StoreTable

    def scanner(self, schema: pa.Schema, columns: list[str] | None = None, **_: Any) -> _Scan:
        return _Scan(self.table, self.table.schema.names if columns is None else columns)


def _on_a_thread(start: Callable[[], Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """Creates and advances an iterator on a thread, one item ahead."""
    with ThreadPoolExecutor(1) as pool:
        items = pool.submit(start).result()
        ahead = pool.submit(next, items, None)
        while (item := ahead.result()) is not None:
            ahead = pool.submit(next, items, None)
            yield item
