"""`rsicd-embed bench serve`: searches over HTTP, batched and one by one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from rsicd_embed.cli.base import backend_option, model_option
from rsicd_embed.cli.bench.base import Recorded, command_line, finish, record_options

NAME = "bench-serve"


@click.command(cls=Recorded)
@model_option("the bundled model")
@backend_option
@click.option(
    "--rows", default=10_000, show_default=True, type=click.IntRange(1), help="Of the store."
)
@click.option("--scheme", default="exact", show_default=True, help="Kind of store.")
@click.option(
    "--clients",
    default=32,
    show_default=True,
    type=click.IntRange(2),
    help="In the figure of many.",
)
@record_options
@click.pass_context
def serve(
    context: click.Context,
    model: str | None,
    backend: str | None,
    rows: int,
    scheme: str,
    clients: int,
    rounds: int,
    seed: int,
    output: Path,
    as_json: bool,
) -> None:
    """Time text searches over HTTP: with one client and with many, batched and one by one.

    Two servers of one store of random vectors run, one of which answers each search by itself. The
    clients are on this machine too, and take their part of it.
    """
    from rsicd_embed import plugins
    from rsicd_embed.bench import serve_rates as bench
    from rsicd_embed.cli.progress import status_printer
    from rsicd_embed.embedder.base import provenance
    from rsicd_embed.embedder.loading import load_for_a_query
    from rsicd_embed.errors import BenchError
    from rsicd_embed.reports import record
    from rsicd_embed.reports.timing import TimingPlan

    known = plugins.names(plugins.STORES)
    if scheme not in known:
        raise BenchError(f"expected a store of {', '.join(known)}, found {scheme!r}")
    record.claim(output)
    run = record.document(
        "serve",
        {"model": model or "bundled", "rows": rows, "scheme": scheme, "clients": clients}
        | {"rounds": rounds, "seed": seed},
        command=command_line(context),
    )
    words = ("--backend", backend) if backend else ()
    with tempfile.TemporaryDirectory(prefix="rsicd-embed-") as folder:
        store = f"{scheme}:{folder}/store"
        bench.fill(store, rows, provenance(load_for_a_query(model)), seed)
        settings = bench.ServeSettings(clients=clients, words=words)
        run |= bench.run(store, settings, TimingPlan(rounds, seed), progress=status_printer())
    finish(output, NAME, run, _lines, as_json=as_json)


def _lines(run: dict[str, Any]) -> list[str]:
    from rsicd_embed.reports.record import table

    rows = [("", "searches/s", "95%", "best")]
    for name, one in run["candidates"].items():
        interval = "{:.0f}–{:.0f}".format(*one["per_s_interval"])
        rows.append((name, f"{one['per_s']:.0f}", interval, f"{one['per_s_best']:.0f}"))
    lines = table(rows)
    for one in run["ratios"]:
        interval = "{:.2f}–{:.2f}".format(*one["interval"])
        lines.append(f"{one['of']}: {one['ratio']:.2f} ({interval}) times {one['to']}")
    for how, one in run["latency_ms"].items():
        lines.append(
            f"one client, {how}: p50 {one['p50']} ms, p90 {one['p90']} ms, p99 {one['p99']} ms; "
            f"{run['cpu_ms_per_search'][how]} ms of processor a search with many; "
            f"first answer {run['start_s'][how]} s after the start"
        )
    return lines
