"""Processes that may die, forked in milliseconds from a clean process with all imports done."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from rsicd_embed import plugins
from rsicd_embed.stores import nmslib
from rsicd_embed.stores.base import StoreType, VectorStore
from rsicd_embed.stores.lancedb import lance_index, lance_reader
from rsicd_embed.stores.planner import SearchCosts
from rsicd_embed.stores.uri import StoreURI

HANG_S = 600
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "tests.stress.corruption"])

# LanceDB warns about forks, but the forked process has not used it yet.
warnings.filterwarnings("ignore", "lancedb fork support", RuntimeWarning)


def small_indexes() -> None:
    """Makes small stores use a graph, an index, unindexed rows and merges, like large ones."""
    nmslib.GRAPH_ROWS, nmslib.FOLD_ROWS = 50, 60
    nmslib._SPARE, nmslib._LARGEST_SHARE, nmslib._COSTS = 2, 1.0, SearchCosts(0, 0, 1)
    lance_index.INDEX_ROWS = lance_reader.CACHE_ROWS = 150
    lance_reader._LARGEST_SHARE = 1.0


@cache
def _kind(scheme: str) -> StoreType:
    return cast(StoreType, plugins.load(plugins.STORES, scheme))


def opened(uri: str) -> VectorStore:
    """`open_store(uri)` with a cached entry point, whose look-up takes longest."""
    parsed = StoreURI.parse(uri)
    return _kind(parsed.scheme).open(parsed, None, create=False)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder, in memory if possible: a killed process loses no written data."""
    memory = Path("/dev/shm")
    folder = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="rsicd-embed-", dir=folder)


class StressWorker:
    """A process that runs `job(send, *arguments)`, and whose messages can be read.

    Messages are tuples that start with a word.
    """

    def __init__(self, job: Callable[..., None], *arguments: Any) -> None:
        self._ours, theirs = _CONTEXT.Pipe(duplex=False)
        self.process: BaseProcess = _CONTEXT.Process(target=_run, args=(job, theirs, arguments))
        self.process.start()
        theirs.close()

    def messages(self, after: tuple[str, float | None] = ("", None)) -> Iterator[tuple[Any, ...]]:
        """Yields messages until the process ends; kills it some seconds `after` a word.

        Raises:
            TimeoutError: there was no message for `HANG_S`.
        """
        word, delay_s = after
        until: float | None = None
        while True:
            if not (self._has_message() if until is None else self._ours.poll(_left_s(until))):
                self.process.kill()
                if until is None:
                    self.process.join()
                    raise TimeoutError(f"no sign of life for {HANG_S} s")
                until = None
                continue
            try:
                message: tuple[Any, ...] = self._ours.recv()
            except (EOFError, ConnectionResetError):
                break
            if message[0] == word and delay_s is not None:
                until = time.monotonic() + delay_s
            yield message
        self.process.join()

    def _has_message(self) -> bool:
        """Waits second by second: time during which both processes are stopped does not count."""
        return any(self._ours.poll(1.0) for _ in range(HANG_S))

    @property
    def signal(self) -> int:
        """Number of the signal that ended the process, or 0."""
        return max(0, -(self.process.exitcode or 0))


def _left_s(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _run(job: Callable[..., None], pipe: Connection, arguments: tuple[Any, ...]) -> None:
    small_indexes()
    job(lambda *message: pipe.send(message), *arguments)
    pipe.close()
