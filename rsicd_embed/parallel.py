"""Ordered parallel map with bounded memory, batching, and CPU and heap settings."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")

ARENAS = "MALLOC_ARENA_MAX"  # environment variable of glibc: the number of its heaps
_M_ARENA_MAX = -8  # of glibc's malloc.h


def cpu_count() -> int:
    """Number of processors available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_one_heap() -> None:
    """Makes all threads of this process allocate from one heap; for programs, not libraries.

    By default glibc gives each thread its own heap, and images decoded on one thread and embedded
    on another fragment all of them. Call it before threads start; importing NumPy starts some.
    `MALLOC_ARENA_MAX` in the environment takes precedence. No effect with other C libraries.
    """
    if ARENAS not in os.environ:
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, ahead: int, threads: int | None = None
) -> Iterator[R]:
    """Maps a function over items on threads, in order.

    Args:
        function: called on a worker thread.
        items: the inputs, read lazily.
        ahead: maximum number of results computed but not yet consumed.
        threads: number of worker threads; one per processor if None.

    Raises:
        Exception: an exception of `function`, at the position of its item.
    """
    if ahead < 1:
        raise ValueError(f"expected at least one result ahead, found {ahead}")
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        waiting: deque[Future[R]] = deque()
        source = iter(items)
        try:
            waiting.extend(pool.submit(function, item) for item in islice(source, ahead))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(source, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def read_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yields the same items, the next of which is produced on another thread in the meantime."""
    done = object()
    with ThreadPoolExecutor(1) as pool:
        source = iter(items)
        waiting = pool.submit(next, source, done)
        while (item := waiting.result()) is not done:
            waiting = pool.submit(next, source, done)
            yield cast(T, item)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` items; the last may be shorter."""
    if size < 1:
        raise ValueError(f"expected a size of at least one, found {size}")
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
