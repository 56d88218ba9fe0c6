"""Text searches over HTTP: latency with one client, throughput with many.

Two servers of the same store run side by side, one that batches concurrent searches and one that
answers them one by one; the rounds alternate between them. The clients share one thread and use
plain sockets: a client library would need more CPU time per request than the server, on the same
CPUs.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.error import URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import numpy as np
import pyarrow as pa

from rsicd_embed.bench.ann.vectors import generated
from rsicd_embed.errors import BenchError
from rsicd_embed.records import Provenance, vector_array
from rsicd_embed.reports.record_types import LatencyMs, ServeResults
from rsicd_embed.reports.timing import (
    Progress,
    Sampler,
    TimingPlan,
    measure,
    rate_ratio,
    rate_summary,
    significant,
)
from rsicd_embed.stores.base import open_store

BATCHED, ONE_BY_ONE = "batched", "one by one"
_TIMEOUT_S = 120.0
_LOAD_TIMEOUT_S = 600.0
_CPU_SEARCHES = 1000


@dataclass(frozen=True)
class ServeSettings:
    """Settings of the measurement.

    Attributes:
        clients: number of concurrent clients for the throughput.
        k: hits per search.
        options: command-line options of `rsicd-embed serve` for both servers.
    """

    clients: int = 32
    k: int = 10
    options: tuple[str, ...] = ()


@dataclass
class Server:
    """A running server.

    Attributes:
        url: base URL.
        start_s: seconds from its start to the first response.
        latencies_ns: nanoseconds of each search from a single client.
    """

    url: str
    start_s: float
    latencies_ns: list[int] = field(default_factory=list)

    def cpu_s(self) -> float:
        """CPU time that the server's processes have used, in seconds."""
        return self._metric("process_cpu_seconds_total")

    def resident_bytes(self) -> int:
        """Resident memory of the server's processes; pages that they share count for each."""
        return int(self._metric("process_resident_memory_bytes"))

    def _metric(self, name: str) -> float:
        with urlopen(f"{self.url}metrics") as response:
            lines = response.read().decode().splitlines()
        # With several processes, each has a line with its labels.
        values = [float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line)]
        if not values:
            raise BenchError(f"expected {name} in {self.url}metrics, found none; it needs Linux")
        return sum(values)


def fill(uri: str, rows: int, provenance: Provenance, seed: int = 0) -> None:
    """Creates a store of generated vectors with a few attributes."""
    random = np.random.default_rng(seed)
    first = 0
    with open_store(uri, provenance) as store:
        for vectors in generated(rows, provenance.dim, seed=seed).units():
            n = len(vectors)
            ids = [f"tiles/{i:07d}.jpg" for i in range(first, first + n)]
            columns = {"id": ids, "vector": vector_array(vectors)}
            columns |= {"lon": random.uniform(-180, 180, n), "lat": random.uniform(-90, 90, n)}
            store.upsert([pa.record_batch(columns)])
            first += n


@contextmanager
def serving(store: str, *options: str) -> Iterator[Server]:
    """Runs `rsicd-embed serve` in a subprocess, warmed up.

    Raises:
        BenchError: it does not start.
    """
    command = [sys.executable, "-c", "from rsicd_embed.cli import main; main()", "serve"]
    command += ["--store", store, "--port", "0", *options]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise BenchError(f"rsicd-embed serve ended with status {process.wait()}")
            url = line.split()[-1]
            _wait_for_response(url)
            yield Server(url, time.perf_counter() - started)
        finally:
            process.terminate()
            try:
                process.wait(_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for_response(url: str) -> None:
    end = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            with urlopen(f"{url}api/search?text=first", timeout=_TIMEOUT_S) as response:
                json.load(response)
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
) -> ServeResults:
    """Loads both servers in alternating rounds."""
    progress("starting servers")
    with (
        serving(store, *settings.options) as batched,
        serving(store, *settings.options, "--together", "1") as one_by_one,
    ):
        servers = {BATCHED: batched, ONE_BY_ONE: one_by_one}
        samplers = {
            _candidate(clients, name): _sampler(server, clients, settings.k)
            for name, server in servers.items()
            for clients in dict.fromkeys((1, settings.clients))
        }
        samples = measure(samplers, plan, progress)
        latency = {name: _latency(server.latencies_ns) for name, server in servers.items()}
        cpu_ms = {name: _cpu_ms(server, settings) for name, server in servers.items()}
    units = dict.fromkeys(samples.calls, 1.0)
    many = _candidate(settings.clients, BATCHED)
    others = (_candidate(settings.clients, ONE_BY_ONE), _candidate(1, ONE_BY_ONE))
    return {
        "complete": samples.complete,
        "start_s": {name: significant(server.start_s, 3) for name, server in servers.items()},
        "latency_ms": latency,
        "cpu_ms_per_search": cpu_ms,
        "candidates": {
            name: rate_summary(samples, name, 1.0, "searches") for name in samples.calls
        },
        "ratios": [rate_ratio(samples, many, other, units=units) for other in others],
    }


def _candidate(clients: int, server: str) -> str:
    return f"{clients} client{'s' * (clients > 1)}, {server}"


_numbers = itertools.count()


def searches(count: int, k: int) -> list[Request]:
    """Searches for texts that are all different, so that no response can be cached."""
    texts = [f"a harbour with {next(_numbers)} boats" for _ in range(count)]
    return [get_request("/api/search", {"text": text, "k": k}, f'"{text}"') for text in texts]


def _sampler(server: Server, clients: int, k: int) -> Sampler:
    def take(calls: int) -> int:
        times = send_all(server.url, searches(calls, k), clients)
        if clients == 1:
            server.latencies_ns += times.each_ns
        return times.total_ns

    return take


def _latency(each_ns: list[int]) -> LatencyMs:
    p50, p90, p99 = np.quantile(np.asarray(each_ns) / 1e6, (0.5, 0.9, 0.99)).tolist()
    return {
        "n": len(each_ns),
        "p50": significant(p50, 4),
        "p90": significant(p90, 4),
        "p99": significant(p99, 4),
    }


def _cpu_ms(server: Server, settings: ServeSettings) -> float:
    """CPU time per search with many clients, which other load on the machine hardly affects."""
    before = server.cpu_s()
    send_all(server.url, searches(_CPU_SEARCHES, settings.k), settings.clients)
    return significant((server.cpu_s() - before) * 1000 / _CPU_SEARCHES, 4)


@dataclass(frozen=True)
class Request:
    """An HTTP request.

    Attributes:
        head: method and headers, including the empty line.
        body: the request body.
        expected: bytes that the response must contain, to detect mixed-up responses.
    """

    head: bytes
    body: bytes = b""
    expected: bytes = b""


@dataclass(frozen=True)
class LoadTimes:
    """Nanoseconds for all requests together, and for each."""

    total_ns: int
    each_ns: tuple[int, ...]


def get_request(path: str, parameters: dict[str, str | int], expected: str = "") -> Request:
    """A GET request."""
    target = f"{path}?{urlencode(parameters)}" if parameters else path
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    return Request(head.encode(), b"", expected.encode())


def post_request(path: str, content_type: str, body: bytes, expected: str = "") -> Request:
    """A POST request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return Request(head.encode(), body, expected.encode())


def send_all(url: str, requests: Sequence[Request], clients: int) -> LoadTimes:
    """Sends requests from concurrent clients, each of which waits for a response before the next.

    Raises:
        BenchError: a response is missing, is not a 200, or belongs to another request.
    """
    return asyncio.run(_send_all(url, requests, clients))


async def _send_all(url: str, requests: Sequence[Request], clients: int) -> LoadTimes:
    address = urlsplit(url)
    host, port = str(address.hostname), int(address.port or 80)
    connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    pending: Iterator[Request] = iter(requests)
    each: list[int] = []
    try:
        connections += await asyncio.gather(
            *(asyncio.open_connection(host, port) for _ in range(min(clients, len(requests))))
        )
        started = time.perf_counter_ns()
        work = (_client(reader, writer, pending, each) for reader, writer in connections)
        await asyncio.wait_for(asyncio.gather(*work), _LOAD_TIMEOUT_S)
        total = time.perf_counter_ns() - started
    except (OSError, EOFError, TimeoutError) as error:
        raise BenchError(f"{url} does not answer: {str(error) or type(error).__name__}") from error
    finally:
        for _, writer in connections:
            writer.close()
    return LoadTimes(total, tuple(each))


async def _client(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    requests: Iterable[Request],
    each: list[int],
) -> None:
    for request in requests:
        started = time.perf_counter_ns()
        writer.write(request.head + request.body)
        status, length = _parse_head(await reader.readuntil(b"\r\n\r\n"))
        body = await reader.readexactly(length)
        each.append(time.perf_counter_ns() - started)
        if status != 200 or request.expected not in body:
            line = request.head.split(b"\r\n")[0].decode()
            raise BenchError(f"{line}: expected its response, found {status}: {body[:200]!r}")


def _parse_head(head: bytes) -> tuple[int, int]:
    """Status and content length of a response."""
    lines = head.lower().split(b"\r\n")
    lengths = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
    return int(lines[0].split()[1]), lengths[0] if lengths else 0
