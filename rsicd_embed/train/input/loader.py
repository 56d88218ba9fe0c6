"""Batches made ahead of the step: on a thread, or in processes that stay from epoch to epoch."""

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

_AHEAD = 2  # batches that a thread, or each process, has ready


class BatchStream(Protocol):
    """The batches of all epochs, one after the other, each a function of its index."""

    def __len__(self) -> int:
        """More than are ever asked for."""

    def __getitem__(self, index: int, /) -> Arrays:
        """The arrays of a batch."""


class Stream(Closing):
    """Takes batches in order, from any of them on, while the next ones are being made."""

    def __init__(self, batches: BatchStream, start: int, workers: int) -> None:
        """Starts to make batches.

        Args:
            batches: what is taken from; it is sent to the workers.
            start: the first index.
            workers: processes, 0 for a thread of this one. The batches do not depend on it.
        """
        self.index = start
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
        source = grain.MapDataset.source(batches)[start:]
        ahead = source.to_iter_dataset(options)
        if workers:
            # grain reads absl's flags, which only absl's own `app.run` has parsed.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_AHEAD)
            ahead = ahead.mp_prefetch(processes, _end_with_parent)
        self._iterator = iter(ahead)
        self._copied = workers > 0
        self._started = not workers

    def __next__(self) -> Arrays:
        """The next batch.

        Raises:
            TrainError: a worker is gone. What the batches raise comes as it is.
        """
        try:
            with nullcontext() if self._started else _without_ctrl_c():
                found = next(self._iterator)
            self._started = True
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise TrainError(
                "a process that makes batches was killed; where memory is short, "
                "set a smaller data.workers"
            ) from error
        self.index += 1
        # What comes from a process lies in shared memory, which goes with grain's own array.
        return tuple(np.array(one) for one in found) if self._copied else found

    def close(self) -> None:
        """Ends the processes."""
        self._iterator.close()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Keeps SIGINT from processes that are started meanwhile.

    A terminal sends it to all processes of a command, but it is for this one to end the others.
    """
    resource_tracker.ensure_running()  # its start, a part of theirs, would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(_index: int, _count: int) -> None:
    """Ends this worker when the process that began it was killed, and not by Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        ends = threading.Thread(target=_leave_after, args=(parent.sentinel,), daemon=True)
        ends.start()


def _leave_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
