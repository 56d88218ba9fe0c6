"""Batches prepared ahead of the step, by a thread or by processes that live across epochs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Protocol

import grain
import numpy as np
from absl import flags

from rsicd_embed.errors import TrainError
from rsicd_embed.files import Closing

Arrays = tuple[np.ndarray, ...]

_AHEAD = 2  # batches that the thread or each process keeps ready


class BatchStream(Protocol):
    """The batches of all epochs as a sequence, each a function of its index."""

    def __len__(self) -> int:
        """At least the number of batches that will be requested."""

    def __getitem__(self, index: int, /) -> Arrays:
        """The arrays of a batch."""


class Stream(Closing):
    """Iterates over batches from any index on, preparing the next ones meanwhile."""

    def __init__(self, batches: BatchStream, start: int, workers: int) -> None:
        """Starts preparing batches.

        Args:
            batches: the batches; sent to the workers.
            start: the first index.
            workers: number of processes; 0 uses a thread. Batches do not depend on it.
        """
        self.index = start
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
        source = grain.MapDataset.source(batches)[start:]
        ahead = source.to_iter_dataset(options)
        if workers:
            # grain reads absl's flags, which are parsed only under absl's `app.run`.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_AHEAD)
            ahead = ahead.mp_prefetch(processes, _end_with_parent)
        self._iterator = iter(ahead)
        self._copied = workers > 0
        self._started = not workers

    def __next__(self) -> Arrays:
        """The next batch."""
        try:
            with nullcontext() if self._started else _without_ctrl_c():
                arrays = next(self._iterator)
            self._started = True
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise TrainError(
                "a process that prepares batches was killed; if memory is short, "
                "set a smaller data.workers"
            ) from error
        self.index += 1
        # Arrays from a process are in shared memory that grain frees together with its own array.
        return tuple(map(np.array, arrays)) if self._copied else arrays

    def close(self) -> None:
        """Ends the processes."""
        self._iterator.close()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Shields processes started inside from SIGINT.

    A terminal sends it to all processes of a command, but only this one is to end the others.
    """
    resource_tracker.ensure_running()  # starting it later would unblock the signal
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _end_with_parent(_index: int, _count: int) -> None:
    """Makes this worker ignore Ctrl-C and exit when its parent process dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        watcher = threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True)
        watcher.start()


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
