"""Work on threads, ahead of who needs it, in order and in bounded memory."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_M_ARENA_MAX = -8  # of glibc's malloc.h


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_one_heap() -> None:
    """Makes the threads of this process allocate from one heap; for programs, not for libraries.

    glibc gives each thread its own, and images that are decoded by some and embedded by others
    leave holes in all of them. It helps only before there are threads: NumPy makes some when it
    is imported. Other C libraries have one heap anyway, and `MALLOC_ARENA_MAX` in the environment
    is left in force.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, ahead: int, threads: int | None = None
) -> Iterator[R]:
    """`map` on threads; at most `ahead` results wait to be taken. Errors come at their place."""
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


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    if size < 1:
        raise ValueError(f"expected a size of at least one, found {size}")
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
