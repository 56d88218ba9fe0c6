"""Processes that may die: started from a clean one that has the imports done, in milliseconds."""

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
from rsicd_embed.stores.base import StoreType, StoreURI, VectorStore
from rsicd_embed.stores.lancedb import lance_index, lance_reader

HANG_S = 600
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "rsicd_embed.testing.stress.corruption"])

# LanceDB warns of forks, whose process has not used it yet here.
warnings.filterwarnings("ignore", "lancedb fork support", RuntimeWarning)


def small_indexes() -> None:
    """Gives small stores what only large ones have: a graph, an index, rows not in it, merges."""
    nmslib.GRAPH_ROWS, nmslib.FOLD_ROWS = 50, 60
    nmslib._SPARE, nmslib._LARGEST_SHARE = 2, 1.0
    lance_index.INDEX_ROWS = lance_reader.CACHE_ROWS = 150
    lance_reader._LARGEST_SHARE = 1.0


@cache
def _kind(scheme: str) -> StoreType:
    return cast(StoreType, plugins.load(plugins.STORES, scheme))


def opened(uri: str) -> VectorStore:
    """`open_store(uri)`, but looks for what provides it only once: that takes longest."""
    parsed = StoreURI.parse(uri)
    return _kind(parsed.scheme).open(parsed, None, create=False)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder, in memory where there is one: a killed process loses nothing that was written."""
    memory = Path("/dev/shm")
    folder = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="rsicd-embed-", dir=folder)


class StressWorker:
    """A process that runs `job(tell, *arguments)`; what it tells is read until it ends.

    Messages are tuples, the first of each a word.
    """

    def __init__(self, job: Callable[..., None], *arguments: Any) -> None:
        self._ours, theirs = _CONTEXT.Pipe(duplex=False)
        self.process: BaseProcess = _CONTEXT.Process(target=_run, args=(job, theirs, arguments))
        self.process.start()
        theirs.close()

    def messages(self, after: tuple[str, float | None] = ("", None)) -> Iterator[tuple[Any, ...]]:
        """What it tells until it ends; `after` some word and seconds, it is killed.

        Raises:
            TimeoutError: it told nothing for `HANG_S`.
        """
        word, delay_s = after
        until: float | None = None
        while True:
            if not (self._told() if until is None else self._ours.poll(_left_s(until))):
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

    def _told(self) -> bool:
        """Waits for it second by second: a time in which both of us are stopped does not count."""
        return any(self._ours.poll(1.0) for _ in range(HANG_S))

    @property
    def signal(self) -> int:
        """What ended it: a signal's number, or 0."""
        return max(0, -(self.process.exitcode or 0))


def _left_s(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _run(job: Callable[..., None], pipe: Connection, arguments: tuple[Any, ...]) -> None:
    small_indexes()
    job(lambda *message: pipe.send(message), *arguments)
    pipe.close()
