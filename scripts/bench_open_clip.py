"""LanceDB's own embedding function `open-clip` beside `rsicd-clip`: the same images and shape.

    pip install open-clip-torch
    python scripts/bench_open_clip.py -o runs/bench

Both are a ViT-B/32 with random weights, each in a process of its own, and both embed the same JPEG
files from their paths: once as a function that is held (`compute_source_embeddings`), and once by
`table.add`, for which LanceDB creates the function anew, its model included, with every call.
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
from rsicd_embed.bench import inputs, synthetic_jpegs
from rsicd_embed.bench.workers import ProcessWorker, once
from rsicd_embed.reports import record
from rsicd_embed.reports.timing import TimingPlan, measure, sample
from rsicd_embed.train.initialization import write_random_checkpoint

OURS, THEIRS = "rsicd-clip", "open-clip"
SHAPE, THEIR_SHAPE = "vit-b-32", "ViT-B-32"


class Function:
    """An embedding function, and the images that it embeds."""

    def __init__(self, make: Callable[[], Any], paths: list[str]) -> None:
        self.function, self.paths = make(), paths

    def embed(self, calls: int) -> int:
        """Nanoseconds that embedding all images takes, `calls` times."""
        return sample(lambda: self.function.compute_source_embeddings(self.paths), calls)

    def add(self, calls: int) -> int:
        """Nanoseconds that adding all images to a new table takes, `calls` times."""
        import lancedb
        from lancedb.pydantic import LanceModel, Vector

        function = self.function

        class Tile(LanceModel):
            uri: str = function.SourceField()
            vector: Vector(function.ndims()) = function.VectorField()

        taken = 0
        for _ in range(calls):
            with tempfile.TemporaryDirectory() as folder:
                table = lancedb.connect(folder).create_table("tiles", schema=Tile)
                started = time.perf_counter_ns()
                table.add([{"uri": path} for path in self.paths])
                taken += time.perf_counter_ns() - started
                assert table.count_rows() == len(self.paths)
        return taken


def ours(model: str, settings: dict[str, Any], paths: list[str]) -> Function:
    """`rsicd-clip` on a directory."""
    from lancedb.embeddings import get_registry

    import rsicd_embed.lancedb

    function = get_registry().get(rsicd_embed.lancedb.ALIAS)
    return Function(lambda: function.create(model=model, **settings), paths)


def theirs(batch_size: int, paths: list[str]) -> Function:
    """LanceDB's, on the processors, without weights to fetch."""
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.WARNING)  # that the weights are random is told with every call
    mend_torchvision()
    from lancedb.embeddings import get_registry

    function = get_registry().get("open-clip")
    return Function(
        lambda: function.create(name=THEIR_SHAPE, pretrained="", batch_size=batch_size), paths
    )


def main() -> None:
    """Measures, writes the record, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--sides", type=int, nargs=2, default=(224, 1000), metavar=("LOW", "HIGH"))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", help="of rsicd-clip")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    record.claim(options.output)
    given = [one for one in sys.argv[1:] if one not in ("-o", "--output", str(options.output))]
    run = record.document(
        "lancedb-function",
        {"shape": SHAPE, "images": options.images, "sides": list(options.sides)}
        | {"batch_size": options.batch_size, "rounds": options.rounds, "backend": options.backend},
        command=shlex.join(["python", "scripts/bench_open_clip.py", *given]),
    )
    with tempfile.TemporaryDirectory(prefix="rsicd-embed-") as scratch:
        model, folder = Path(scratch, SHAPE), Path(scratch, "images")
        once(SHAPE, partial(write_random_checkpoint, model, SHAPE, inputs.texts(512)))
        synthetic_jpegs.write(folder, options.images, tuple(options.sides))
        paths = [str(path) for path in sorted(folder.rglob("*.jpg"))]
        settings = {"batch_size": options.batch_size}
        settings |= {"backend": options.backend} if options.backend else {}
        with (
            ProcessWorker(OURS, partial(ours, str(model), settings, paths)) as one,
            ProcessWorker(THEIRS, partial(theirs, options.batch_size, paths)) as other,
        ):
            samplers = {
                f"{OURS}, held": lambda calls: one.call(Function.embed, calls),
                f"{THEIRS}, held": lambda calls: other.call(Function.embed, calls),
                f"{OURS}, table.add": lambda calls: one.call(Function.add, calls),
                f"{THEIRS}, table.add": lambda calls: other.call(Function.add, calls),
            }
            samples = measure(samplers, TimingPlan(options.rounds, least_s=0.0))
    units = dict.fromkeys(samplers, float(options.images))
    run["complete"] = samples.complete
    run["candidates"] = {
        name: record.candidate(samples, name, units[name], "images") for name in samplers
    }
    run["ratios"] = [
        record.rate_ratio(samples, f"{OURS}, {how}", f"{THEIRS}, {how}", units=units)
        for how in ("held", "table.add")
    ]
    path = record.save(options.output, "bench-lancedb-function", run)
    rows = [("", "images/s", "95%")]
    for name, found in run["candidates"].items():
        low, high = found["per_s_interval"]
        rows.append((name, f"{found['per_s']:.1f}", f"{low:.1f}–{high:.1f}"))
    print("\n".join(record.table(rows)))
    for ratio in run["ratios"]:
        low, high = ratio["interval"]
        print(f"{ratio['of']} is {ratio['ratio']:.2f} ({low:.2f}–{high:.2f}) × {ratio['to']}")
    print(f"record: {path}")


if __name__ == "__main__":
    main()
