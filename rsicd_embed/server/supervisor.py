"""Several processes that serve one store on one port, and the supervisor that keeps them alive.

The supervisor opens neither the store nor the model. Each worker opens both, and accepts
connections from the socket that all share. A worker that ends is replaced; if the supervisor ends,
the workers answer their running requests and end, too.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from rsicd_embed.errors import RsicdEmbedError, WorkerError
from rsicd_embed.files import temporary_folder
from rsicd_embed.parallel import ARENAS
from rsicd_embed.server.process import SHUTDOWN_S
from rsicd_embed.server.request_log import log_as_json
from rsicd_embed.server.server_metrics import SHARED_FOLDER
from rsicd_embed.server.serving import ServerSettings, serve_store

_LOG = logging.getLogger("rsicd_embed.server")
_SPAWN = multiprocessing.get_context("spawn")  # forked threads would be gone, their locks held
_LONGEST_PAUSE_S = 30.0
_STARTED = ""  # what a worker reports once it accepts requests; otherwise, an error


@dataclass
class _Worker:
    """A worker process, and the connection on which it reports.

    Attributes:
        failures: number of processes in its place that ended before they started to serve.
        next_at: when to start the next process, if this one has ended; of `time.monotonic`.
    """

    process: SpawnProcess
    reports: Connection
    is_serving: bool = False
    failures: int = 0
    next_at: float | None = None

    @property
    def end(self) -> str:
        """Says how the process ended."""
        code = self.process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return f"worker {self.process.pid} {how}"


def supervise(
    settings: ServerSettings, listening: socket.socket, started: Callable[[], None], count: int
) -> None:
    """Serves a store in `count` processes until SIGINT or SIGTERM.

    Args:
        settings: settings of each process.
        listening: the socket that they share.
        started: called once all of them accept requests.
        count: number of processes.

    Raises:
        WorkerError: one of them cannot start; the message is its error.
    """
    if settings.json_logs:
        log_as_json()
    with _environment() as folder, _signals() as stop:
        workers = [_start(settings, listening) for _ in range(count)]
        try:
            while not all(worker.is_serving for worker in workers):
                if stop in _wait([stop], workers):
                    return
                for worker in workers:
                    error = _report(worker)
                    if error:
                        raise WorkerError(_explained(error, workers))
            started()
            while stop not in _wait([stop], workers):
                for place, worker in enumerate(workers):
                    workers[place] = _kept_alive(worker, settings, listening, folder)
        finally:
            _end(workers)


def _wait(objects: list[Connection], workers: list[_Worker]) -> list[Any]:
    """Waits for one of the objects, or a worker's report, end or next start."""
    now = time.monotonic()
    pauses = [worker.next_at - now for worker in workers if worker.next_at is not None]
    running = [worker for worker in workers if worker.next_at is None]
    reports = [worker.reports for worker in running if not worker.is_serving]
    sentinels = [worker.process.sentinel for worker in running]
    return wait([*objects, *reports, *sentinels], max(0.0, min(pauses)) if pauses else None)


def _report(worker: _Worker) -> str | None:
    """The error of a worker that has failed to start; notes if it has started to serve."""
    if worker.is_serving:
        return None if worker.process.is_alive() else worker.end
    try:
        text = worker.reports.recv() if worker.reports.poll() else None
    except (EOFError, OSError):
        worker.process.join()
        return worker.end
    if text == _STARTED:
        worker.is_serving, worker.failures = True, 0
        return None
    return text


def _explained(error: str, workers: list[_Worker]) -> str:
    """Adds a remedy to the error of one worker if another one could start."""
    if any(worker.is_serving for worker in workers):
        return f"{error}; another worker could start: use --workers 1 if only one process may"
    return error


def _kept_alive(
    worker: _Worker, settings: ServerSettings, listening: socket.socket, folder: str
) -> _Worker:
    """Returns the worker, or the one that replaces it, after a growing pause if need be."""
    if worker.next_at is not None:
        if time.monotonic() < worker.next_at:
            return worker
        replacement = _start(settings, listening)
        replacement.failures = worker.failures
        return replacement
    error = _report(worker)
    if error:
        worker.process.join()
        mark_process_dead(worker.process.pid, folder)  # type: ignore[no-untyped-call]
        worker.reports.close()
        pause_s = 0.0 if worker.is_serving else min(2.0**worker.failures, _LONGEST_PAUSE_S)
        worker.failures += not worker.is_serving
        worker.next_at = time.monotonic() + pause_s
        _LOG.warning("%s; starting another in %g s", error, pause_s)
    return worker


def _start(settings: ServerSettings, listening: socket.socket) -> _Worker:
    reports, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_work, args=(settings, listening, theirs), name="worker")
    # Ctrl-C also reaches the workers, which ignore it until they serve.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.start()
    signal.signal(signal.SIGINT, handler)
    theirs.close()
    return _Worker(process, reports)


def _work(settings: ServerSettings, listening: socket.socket, supervisor: Connection) -> None:
    """Runs a worker; `supervisor` is closed at the other end when the supervisor ends."""
    try:
        serve_store(settings, listening, lambda: supervisor.send(_STARTED), supervisor.fileno())
    except RsicdEmbedError as error:
        supervisor.send(str(error))


def _end(workers: list[_Worker]) -> None:
    """Lets the workers answer their running requests, and ends those that take too long."""
    for worker in workers:
        worker.process.terminate()
    end = time.monotonic() + SHUTDOWN_S + 5
    for worker in workers:
        worker.process.join(max(0.0, end - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


@contextmanager
def _environment() -> Iterator[str]:
    """The workers' environment variables; yields the folder in which they count their metrics."""
    before = dict(os.environ)
    with temporary_folder("rsicd-embed-metrics-") as path:
        folder = os.environ[SHARED_FOLDER] = str(path)
        os.environ.setdefault(ARENAS, "1")  # see `share_one_heap`, which would come too late
        try:
            yield folder
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def _signals() -> Iterator[Connection]:
    """A connection that becomes readable at SIGINT or SIGTERM."""
    receiver, sender = _SPAWN.Pipe(duplex=False)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: sender.send_bytes(b"")) for number in numbers]
    try:
        yield receiver
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        receiver.close()
        sender.close()
