"""Text searches over HTTP: how long one takes, and how many a second many clients get answered.

Two servers of the same store run side by side, one that batches searches and one that answers each
by itself; rounds take turns.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pyarrow as pa

from rsicd_embed.bench import http_load
from rsicd_embed.bench.ann.vectors import generated
from rsicd_embed.errors import BenchError
from rsicd_embed.records import Provenance, vector_array
from rsicd_embed.reports import record
from rsicd_embed.reports.timing import Progress, Sampler, TimingPlan, measure
from rsicd_embed.stores.base import open_store

TOGETHER, ALONE = "batched", "one by one"
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class ServeSettings:
    """What is asked.

    Attributes:
        clients: how many ask at the same time, in the figure of many.
        k: hits of each search.
        words: arguments of `rsicd-embed serve` for both servers.
    """

    clients: int = 32
    k: int = 10
    words: tuple[str, ...] = ()


@dataclass
class Server:
    """One that runs.

    Attributes:
        url: of its page.
        start_s: from its start until it had answered a search.
    """

    url: str
    start_s: float
    latencies_ns: list[int] = field(default_factory=list)

    def cpu_s(self) -> float:
        """Processor time that it has taken."""
        return self._metric("process_cpu_seconds_total")

    def resident_bytes(self) -> int:
        """Its resident memory."""
        return int(self._metric("process_resident_memory_bytes"))

    def _metric(self, name: str) -> float:
        with urlopen(f"{self.url}metrics") as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def fill(uri: str, rows: int, made_by: Provenance, seed: int = 0) -> None:
    """Makes a store of generated vectors with a few attributes."""
    draw = np.random.default_rng(seed)
    first = 0
    with open_store(uri, made_by) as store:
        for vectors in generated(rows, made_by.dim, seed=seed).units():
            n = len(vectors)
            ids = [f"tiles/{i:07d}.jpg" for i in range(first, first + n)]
            columns = {"id": ids, "vector": vector_array(vectors)}
            columns |= {"lon": draw.uniform(-180, 180, n), "lat": draw.uniform(-90, 90, n)}
            store.upsert([pa.record_batch(columns)])
            first += n


@contextmanager
def serving(store: str, *words: str) -> Iterator[Server]:
    """`rsicd-embed serve` in a process of its own, warm.

    Raises:
        BenchError: it does not start.
    """
    command = [sys.executable, "-c", "from rsicd_embed.cli import main; main()", "serve"]
    command += ["--store", store, "--port", "0", *words]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise BenchError(f"rsicd-embed serve ended with status {process.wait()}")
            url = line.split()[-1]
            _first_answer(url)
            yield Server(url, time.perf_counter() - started)
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _first_answer(url: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with urlopen(f"{url}api/search?text=first", timeout=_PATIENCE_S) as answer:
                json.load(answer)
            return
        except (URLError, OSError) as error:
            if time.monotonic() > end:
                raise BenchError(f"{url} does not answer: {error}") from error
            time.sleep(0.05)


def run(
    store: str,
    settings: ServeSettings,
    plan: TimingPlan,
    *,
    progress: Progress = lambda doing: None,
) -> dict[str, Any]:
    """Loads both servers, a round each in turns.

    Returns the fields of a record: `start_s`, `latency_ms` of one client, `candidates`, `ratios`,
    and `cpu_ms_per_search` with many clients; all by server.
    """
    progress("starting servers")
    with (
        serving(store, *settings.words) as together,
        serving(store, *settings.words, "--together", "1") as alone,
    ):
        servers = {TOGETHER: together, ALONE: alone}
        names = {
            f"{clients} client{'s' * (clients > 1)}, {how}": (server, clients)
            for how, server in servers.items()
            for clients in dict.fromkeys((1, settings.clients))
        }
        samplers = {name: _sampler(*one, settings.k) for name, one in names.items()}
        samples = measure(samplers, plan, progress)
        latencies = {how: _quantiles(server.latencies_ns) for how, server in servers.items()}
        cpu = {how: _cpu_ms(server, settings) for how, server in servers.items()}
    units = dict.fromkeys(samples.calls, 1.0)
    rates = {name: record.candidate(samples, name, 1.0, "searches") for name in samples.calls}
    many = [f"{settings.clients} clients, {how}" for how in (TOGETHER, ALONE)]
    return {
        "complete": samples.complete,
        "start_s": {how: record.significant(one.start_s, 3) for how, one in servers.items()},
        "latency_ms": latencies,
        "cpu_ms_per_search": cpu,
        "candidates": rates,
        "ratios": [
            record.rate_ratio(samples, many[0], many[1], units=units),
            record.rate_ratio(samples, many[0], f"1 client, {ALONE}", units=units),
        ],
    }


_texts = itertools.count()


def searches(count: int, k: int) -> list[http_load.Request]:
    """Searches by texts that are all different, so that nothing can be remembered."""
    texts = [f"a harbour with {next(_texts)} boats" for _ in range(count)]
    return [http_load.get("/api/search", {"text": one, "k": k}, f'"{one}"') for one in texts]


def _sampler(server: Server, clients: int, k: int) -> Sampler:
    def take(calls: int) -> int:
        answered = http_load.load(server.url, searches(calls, k), clients)
        if clients == 1:
            server.latencies_ns += answered.each_ns
        return answered.total_ns

    return take


def _quantiles(each_ns: list[int]) -> Mapping[str, float]:
    p50, p90, p99 = np.quantile(np.asarray(each_ns) / 1e6, (0.5, 0.9, 0.99)).tolist()
    found = {"p50": p50, "p90": p90, "p99": p99}
    return {"n": len(each_ns)} | {name: record.significant(one, 4) for name, one in found.items()}


def _cpu_ms(server: Server, settings: ServeSettings, count: int = 1000) -> float:
    """Processor time of a search with many clients: what other work on the machine leaves alone."""
    before = server.cpu_s()
    http_load.load(server.url, searches(count, settings.k), settings.clients)
    return record.significant((server.cpu_s() - before) * 1000 / count, 4)
