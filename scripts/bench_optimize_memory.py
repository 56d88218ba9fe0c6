"""Peak memory of each step of `optimize` on a LanceDB store, for several numbers of rows.

    python -m scripts.bench_optimize_memory --rows 200000 --rows 1000000

Writes clustered vectors in batches of 10,000 rows and optimizes the store, each number of rows in a
process of its own, and prints the resident memory before, at the peak of, and after each step.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import rsicd_embed
from rsicd_embed.parallel import share_one_heap
from rsicd_embed.records import Provenance
from rsicd_embed.stores.lancedb import lance_index
from rsicd_embed.testing.stores import batch

BATCH_ROWS, CLUSTERS, DIM = 10_000, 300, 256
PROCESS = psutil.Process()


class Peak:
    """Samples the resident memory of this process, in MB."""

    def __init__(self) -> None:
        self._most = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def step(self, name: str, run: Callable[[], Any]) -> Any:
        """Runs a step and prints its memory."""
        outer, before = self._most, _resident()
        self._most = before
        result = run()
        after = _resident()
        peak = max(self._most, after)
        self._most = max(outer, peak)
        print(f"  {name}: {before:.0f} MB before, {peak:.0f} at its peak, {after:.0f} after")
        return result

    def _watch(self) -> None:
        while True:
            self._most = max(self._most, _resident())
            time.sleep(0.02)


def _resident() -> float:
    return float(PROCESS.memory_info().rss / 1e6)


def measure(rows: int) -> None:
    """Fills and optimizes a store in this process."""
    share_one_heap()
    peak = Peak()
    for name in ("build", "measure"):
        step = getattr(lance_index, name)

        def measured(*arguments: Any, name: str = name, step: Any = step) -> Any:
            return peak.step(f"{name} the index", lambda: step(*arguments))

        setattr(lance_index, name, measured)
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLUSTERS, DIM)).astype(np.float32)
    made_by = Provenance("generated", f"weights:none/dim:{DIM}", DIM)
    print(f"{rows} rows")
    with (
        tempfile.TemporaryDirectory() as folder,
        rsicd_embed.open_store(f"lancedb:{folder}/store", made_by) as store,
    ):

        def write() -> None:
            for start in range(0, rows, BATCH_ROWS):
                ids = [f"tile-{i:08}" for i in range(start, min(start + BATCH_ROWS, rows))]
                vectors = centres[random.integers(0, CLUSTERS, len(ids))]
                vectors = vectors + 0.9 * random.normal(size=vectors.shape).astype(np.float32)
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                store.upsert([batch(ids, vectors)])

        peak.step("write", write)
        peak.step("optimize", store.optimize)


def main() -> None:
    """Measures each number of rows in a new process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, action="append", required=True)
    parser.add_argument("--inline", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for rows in options.rows:
        if options.inline:
            measure(rows)
        else:
            command = [sys.executable, "-m", f"scripts.{Path(__file__).stem}", "--inline"]
            subprocess.run([*command, "--rows", str(rows)], check=True)


if __name__ == "__main__":
    main()
