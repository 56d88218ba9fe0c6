"""Rows per second that the driver of `ingest --engine ray` can take from its workers and write.

    python -m scripts.bench_ray_driver --images 100000 -o runs/bench

The workers read one small image again and again and return random vectors, so that the driver has
as much to do as possible. Its rate is the number of rows by its own CPU time, which other programs
on the machine hardly change. Requires the extra `ray`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
from PIL import Image

import rsicd_embed
from rsicd_embed.datasets.base import Source
from rsicd_embed.datasets.spooled_examples import collect
from rsicd_embed.indexing.ingest import ingest_with
from rsicd_embed.indexing.ray_workers import RayWorkers
from rsicd_embed.reports import record
from rsicd_embed.stores.base import RowMerger
from scripts.bench_ingest_memory import StubEmbedder, examples

_SETTINGS = ("images", "dim", "batch_size", "workers")


class Writes:
    """Measures the CPU time of a method that writes to a store."""

    def __init__(self, write: Callable[..., int]) -> None:
        self._write = write
        self.cpu_s = 0.0

    def __call__(self, *arguments: object) -> int:
        """Writes rows."""
        started = time.process_time()
        try:
            return self._write(*arguments)
        finally:
            self.cpu_s += time.process_time() - started


def measure(scheme: str, images: int, workers: RayWorkers) -> dict[str, float | str]:
    """CPU time of this process per row, for one ingest into a new store, which is not indexed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        Image.new("RGB", (8, 8)).save(folder / "tile.png")
        source = Source(folder, collect(examples(folder, images), pa.schema([])))
        with rsicd_embed.open_store(f"{scheme}:{scratch}/store", workers.provenance) as store:
            assert isinstance(store, RowMerger)
            writes = Writes(store.merge)
            store.merge = writes  # type: ignore[assignment]
            store.optimize = lambda: None  # type: ignore[method-assign]
            started = time.process_time()
            summary = ingest_with([source], workers, store)
            cpu_s = time.process_time() - started
            assert len(store) == images
    return {
        "scheme": scheme,
        "driver_us_per_row": round(cpu_s / images * 1e6, 1),
        "write_us_per_row": round(writes.cpu_s / images * 1e6, 1),
        "rows_per_cpu_s": round(images / cpu_s),
        "rows_per_s": round(images / summary.seconds),
    }


def main() -> None:
    """Measures each kind of store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--scheme", action="append")
    options = parser.parse_args()
    rows = []
    load = partial(StubEmbedder, options.dim, options.batch_size)
    with RayWorkers(load, address="local", count=options.workers) as workers:
        for scheme in options.scheme or ["lancedb", "exact"]:
            rows.append(measure(scheme, options.images, workers))
            print(rows[-1])
    if options.output:
        settings = {name: vars(options)[name] for name in _SETTINGS}
        command = shlex.join(["python", "-m", f"scripts.{Path(__file__).stem}", *sys.argv[1:]])
        run = {**record.document("ray-driver", settings, command=command), "drivers": rows}
        print(f"record: {record.save(options.output, 'bench-ray-driver', run)}")


if __name__ == "__main__":
    main()
