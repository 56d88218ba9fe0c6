"""Busy time of the stages of an ingest or import."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rsicd_embed.parallel import cpu_count

# Stages that run on all threads; the others run on one.
THREADED = ("read", "decode", "resize")


class Stages:
    """Measures the busy seconds of stages, summed over threads.

    The stages of an ingest are read (file and hash), decode (to RGB), resize
    (`Embedder.preprocess`), embed, write (upserts) and index (`VectorStore.optimize`).
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
            self.add({stage: time.perf_counter() - started})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Adds busy seconds that were measured elsewhere."""
        with self._mutex:
            for stage, more in seconds.items():
                self._seconds[stage] = self._seconds.get(stage, 0.0) + more

    def seconds(self) -> dict[str, float]:
        """Busy seconds by stage."""
        with self._mutex:
            return dict(self._seconds)


def elapsed_s(stages: dict[str, float]) -> dict[str, float]:
    """The time each group of stages would take alone; the largest is the bottleneck.

    The threaded stages share their threads, and are counted together as "read+decode+resize".
    """
    threaded = sum(stages.get(name, 0.0) for name in THREADED) / cpu_count()
    alone = {name: seconds for name, seconds in stages.items() if name not in THREADED}
    return {"+".join(THREADED): threaded, **alone}
