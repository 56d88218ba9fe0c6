"""Workers of `bench ann`: each builds and searches one contender, and times every query."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from rsicd_embed.bench.ann.contenders import Contender
from rsicd_embed.bench.ann.workload import Workload
from rsicd_embed.bench.workers import InlineWorker, ProcessWorker, Worker
from rsicd_embed.reports.machine import peak_memory_usage, reset_peak_memory
from rsicd_embed.reports.timing import sample

Make = Callable[[], Contender]
_WARM_UP_S = 2.0
P = ParamSpec("P")
R = TypeVar("R")


class BuildTimes(NamedTuple):
    """Nanoseconds of a build step, peak memory, and the nanoseconds of each batch if any."""

    ns: int
    peak_bytes: int
    batch_ns: list[int]


class ContenderWorker:
    """A contender, the queries, and the position of the next query."""

    def __init__(self, make: Make, queries: np.ndarray) -> None:
        self._contender = make()
        self._queries = queries
        self._next = 0
        self._settings: dict[str, int] | None = None

    def ready(self) -> None:
        """Returns once the contender is loaded."""

    def fill(self, workload: Workload, batch_rows: int) -> BuildTimes:
        """Upserts all rows. Creating the batches is not timed."""
        reset_peak_memory()
        times = []
        for batch in workload.batches(batch_rows):
            started = time.perf_counter_ns()
            self._contender.upsert(batch)
            times.append(time.perf_counter_ns() - started)
        return BuildTimes(sum(times), peak_memory_usage(), times)

    def optimize(self) -> BuildTimes:
        """Optimizes the contender."""
        reset_peak_memory()
        started = time.perf_counter_ns()
        self._contender.optimize()
        return BuildTimes(time.perf_counter_ns() - started, peak_memory_usage(), [])

    def index(self) -> str:
        """The kind of index and its parameters, in words."""
        return self._contender.index()

    def configure(self, settings: Mapping[str, int]) -> None:
        """Sets the search settings."""
        self._contender.configure(settings)
        self._settings = dict(settings)

    def switch_to(self, settings: Mapping[str, int], k: int) -> None:
        """Sets the search settings if they differ, and warms up with one search per query.

        A store is reopened for it, which empties its caches.
        """
        if settings != self._settings:
            self.configure(settings)
            self.answers(k, None, _WARM_UP_S)

    def answers(self, k: int, where: str | None, budget_s: float) -> tuple[int, list[np.ndarray]]:
        """Searches for each query: nanoseconds of the first search, and the positions for each.

        Stops after `budget_s` seconds, without the remaining queries.
        """
        results: list[np.ndarray] = []
        begun = time.perf_counter_ns()
        first = 0
        for at in range(len(self._queries)):
            started = time.perf_counter_ns()
            result = self._contender.search(self._queries[at : at + 1], k, where)
            first = first or max(1, time.perf_counter_ns() - started)
            results += self._contender.positions(result, 1)
            if time.perf_counter_ns() - begun > budget_s * 1e9:
                break
        return first, results

    def batch_answers(self, k: int, size: int) -> list[np.ndarray]:
        """The positions for each of the first queries, searched in one batch."""
        return self._contender.positions(self._contender.search(self._queries[:size], k), size)

    def singles(self, k: int, where: str | None, calls: int) -> np.ndarray:
        """int64 (calls,): nanoseconds of each search for a single query.

        Cycles through the queries, starting after the last one of the previous call.
        """
        search, queries = self._contender.search, self._queries
        clock, at, times = time.perf_counter_ns, self._next, np.empty(calls, np.int64)
        for call in range(calls):
            query = queries[at : at + 1]
            started = clock()
            search(query, k, where)
            times[call] = clock() - started
            at = (at + 1) % len(queries)
        self._next = at
        return times

    def batches(self, k: int, size: int, clients: int, calls: int) -> int:
        """Nanoseconds for `calls` searches of `size` queries by each of `clients` threads."""
        search = partial(self._contender.search, self._queries[:size], k)
        if clients == 1:
            return sample(search, calls)
        with ThreadPoolExecutor(clients) as pool:
            started = time.perf_counter_ns()
            for done in [pool.submit(sample, search, calls) for _ in range(clients)]:
                done.result()
            return time.perf_counter_ns() - started

    def peak_bytes(self) -> int:
        """Peak memory since the process, filling or optimizing started."""
        return peak_memory_usage()

    def end(self) -> None:
        """Closes the contender."""
        self._contender.close()


class ConfiguredWorker:
    """A contender with search settings of its own, alternating with others on one worker."""

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
        self._worker.call(ContenderWorker.switch_to, self._settings, self._k)
        return self._worker.call(function, *args, **kwargs)

    def close(self) -> None:
        """Closes the worker."""
        self._worker.close()


def start_worker(
    name: str, make: Make, workload: Workload, *, inline: bool
) -> Worker[ContenderWorker]:
    """Starts a worker, inline or in a process that may not be ready yet."""
    make_worker = partial(ContenderWorker, make, workload.queries)
    if inline:
        return InlineWorker(name, make_worker)
    return ProcessWorker(name, make_worker, wait=False)
