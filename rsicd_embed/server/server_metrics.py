"""Prometheus metrics of a server; those of several worker processes are added up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

# prometheus_client keeps its values in files of this folder if it is set before its import.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_LIVE_GAUGES = re.compile(r"gauge_livesum_(\d+)\.db")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics that this process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "rsicd_embed_requests_total",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "rsicd_embed_request_seconds",
            "Time from a request's arrival to the end of its response.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.running = Gauge(
            "rsicd_embed_requests_running",
            "Requests being answered.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.workers = Gauge(
            "rsicd_embed_workers",
            "Processes that serve the store.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.workers.set(1)
        self.batches = Histogram(
            "rsicd_embed_batch_searches",
            "Searches per batch.",
            buckets=_BATCH_SIZES,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Returns the metrics in Prometheus's text format.

        With several workers, they are sums over all of them; `process_*` has a label `pid`.
        """
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self.registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        shared.register(_WorkerProcesses(Path(os.environ[SHARED_FOLDER])))
        return generate_latest(shared)


class _WorkerProcesses(Collector):
    """The `process_*` metrics of each running worker, labelled with its process id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics; a worker that has just ended is left out."""
        merged: dict[str, Metric] = {}
        for pid in self._pids():
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                same = merged.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                for sample in metric.samples:
                    same.add_sample(sample.name, {"pid": str(pid)}, sample.value)
        yield from merged.values()

    def _pids(self) -> list[int]:
        """Workers that have a file of live gauges, which the supervisor removes at their end."""
        names = (_LIVE_GAUGES.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(name[1]) for name in names if name)
