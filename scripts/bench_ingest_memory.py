"""Peak memory of `ingest` for a few and for many generated examples, each in a process of its own.

    python scripts/bench_ingest_memory.py --images 50000 --images 1000000 -o runs/bench

The examples have distinct ids and one small image, and the embedder derives a short vector from
the order, so that what remains is the memory of listing, looking up, writing and indexing rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

import rsicd_embed
from rsicd_embed.datasets.base import Example, Source
from rsicd_embed.datasets.spooled_examples import collect
from rsicd_embed.parallel import share_one_heap
from rsicd_embed.reports import record


class StubEmbedder:
    """Gives every image another vector, without a model."""

    name = fingerprint = "stub"

    def __init__(self, dim: int, batch_size: int = 256) -> None:
        self.dim, self.batch_size = dim, batch_size
        self._random = np.random.default_rng(0)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """A single pixel."""
        return np.zeros(1, np.uint8)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Random unit vectors."""
        vectors = self._random.normal(size=(len(pixels), self.dim)).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def embed_images(self, images: object) -> np.ndarray:
        """Not used."""
        raise NotImplementedError

    embed_texts = embed_images


def examples(folder: Path, count: int) -> Iterator[Example]:
    """Examples that all name one image."""
    for number in range(count):
        yield Example(f"area-{number // 1000:05}/tile-{number:08}.png", str(folder / "tile.png"))


def ingest(scheme: str, count: int, dim: int, *, again: bool) -> dict[str, float]:
    """Ingests in this process; with `again`, a second time."""
    share_one_heap()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        Image.new("RGB", (8, 8)).save(folder / "tile.png")
        embedder = StubEmbedder(dim)
        source = Source(folder, collect(examples(folder, count), pa.schema([])))
        started = time.perf_counter()
        for _ in range(1 + again):
            with rsicd_embed.open_store(f"{scheme}:{scratch}/store", embedder=embedder) as store:  # type: ignore[arg-type]
                rsicd_embed.ingest([source], embedder, store)  # type: ignore[arg-type]
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"images": count, "peak_bytes": peak, "seconds": round(seconds, 1)}


def main() -> None:
    """Measures each number of images in a new process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--images", type=int, action="append", required=True)
    parser.add_argument("--scheme", default="lancedb")
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--again", action="store_true", help="Ingest everything twice.")
    parser.add_argument("--inline", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inline:
        print(
            json.dumps(ingest(options.scheme, options.images[0], options.dim, again=options.again))
        )
        return
    rows = []
    for count in options.images:
        command = [sys.executable, __file__, "--inline", "--images", str(count)]
        command += ["--scheme", options.scheme, "--dim", str(options.dim)]
        command += ["--again"] if options.again else []
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(output.splitlines()[-1]))
        ratio = rows[-1]["peak_bytes"] / rows[0]["peak_bytes"]
        print(f"{rows[-1]}, {ratio:.2f} × the first")
    if options.output:
        settings = {"scheme": options.scheme, "again": options.again, "dim": options.dim}
        command_line = shlex.join(["python", *sys.argv])
        run = {**record.document("ingest-rows", settings, command=command_line), "memory": rows}
        print(f"record: {record.save(options.output, 'bench-ingest-rows', run)}")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
