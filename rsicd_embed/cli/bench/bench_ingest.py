"""`rsicd-embed bench ingest`: images a second from files to a store, and the memory it takes."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.bench.base import (
    Recorded,
    command_line,
    counts,
    embedding_bench_options,
    finish,
    model_or_shape,
    variants,
)

if TYPE_CHECKING:
    from rsicd_embed.bench.ingest_rates import StoreKind

NAME = "bench-ingest"
_STORES = ("exact", "lancedb")
_MEMORY = ("loaded_bytes", "ingest_peak_bytes", "peak_bytes")


def _sides(context: click.Context, option: click.Parameter, value: str) -> tuple[int, int]:
    """`224-1000` → (224, 1000)."""
    sides = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", value)
    low, high = (int(sides[1]), int(sides[2])) if sides else (0, 0)
    if not 0 < low <= high:
        raise click.BadParameter(f"expected sides such as 224-1000, found {value!r}")
    return low, high


@click.command(cls=Recorded)
@click.argument("sources", nargs=-1, type=click.Path(path_type=Path))
@embedding_bench_options
@click.option("--backend", metavar="NAME[:PRECISION]", help="What the model runs on.")
@click.option(
    "--images",
    default=256,
    show_default=True,
    type=click.IntRange(1),
    help="JPEG files to generate, where no SOURCE is given.",
)
@click.option(
    "--sides",
    default="224-1000",
    show_default=True,
    metavar="LOW-HIGH",
    callback=_sides,
    help="Shortest and longest side of generated, square images.",
)
@click.option(
    "--store",
    "stores",
    multiple=True,
    metavar="SCHEME[:FOLDER]",
    help="Kind of store, made anew each time in FOLDER; repeatable.  "
    f"[default: {' and '.join(_STORES)}, in a temporary folder]",
)
@click.option(
    "--memory-at",
    metavar="N,N,…",
    callback=counts,
    help="Also the peak of memory when ingesting so many generated images into the first store.",
)
@click.pass_context
def ingest(
    context: click.Context,
    sources: tuple[Path, ...],
    model: str | None,
    shape: str | None,
    backend: str | None,
    precision: str | None,
    batch_size: int,
    rounds: int,
    seed: int,
    images: int,
    sides: tuple[int, int],
    stores: tuple[str, ...],
    memory_at: tuple[int, ...],
    output: Path,
    as_json: bool,
) -> None:
    """Time ingests, beside decoding alone and the model alone, over the same images.

    A SOURCE is what `ingest` takes; without one, JPEG files are generated.
    """
    import rsicd_embed
    from rsicd_embed.bench import ingest_rates as bench
    from rsicd_embed.bench import memory, synthetic_jpegs
    from rsicd_embed.cli.progress import status_printer
    from rsicd_embed.reports import record
    from rsicd_embed.reports.machine import nvidia_gpus
    from rsicd_embed.reports.timing import TimingPlan

    kinds = _kinds(stores)
    record.claim(output)
    generated = {} if sources else {"sides": list(sides)}
    run = record.document(
        "ingest",
        {"model": model or shape or "bundled", "rounds": rounds, "seed": seed}
        | {"batch_size": batch_size, **generated},
        command=command_line(context),
        accelerators=nvidia_gpus(),
    )
    tell = status_printer()
    with (
        model_or_shape(model, shape) as source,
        tempfile.TemporaryDirectory(prefix="rsicd-embed-") as scratch,
    ):
        (variant,) = variants(source, batch_size, (backend,) if backend else (), precision)
        if not sources:
            tell(f"generating {images} images")
            synthetic_jpegs.write(Path(scratch, "images"), images, sides)
        opened = rsicd_embed.open_sources(sources or [Path(scratch, "images")])
        embedder = variant()
        run["model"] = {"fingerprint": embedder.fingerprint, "dim": embedder.dim}
        run["candidate"] = variant.name
        run |= bench.run(embedder, opened, kinds, TimingPlan(rounds, seed, least_s=0.0), tell)
        run["memory"] = []
        for count in memory_at if run["complete"] else ():
            tell(f"peak of memory at {count} images")
            with tempfile.TemporaryDirectory(prefix="rsicd-embed-", dir=scratch) as folder:
                synthetic_jpegs.write(Path(folder), count, sides)
                peak = memory.of_ingest(variant, Path(folder), kinds[0].scheme, kinds[0].parent)
            run["memory"].append(peak)
    finish(output, NAME, run, _lines, as_json=as_json)


def _kinds(stores: tuple[str, ...]) -> list[StoreKind]:
    from rsicd_embed import plugins
    from rsicd_embed.bench.ingest_rates import StoreKind
    from rsicd_embed.errors import BenchError

    found = []
    for text in dict.fromkeys(stores or _STORES):
        scheme, colon, folder = text.partition(":")
        known = plugins.names(plugins.STORES)
        if scheme not in known or (colon and not Path(folder).is_dir()):
            raise BenchError(
                f"expected a store of {', '.join(known)}, with :FOLDER if you like, found {text!r}"
            )
        found.append(StoreKind(scheme, Path(folder) if colon else None))
    return found


def _lines(run: dict[str, Any]) -> list[str]:
    from rsicd_embed.reports.record import table

    rows = [["", "images/s", "95%", "of model alone", "of slower alone", "of sum", "limited by"]]
    for name, one in run["candidates"].items():
        compared = run["ingests"].get(name)
        parts = ("of_model_alone", "of_slower_alone", "of_sum")
        shown = [f"{compared[part]['ratio']:.1%}" if compared else "" for part in parts]
        interval = "{:.1f}–{:.1f}".format(*one["per_s_interval"])
        limit = compared["limited_by"] if compared else ""
        rows.append([name, f"{one['per_s']:.1f}", interval, *shown, limit])
    lines = table(rows)
    for name, one in run["ingests"].items():
        busy = ", ".join(f"{stage} {seconds:.3g} s" for stage, seconds in one["stages_s"].items())
        lines.append(f"{name}: busy {busy}")
    if run["memory"]:
        peaks = [["images", "loaded MB", "ingest peak MB", "peak MB", "seconds"]]
        for one in run["memory"]:
            megabytes = [f"{one[key] / 1e6:.0f}" for key in _MEMORY]
            peaks.append([str(one["images"]), *megabytes, f"{one['seconds']:.1f}"])
        lines += table(peaks)
    return lines
