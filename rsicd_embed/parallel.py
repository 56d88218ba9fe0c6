"""Work on threads, ahead of who needs it, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
