"""Examples of large sources, kept in a temporary file instead of in memory."""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, chain, islice
from typing import Any, overload

import numpy as np
import pyarrow as pa

from rsicd_embed.datasets.base import Example
from rsicd_embed.parallel import batched

# Sources of more examples than this are kept in a file.
MOST_IN_MEMORY = 100_000
_BATCH_ROWS = 8192


class SpooledExamples(Sequence[Example]):
    """Examples in a temporary Arrow file, which is removed with this object.

    Iterating reads a few thousand at a time. `TMPDIR` chooses the folder; it needs some hundred
    bytes for each example.
    """

    def __init__(self, examples: Iterable[Example], attributes: pa.Schema) -> None:
        """Writes the examples.

        Args:
            examples: in their order.
            attributes: the columns of their attributes.
        """
        fields = [pa.field("id", pa.string()), pa.field("file", pa.string()), *attributes]
        self._names = attributes.names
        self._schema = pa.schema([(str(n), field.type) for n, field in enumerate(fields)])
        handle, self._path = tempfile.mkstemp(prefix="rsicd-embed-", suffix=".arrow")
        os.close(handle)
        weakref.finalize(self, _remove, self._path)
        counts = []
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with (
            pa.OSFile(self._path, "wb") as file,
            pa.ipc.new_file(file, self._schema, options=options) as writer,
        ):
            for batch in batched(examples, _BATCH_ROWS):
                writer.write_batch(self._batch(batch))
                counts.append(len(batch))
        self._ends = list(accumulate(counts))

    def _batch(self, examples: Sequence[Example]) -> pa.RecordBatch:
        columns: list[list[Any]] = [[e.id for e in examples], [e.file for e in examples]]
        columns += [[e.attributes.get(name) for e in examples] for name in self._names]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, self._schema, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _examples(self, batch: pa.RecordBatch) -> Iterator[Example]:
        ids, files, *values = (column.to_pylist() for column in batch.columns)
        if not values:
            yield from map(Example, ids, files)
            return
        for id_, file, *row in zip(ids, files, *values, strict=True):
            yield Example(id_, file, dict(zip(self._names, row, strict=True)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Example]:
        with pa.OSFile(self._path, "rb") as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                yield from self._examples(reader.get_batch(number))

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Example, ...]: ...

    def __getitem__(self, place: int | slice) -> Example | tuple[Example, ...]:
        if isinstance(place, slice):
            return tuple(self[number] for number in range(*place.indices(len(self))))
        index = range(len(self))[place]
        number = bisect_right(self._ends, index)
        with pa.OSFile(self._path, "rb") as file:
            batch = pa.ipc.open_file(file).get_batch(number)
            first = self._ends[number - 1] if number else 0
            return next(self._examples(batch.slice(index - first, 1)))

    def __repr__(self) -> str:
        return f"<SpooledExamples {len(self):,}>"


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)  # noqa: PTH108  (also at exit, when pathlib may be gone)


def collect(
    examples: Iterable[Example], attributes: pa.Schema, most_in_memory: int | None = None
) -> Sequence[Example]:
    """A tuple of a few examples, or a file of many.

    Args:
        examples: in their order; read once.
        attributes: the columns of their attributes.
        most_in_memory: number of examples of a tuple; `MOST_IN_MEMORY` by default.
    """
    most = MOST_IN_MEMORY if most_in_memory is None else most_in_memory
    source = iter(examples)
    first = tuple(islice(source, most + 1))
    if len(first) <= most:
        return first
    return SpooledExamples(chain(first, source), attributes)


class Digests:
    """A set of texts, kept as eight bytes for each; it may contain a text that was not added."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._sorted = np.sort(np.fromiter(map(_digest, texts), np.uint64))

    @classmethod
    def joined(cls, parts: Iterable[Digests]) -> Digests:
        """The texts of all parts."""
        joined = cls(())
        joined._sorted = np.sort(np.concatenate([joined._sorted, *(p._sorted for p in parts)]))
        return joined

    @property
    def distinct(self) -> int:
        """Number of different texts; `len` counts repeated ones each time."""
        return len(np.unique(self._sorted))

    def have(self, texts: Sequence[str]) -> np.ndarray:
        """bool (n,): False for each text that certainly was not added."""
        return _among(np.fromiter(map(_digest, texts), np.uint64, len(texts)), self._sorted)

    def repeated(self) -> Digests:
        """The texts that were added more than once, and perhaps a few others."""
        repeated = Digests(())
        repeated._sorted = np.unique(self._sorted[1:][self._sorted[1:] == self._sorted[:-1]])
        return repeated

    def __len__(self) -> int:
        return len(self._sorted)


def _among(wanted: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    if not len(ordered):
        return np.zeros(len(wanted), bool)
    places = np.searchsorted(ordered, wanted)
    places[places == len(ordered)] = 0
    return np.asarray(ordered[places] == wanted)


def _digest(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")
