"""`rsicd-embed bench ingest`: throughput from files to a store, and memory usage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from rsicd_embed.cli.base import count_option
from rsicd_embed.cli.bench.base import (
    counts,
    embedding_bench_options,
    finish,
    model_or_shape,
    variants,
)
from rsicd_embed.cli.record_output import Recorded, command_line
from rsicd_embed.files import temporary_folder

if TYPE_CHECKING:
    from rsicd_embed.bench.ingest_rates import StoreKind
    from rsicd_embed.reports.record_types import IngestMemory, IngestRecord

_STORES = ("exact", "lancedb")


def _sides(context: click.Context, option: click.Parameter, value: str) -> tuple[int, int]:
    """Parses `224-1000` into (224, 1000)."""
    sides = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", value)
    low, high = (int(sides[1]), int(sides[2])) if sides else (0, 0)
    if not 0 < low <= high:
        raise click.BadParameter(f"expected sides such as 224-1000, found {value!r}")
    return low, high


@click.command(cls=Recorded)
@click.argument("sources", nargs=-1, type=click.Path(path_type=Path))
@embedding_bench_options
@click.option("--backend", metavar="NAME[:PRECISION]", help="Backend of the model.")
@count_option(
    "--images", default=256, help="Number of JPEG files to generate if no SOURCE is given."
)
@click.option(
    "--sides",
    default="224-1000",
    show_default=True,
    metavar="LOW-HIGH",
    callback=_sides,
    help="Range of the sides of generated, square images, in pixels.",
)
@click.option(
    "--store",
    "stores",
    multiple=True,
    metavar="SCHEME[:FOLDER]",
    help="Kind of store, created anew in FOLDER for each sample; repeatable.  "
    f"[default: {' and '.join(_STORES)}, in a temporary folder]",
)
@click.option(
    "--memory-at",
    metavar="N,N,…",
    callback=counts,
    help="Also measure peak memory for ingesting these numbers of generated images into the first "
    "store.",
)
def ingest(
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
    """Time ingests, decoding alone and the model alone on the same images.

    SOURCE is as for `ingest`; without one, JPEG files are generated.
    """
    import rsicd_embed
    from rsicd_embed.bench import ingest_rates, synthetic_inputs
    from rsicd_embed.cli.progress import status_printer
    from rsicd_embed.reports import record
    from rsicd_embed.reports.machine import nvidia_gpus
    from rsicd_embed.reports.timing import TimingPlan

    kinds = _kinds(stores)
    record.claim(output)
    generated = {} if sources else {"sides": list(sides)}
    head = record.document(
        "ingest",
        {"model": model or shape or "bundled", "rounds": rounds, "seed": seed}
        | {"batch_size": batch_size, **generated},
        command=command_line(),
        accelerators=nvidia_gpus(),
    )
    tell = status_printer()
    memory: list[IngestMemory] = []
    with (
        model_or_shape(model, shape) as source,
        temporary_folder() as scratch,
    ):
        (variant,) = variants(source, batch_size, (backend,) if backend else (), precision)
        if not sources:
            tell(f"generating {images} images")
            synthetic_inputs.write_jpegs(scratch / "images", images, sides)
        opened = rsicd_embed.open_sources(sources or [scratch / "images"])
        embedder = variant()
        plan = TimingPlan(rounds, seed, least_s=0.0)
        results = ingest_rates.run(embedder, opened, kinds, plan, tell)
        for count in memory_at if results["complete"] else ():
            tell(f"peak memory for {count} images")
            with temporary_folder(parent=scratch) as folder:
                synthetic_inputs.write_jpegs(folder, count, sides)
                store = kinds[0]
                usage = ingest_rates.ingest_memory(variant, folder, store.scheme, store.parent)
            memory.append(usage)
    run = cast(
        "IngestRecord",
        {
            **head,
            "model": {"fingerprint": embedder.fingerprint, "dim": embedder.dim},
            "candidate": variant.name,
            **results,
            "memory": memory,
        },
    )
    finish(run, output, "bench-ingest", _lines, as_json=as_json)


def _kinds(stores: tuple[str, ...]) -> list[StoreKind]:
    from rsicd_embed import plugins
    from rsicd_embed.bench.ingest_rates import StoreKind
    from rsicd_embed.errors import BenchError

    kinds = []
    for text in dict.fromkeys(stores or _STORES):
        scheme, colon, folder = text.partition(":")
        known = plugins.names(plugins.STORES)
        if scheme not in known or (colon and not Path(folder).is_dir()):
            raise BenchError(
                f"expected a store of {', '.join(known)}, optionally with :FOLDER of an existing "
                f"folder, found {text!r}"
            )
        kinds.append(StoreKind(scheme, Path(folder) if colon else None))
    return kinds


def _lines(run: IngestRecord) -> list[str]:
    from rsicd_embed.reports.record import table

    rows = [["", "images/s", "95%", "of model alone", "of slower alone", "of sum", "limited by"]]
    for name, rate in run["candidates"].items():
        row = [name, f"{rate['per_s']:.1f}", "{:.1f}–{:.1f}".format(*rate["per_s_interval"])]
        shares = run["ingests"].get(name)
        if shares:
            ratios = (shares["of_model_alone"], shares["of_slower_alone"], shares["of_sum"])
            row += [*(f"{ratio['ratio']:.1%}" for ratio in ratios), shares["limited_by"]]
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    lines = table(rows)
    for name, shares in run["ingests"].items():
        busy = ", ".join(f"{stage} {s:.3g} s" for stage, s in shares["stages_s"].items())
        lines.append(f"{name}: busy {busy}")
    if run["memory"]:
        peaks = [["images", "loaded MB", "ingest peak MB", "peak MB", "seconds"]]
        for usage in run["memory"]:
            sizes = (usage["loaded_bytes"], usage["ingest_peak_bytes"], usage["peak_bytes"])
            megabytes = [f"{size / 1e6:.0f}" for size in sizes]
            peaks.append([str(usage["images"]), *megabytes, f"{usage['seconds']:.1f}"])
        lines += table(peaks)
    return lines
