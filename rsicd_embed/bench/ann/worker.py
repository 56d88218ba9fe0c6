"""A worker with one contender: fills it, searches it, and times each query."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from rsicd_embed.bench.ann.contenders import Contender
from rsicd_embed.bench.ann.workload import Workload
from rsicd_embed.bench.workers import InlineWorker, ProcessWorker, Worker
from rsicd_embed.reports.machine import peak_memory_usage, reset_peak_memory
from rsicd_embed.reports.timing import sample

Make = Callable[[], Contender]
_WARM_S = 2.0
P = ParamSpec("P")
R = TypeVar("R")


class ContenderWorker:
    """A contender, its queries, and the position of the next one."""

    def __init__(self, make: Make, queries: np.ndarray) -> None:
        self._contender = make()
        self._queries = queries
        self._next = 0
        self._settings: dict[str, int] | None = None

    def ready(self) -> None:
        """Returns once the contender has been made."""

    def fill(self, workload: Workload, batch_rows: int) -> dict[str, Any]:
        """Upserts all rows; nanoseconds of each batch, and the peak of memory.

        Making the batches is not timed.
        """
        reset_peak_memory()
        taken = []
        for batch in workload.batches(batch_rows):
            started = time.perf_counter_ns()
            self._contender.upsert(batch)
            taken.append(time.perf_counter_ns() - started)
        return {"ns": sum(taken), "batch_ns": taken, "peak_bytes": peak_memory_usage()}

    def optimize(self) -> dict[str, Any]:
        """Nanoseconds, and the peak of memory."""
        reset_peak_memory()
        started = time.perf_counter_ns()
        self._contender.optimize()
        taken = time.perf_counter_ns() - started
        return {"ns": taken, "peak_bytes": peak_memory_usage()}

    def index(self) -> str:
        """How it searches."""
        return self._contender.index()

    def configure(self, settings: Mapping[str, int]) -> None:
        """Searches with these settings from now on."""
        self._contender.configure(settings)
        self._settings = dict(settings)

    def turn_to(self, settings: Mapping[str, int], k: int) -> None:
        """Searches with these settings, if it does not yet, and for every query once, untimed.

        A store opens anew for it: what it keeps in memory is cold.
        """
        if settings != self._settings:
            self.configure(settings)
            self.answers(k, None, _WARM_S)

    def answers(self, k: int, where: str | None, budget_s: float) -> tuple[int, list[np.ndarray]]:
        """Nanoseconds of the first search, and the rows found for each query, one by one.

        When the time is over, the queries that are left are not asked.
        """
        found: list[np.ndarray] = []
        begun = time.perf_counter_ns()
        first = 0
        for at in range(len(self._queries)):
            started = time.perf_counter_ns()
            answer = self._contender.search(self._queries[at : at + 1], k, where)
            first = first or max(1, time.perf_counter_ns() - started)
            found += self._contender.found(answer, 1)
            if time.perf_counter_ns() - begun > budget_s * 1e9:
                break
        return first, found

    def batch_answers(self, k: int, size: int) -> list[np.ndarray]:
        """The rows found for the first queries, asked all at once."""
        return self._contender.found(self._contender.search(self._queries[:size], k), size)

    def singles(self, k: int, where: str | None, calls: int) -> np.ndarray:
        """int64 (calls,): the nanoseconds of each of so many searches for one query.

        The queries are taken in turn, from where the last call ended.
        """
        search, queries = self._contender.search, self._queries
        clock, at, taken = time.perf_counter_ns, self._next, np.empty(calls, np.int64)
        for call in range(calls):
            query = queries[at : at + 1]
            started = clock()
            search(query, k, where)
            taken[call] = clock() - started
            at = (at + 1) % len(queries)
        self._next = at
        return taken

    def batches(self, k: int, size: int, clients: int, calls: int) -> int:
        """Nanoseconds that so many searches for `size` queries at once take.

        Each of `clients` threads makes so many, all at the same time.
        """
        search = partial(self._contender.search, self._queries[:size], k)
        if clients == 1:
            return sample(search, calls)
        with ThreadPoolExecutor(clients) as pool:
            started = time.perf_counter_ns()
            for done in [pool.submit(sample, search, calls) for _ in range(clients)]:
                done.result()
            return time.perf_counter_ns() - started

    def peak_bytes(self) -> int:
        """Of memory since this process began, or began to fill or to optimize."""
        return peak_memory_usage()

    def end(self) -> None:
        """Closes the contender."""
        self._contender.close()


class ConfiguredWorker:
    """A contender searched for k rows with its own settings, in turns with others of its kind."""

    def __init__(
        self, worker: Worker[ContenderWorker], settings: Mapping[str, int], k: int
    ) -> None:
        self._worker, self._settings, self._k = worker, settings, k

    def call(
        self,
        function: Callable[Concatenate[ContenderWorker, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Applies the settings, untimed, and returns `function(contender, …)`."""
        self._worker.call(ContenderWorker.turn_to, self._settings, self._k)
        return self._worker.call(function, *args, **kwargs)

    def close(self) -> None:
        """Ends the contender."""
        self._worker.close()


def start_worker(
    name: str, make: Make, workload: Workload, *, here: bool
) -> Worker[ContenderWorker]:
    """Makes a contender, in this process or in one of its own, which may not be ready yet."""
    making = partial(ContenderWorker, make, workload.queries)
    return InlineWorker(name, making) if here else ProcessWorker(name, making, wait=False)
