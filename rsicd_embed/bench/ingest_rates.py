"""End to end, from JPEG files to vectors in a store, beside its two halves alone, interleaved."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rsicd_embed.bench import inputs
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import BenchError, ImageError
from rsicd_embed.images import read_bytes, read_rgb
from rsicd_embed.indexing import ingest
from rsicd_embed.indexing.writer import elapsed_s
from rsicd_embed.parallel import ordered_map
from rsicd_embed.reports import record
from rsicd_embed.reports.statistics import paired_ratio
from rsicd_embed.reports.timing import Progress, Sampler, Samples, TimingPlan, measure, sampler
from rsicd_embed.stores.base import open_store

MODEL, DECODE = "model alone", "decoding alone"


@dataclass(frozen=True)
class StoreKind:
    """A new store of `scheme`, in a folder that is gone afterwards, below `parent` if given."""

    scheme: str
    parent: Path | None = None

    @property
    def name(self) -> str:
        """Of the candidate."""
        return f"ingest {self.scheme}"


@dataclass
class _Ingest:
    """Times ingests into stores that are new each time; making and filling them is timed."""

    sources: Sequence[Source]
    embedder: Embedder
    kind: StoreKind
    stages: list[dict[str, float]] = field(default_factory=list)

    def __call__(self, calls: int) -> int:
        return sum(self._once() for _ in range(calls))

    def _once(self) -> int:
        with tempfile.TemporaryDirectory(prefix="rsicd-embed-", dir=self.kind.parent) as folder:
            started = time.perf_counter_ns()
            uri = f"{self.kind.scheme}:{folder}/store"
            with open_store(uri, provenance(self.embedder)) as store:
                summary = ingest(self.sources, self.embedder, store)
            taken = time.perf_counter_ns() - started
        self.stages.append(summary.stages)
        return taken


def run(
    embedder: Embedder,
    sources: Sequence[Source],
    kinds: Sequence[StoreKind],
    plan: TimingPlan,
    progress: Progress = lambda doing: None,
) -> dict[str, Any]:
    """Times decoding, model and ingests over the same images; the fields of a record.

    "decoding alone" reads, hashes, decodes and resizes on the threads that an ingest uses;
    "model alone" embeds as many ready images in the same batches. All is in one process, as an
    ingest is. `of_sum` compares an ingest with both halves one after the other: where both use all
    processors, as on a machine without an accelerator, more than 1 is not to be had, and
    `of_slower_alone` cannot reach 1.

    Raises:
        BenchError: an image cannot be read.
    """
    examples = [example for source in sources for example in source.examples]
    ingests = {kind.name: _Ingest(sources, embedder, kind) for kind in kinds}
    shape = embedder.preprocess(Image.new("RGB", (64, 64))).shape
    batch = inputs.pixels(embedder.batch_size, shape)
    samplers: dict[str, Sampler] = {
        MODEL: sampler(lambda: _model_only(embedder, batch, len(examples))),
        DECODE: sampler(lambda: _decode_only(embedder, examples)),
        **ingests,
    }
    samples = measure(samplers, plan, progress)
    units = dict.fromkeys(samplers, float(len(examples)))
    return {
        "complete": samples.complete,
        "images": len(examples),
        "file_bytes": sum(example.path.stat().st_size for example in examples),
        "candidates": {
            name: record.candidate(samples, name, units[name], "images") for name in samplers
        },
        "ingests": {
            name: _compared(samples, name) | _stages(one.stages[-_timed(samples, name) :])
            for name, one in ingests.items()
        },
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


def _timed(samples: Samples, name: str) -> int:
    """How many of an ingest's runs were in whole rounds, the others having come before."""
    return len(samples.rounds) * samples.calls[name]


def _compared(samples: Samples, name: str) -> dict[str, Any]:
    """An ingest's rate as a part of what its halves reach alone."""
    taken, model, decode = samples.of(name), samples.of(MODEL), samples.of(DECODE)
    pairs = list(zip(model, decode, strict=True))
    return {
        "of_model_alone": record.ratio(paired_ratio(model, taken)),
        "of_slower_alone": record.ratio(paired_ratio([max(pair) for pair in pairs], taken)),
        "of_sum": record.ratio(paired_ratio([sum(pair) for pair in pairs], taken)),
    }


def _stages(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean busy seconds by stage, and which of them would take longest alone."""
    names = dict.fromkeys(name for one in runs for name in one)
    mean = {name: sum(one.get(name, 0.0) for one in runs) / len(runs) for name in names}
    alone = elapsed_s(mean)
    return {
        "stages_s": {name: record.significant(seconds, 4) for name, seconds in mean.items()},
        "limited_by": max(alone, key=lambda name: alone[name]),
    }
