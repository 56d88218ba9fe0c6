"""The peak of resident memory of an ingest, in a process of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rsicd_embed.bench.workers import ProcessWorker
from rsicd_embed.datasets.sources import open_sources
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import BenchError
from rsicd_embed.indexing import ingest
from rsicd_embed.parallel import share_one_heap
from rsicd_embed.reports.machine import memory_usage, peak_memory_usage, reset_peak_memory
from rsicd_embed.stores.base import open_store


def of_ingest(
    make: Callable[[], Embedder], images: Path, scheme: str, parent: Path | None = None
) -> dict[str, Any]:
    """Ingests a folder into a new store in a new process; what memory that took.

    `loaded_bytes` is resident once the model is loaded and has embedded a batch;
    `ingest_peak_bytes` is the most that was resident from there on, `peak_bytes` the most ever:
    loading may have taken more for a moment. Pages of files that are mapped count as resident.

    Raises:
        BenchError: not every image was embedded.
    """
    # The heap is as in the commands.
    with ProcessWorker(f"memory of {scheme}", share_one_heap) as worker:
        return worker.call(_measured, make, images, scheme, parent)


def _measured(
    _: None, make: Callable[[], Embedder], images: Path, scheme: str, parent: Path | None
) -> dict[str, Any]:
    embedder = make()
    pixels = embedder.preprocess(Image.new("RGB", (64, 64)))
    embedder.embed_pixels(np.stack([pixels] * embedder.batch_size))
    loaded, loading_peak = memory_usage(), peak_memory_usage()
    reset_peak_memory()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rsicd-embed-", dir=parent) as folder:
        sources = open_sources([images])
        with open_store(f"{scheme}:{folder}/store", provenance(embedder)) as store:
            summary = ingest(sources, embedder, store)
            rows = len(store)
    found = sum(len(source.examples) for source in sources)
    if not summary.embedded == rows == found:
        raise BenchError(f"expected {found} images embedded, found {summary.embedded}")
    peak = peak_memory_usage()
    return {
        "images": found,
        "store": scheme,
        "seconds": round(time.perf_counter() - started, 3),
        "loaded_bytes": loaded,
        "ingest_peak_bytes": peak,
        "peak_bytes": max(peak, loading_peak),
    }
