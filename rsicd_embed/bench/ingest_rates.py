"""Throughput of an ingest, from JPEG files to vectors in a store, and its memory usage.

Ingests are timed in the same rounds as their two halves: decoding alone and the model alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from rsicd_embed.bench import synthetic_inputs
from rsicd_embed.bench.workers import ProcessWorker
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.datasets.sources import open_sources
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import BenchError, ImageError
from rsicd_embed.files import temporary_folder
from rsicd_embed.images import read_bytes, read_rgb
from rsicd_embed.indexing import ingest
from rsicd_embed.indexing.stages import elapsed_s
from rsicd_embed.parallel import ordered_map, share_one_heap
from rsicd_embed.reports.machine import memory_usage, peak_memory_usage, reset_peak_memory
from rsicd_embed.reports.record_types import IngestMemory, IngestResults, IngestShares
from rsicd_embed.reports.timing import (
    Progress,
    Sampler,
    Samples,
    TimingPlan,
    measure,
    paired_ratio,
    rate_summary,
    ratio_summary,
    sampler,
    significant,
)
from rsicd_embed.stores.base import open_store

MODEL, DECODE = "model alone", "decoding alone"


@dataclass(frozen=True)
class StoreKind:
    """A store scheme, and the folder in which temporary stores are created, if given."""

    scheme: str
    parent: Path | None = None


@dataclass
class _Ingest:
    """Times ingests, each into a new store; creating the store is included."""

    sources: Sequence[Source]
    embedder: Embedder
    kind: StoreKind
    stages: list[Mapping[str, float]] = field(default_factory=list)

    def __call__(self, calls: int) -> int:
        return sum(self._ingest() for _ in range(calls))

    def _ingest(self) -> int:
        with temporary_folder(parent=self.kind.parent) as folder:
            started = time.perf_counter_ns()
            uri = f"{self.kind.scheme}:{folder}/store"
            with open_store(uri, provenance(self.embedder)) as store:
                summary = ingest(self.sources, self.embedder, store)
            elapsed = time.perf_counter_ns() - started
        self.stages.append(summary.stages)
        return elapsed


def run(
    embedder: Embedder,
    sources: Sequence[Source],
    kinds: Sequence[StoreKind],
    plan: TimingPlan,
    progress: Progress = lambda doing: None,
) -> IngestResults:
    """Times decoding, the model and ingests on the same images.

    "decoding alone" reads, hashes, decodes and resizes on the threads that an ingest uses; "model
    alone" embeds the same number of decoded images in the same batches. Everything runs in one
    process, as an ingest does. `of_sum` compares an ingest with both halves in sequence. Where both
    halves use all CPUs, as on a machine without an accelerator, `of_sum` cannot exceed 1 and
    `of_slower_alone` cannot reach it.

    Raises:
        BenchError: an image cannot be read.
    """
    examples = [example for source in sources for example in source.examples]
    ingests = {f"ingest {kind.scheme}": _Ingest(sources, embedder, kind) for kind in kinds}
    shape = embedder.preprocess(Image.new("RGB", (64, 64))).shape
    batch = synthetic_inputs.pixels(embedder.batch_size, shape)
    samplers: dict[str, Sampler] = {
        MODEL: sampler(lambda: _model_only(embedder, batch, len(examples))),
        DECODE: sampler(lambda: _decode_only(embedder, examples)),
        **ingests,
    }
    samples = measure(samplers, plan, progress)
    n = len(examples)
    return {
        "complete": samples.complete,
        "images": n,
        "file_bytes": sum(example.path.stat().st_size for example in examples),
        "candidates": {name: rate_summary(samples, name, float(n), "images") for name in samplers},
        "ingests": {name: _shares(samples, name, timed.stages) for name, timed in ingests.items()},
    }


def _model_only(embedder: Embedder, batch: np.ndarray, n: int) -> None:
    for start in range(0, n, len(batch)):
        embedder.embed_pixels(batch[: min(len(batch), n - start)])


def _decode_only(embedder: Embedder, examples: Sequence[Example]) -> None:
    def load(example: Example) -> np.ndarray:
        try:
            data = read_bytes(example.path)
            hashlib.sha256(data).hexdigest()
            return embedder.preprocess(read_rgb(data))
        except ImageError as error:
            raise BenchError(f"{example.uri}: {error}; leave it out") from error

    for _ in ordered_map(load, examples, ahead=4 * embedder.batch_size):
        pass


def _shares(samples: Samples, name: str, stages: Sequence[Mapping[str, float]]) -> IngestShares:
    """The rate of an ingest relative to its halves, and the mean busy seconds of its stages."""
    ns, pairs = samples.of(name), list(zip(samples.of(MODEL), samples.of(DECODE), strict=True))
    timed = stages[-len(samples.rounds) * samples.calls[name] :]  # without the warm-up
    names = dict.fromkeys(stage for seconds in timed for stage in seconds)
    mean = {
        stage: sum(seconds.get(stage, 0.0) for seconds in timed) / len(timed) for stage in names
    }
    alone = elapsed_s(mean)
    return {
        "of_model_alone": ratio_summary(paired_ratio(samples.of(MODEL), ns)),
        "of_slower_alone": ratio_summary(paired_ratio([max(pair) for pair in pairs], ns)),
        "of_sum": ratio_summary(paired_ratio([sum(pair) for pair in pairs], ns)),
        "stages_s": {stage: significant(seconds, 4) for stage, seconds in mean.items()},
        "limited_by": max(alone, key=lambda stage: alone[stage]),
    }


def ingest_memory(
    make: Callable[[], Embedder], images: Path, scheme: str, parent: Path | None = None
) -> IngestMemory:
    """Ingests a folder into a new store in a new process, and reports its memory usage.

    `loaded_bytes` is resident memory once the model is loaded and has embedded a batch;
    `ingest_peak_bytes` is the peak after that, `peak_bytes` the peak of the whole process, loading
    included. Pages of mapped files count as resident.

    Raises:
        BenchError: not every image was embedded.
    """
    # The commands share one heap between threads as well.
    with ProcessWorker(f"memory of {scheme}", share_one_heap) as worker:
        return worker.call(_measure_memory, make, images, scheme, parent)


def _measure_memory(
    _: None, make: Callable[[], Embedder], images: Path, scheme: str, parent: Path | None
) -> IngestMemory:
    embedder = make()
    pixels = embedder.preprocess(Image.new("RGB", (64, 64)))
    embedder.embed_pixels(np.stack([pixels] * embedder.batch_size))
    loaded, loading_peak = memory_usage(), peak_memory_usage()
    reset_peak_memory()
    started = time.perf_counter()
    with temporary_folder(parent=parent) as folder:
        sources = open_sources([images])
        with open_store(f"{scheme}:{folder}/store", provenance(embedder)) as store:
            summary = ingest(sources, embedder, store)
            rows = len(store)
    n = sum(len(source.examples) for source in sources)
    if not summary.embedded == rows == n:
        raise BenchError(f"expected {n} embedded images, found {summary.embedded}")
    peak = peak_memory_usage()
    return {
        "images": n,
        "store": scheme,
        "seconds": round(time.perf_counter() - started, 3),
        "loaded_bytes": loaded,
        "ingest_peak_bytes": peak,
        "peak_bytes": max(peak, loading_peak),
    }
