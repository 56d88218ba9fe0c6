"""A limit on the bytes that all threads together have read and not yet decoded."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

# Requests that wait for their first byte cost nothing, so there are more threads than processors.
THREADS = 32


class ByteBudget:
    """A number of bytes shared by threads; a larger object than that is read alone."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._used = 0
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """Number of bytes reserved now."""
        with self._changed:
            return self._used

    def acquire(self, count: int) -> None:
        """Waits until the bytes are free, or until nothing else is reserved."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + count <= self.most)
            self._used += count

    def release(self, count: int) -> None:
        """Returns bytes."""
        with self._changed:
            self._used -= count
            self._changed.notify_all()


IN_FLIGHT = ByteBudget(256 << 20)


class Reservation:
    """The bytes of one object, from its first byte until the `with` block ends.

    A thread reserves once per block: it would otherwise wait for its own bytes.
    """

    def __init__(self, budget: ByteBudget = IN_FLIGHT) -> None:
        self._budget, self._count = budget, 0

    def take(self, count: int) -> None:
        """Reserves the bytes of an object; a repeated attempt to read it needs no more."""
        if not self._count and count:
            self._budget.acquire(count)
            self._count = count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._count:
            self._budget.release(self._count)
            self._count = 0
