"""How long each stage of an ingest is busy, so that the slowest one can be named."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rsicd_embed.parallel import cpu_count

# Stages that run on all threads at once; the others have one thread.
THREADED = ("read", "decode", "resize")


class Stages:
    """Busy seconds by stage, summed over threads.

    read: the file, and its hash; decode: to RGB; resize: what `Embedder.preprocess` does; embed:
    the model; write: upserts; index: `VectorStore.optimize`.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._mutex = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Times a block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            with self._mutex:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Busy seconds by stage."""
        with self._mutex:
            return dict(self._seconds)


def elapsed_s(stages: dict[str, float]) -> dict[str, float]:
    """What each group of stages would take if the others took no time; the largest limits.

    The threaded stages share their threads, so they count together, as "read+decode+resize".
    """
    threaded = sum(stages.get(name, 0.0) for name in THREADED) / cpu_count()
    alone = {name: seconds for name, seconds in stages.items() if name not in THREADED}
    return {"+".join(THREADED): threaded, **alone}
