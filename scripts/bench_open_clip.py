"""LanceDB's embedding function `open-clip` compared with `rsicd-clip`: same images, same shape.

    pip install open-clip-torch
    python scripts/bench_open_clip.py -o runs/bench

Both are a ViT-B/32 with random weights, each in its own process, and embed the same JPEG files from
their paths: once with a function that is reused (`compute_source_embeddings`), and once with
`table.add`, for which LanceDB creates the function and its model anew with every call.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rsicd_embed._lazy_torchvision import mend_torchvision
from rsicd_embed.bench import synthetic_inputs
from rsicd_embed.bench.workers import ProcessWorker, once
from rsicd_embed.reports import record
from rsicd_embed.reports.timing import TimingPlan, measure, rate_ratio, rate_summary, sample
from rsicd_embed.train.initialization import write_random_checkpoint

OURS, THEIRS = "rsicd-clip", "open-clip"
SHAPE, THEIR_SHAPE = "vit-b-32", "ViT-B-32"


class Function:
    """An embedding function and the images to embed."""

    def __init__(self, make: Callable[[], Any], paths: list[str]) -> None:
        self.function, self.paths = make(), paths

    def embed(self, calls: int) -> int:
        """Nanoseconds for embedding all images, `calls` times."""
        return sample(lambda: self.function.compute_source_embeddings(self.paths), calls)

    def add(self, calls: int) -> int:
        """Nanoseconds for adding all images to a new table, `calls` times."""
        import lancedb
        from lancedb.pydantic import LanceModel, Vector

        function = self.function

        class Tile(LanceModel):
            uri: str = function.SourceField()
            vector: Vector(function.ndims()) = function.VectorField()

        elapsed = 0
        for _ in range(calls):
            with tempfile.TemporaryDirectory() as folder:
                table = lancedb.connect(folder).create_table("tiles", schema=Tile)
                started = time.perf_counter_ns()
                table.add([{"uri": path} for path in self.paths])
                elapsed += time.perf_counter_ns() - started
                assert table.count_rows() == len(self.paths)
        return elapsed


def ours(model: str, settings: dict[str, Any], paths: list[str]) -> Function:
    """The function `rsicd-clip` with the model of a directory."""
    from lancedb.embeddings import get_registry

    import rsicd_embed.lancedb

    function = get_registry().get(rsicd_embed.lancedb.ALIAS)
    return Function(lambda: function.create(model=model, **settings), paths)


def theirs(batch_size: int, paths: list[str]) -> Function:
    """LanceDB's function `open-clip` on the CPU, with random weights (no download)."""
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.WARNING)  # every call warns of random weights
    mend_torchvision()
    from lancedb.embeddings import get_registry

    function = get_registry().get("open-clip")
    return Function(
        lambda: function.create(name=THEIR_SHAPE, pretrained="", batch_size=batch_size), paths
    )


def main() -> None:
    """Measures, saves the record, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--sides", type=int, nargs=2, default=(224, 1000), metavar=("LOW", "HIGH"))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", help="backend of rsicd-clip")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    record.claim(options.output)
    output = ("-o", "--output", str(options.output))
    arguments = [word for word in sys.argv[1:] if word not in output]
    run = record.document(
        "lancedb-function",
        {"shape": SHAPE, "images": options.images, "sides": list(options.sides)}
        | {"batch_size": options.batch_size, "rounds": options.rounds, "backend": options.backend},
        command=shlex.join(["python", "scripts/bench_open_clip.py", *arguments]),
    )
    with tempfile.TemporaryDirectory(prefix="rsicd-embed-") as scratch:
        model, folder = Path(scratch, SHAPE), Path(scratch, "images")
        once(SHAPE, partial(write_random_checkpoint, model, SHAPE, synthetic_inputs.texts(512)))
        synthetic_inputs.write_jpegs(folder, options.images, tuple(options.sides))
        paths = [str(path) for path in sorted(folder.rglob("*.jpg"))]
        settings = {"batch_size": options.batch_size}
        settings |= {"backend": options.backend} if options.backend else {}
        with (
            ProcessWorker(OURS, partial(ours, str(model), settings, paths)) as our_worker,
            ProcessWorker(THEIRS, partial(theirs, options.batch_size, paths)) as their_worker,
        ):
            samplers = {
                f"{OURS}, reused": lambda calls: our_worker.call(Function.embed, calls),
                f"{THEIRS}, reused": lambda calls: their_worker.call(Function.embed, calls),
                f"{OURS}, table.add": lambda calls: our_worker.call(Function.add, calls),
                f"{THEIRS}, table.add": lambda calls: their_worker.call(Function.add, calls),
            }
            samples = measure(samplers, TimingPlan(options.rounds, least_s=0.0))
    units = dict.fromkeys(samplers, float(options.images))
    run["complete"] = samples.complete
    run["candidates"] = {
        name: rate_summary(samples, name, units[name], "images") for name in samplers
    }
    run["ratios"] = [
        rate_ratio(samples, f"{OURS}, {use}", f"{THEIRS}, {use}", units=units)
        for use in ("reused", "table.add")
    ]
    path = record.save(options.output, "bench-lancedb-function", run)
    rows = [("", "images/s", "95%")]
    for name, rate in run["candidates"].items():
        low, high = rate["per_s_interval"]
        rows.append((name, f"{rate['per_s']:.1f}", f"{low:.1f}–{high:.1f}"))
    print("\n".join(record.table(rows)))
    for ratio in run["ratios"]:
        low, high = ratio["interval"]
        print(f"{ratio['of']} is {ratio['ratio']:.2f} ({low:.2f}–{high:.2f}) × {ratio['to']}")
    print(f"record: {path}")


if __name__ == "__main__":
    main()
