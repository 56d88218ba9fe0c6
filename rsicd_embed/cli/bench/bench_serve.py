"""`rsicd-embed bench serve`: searches over HTTP, batched and one by one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from rsicd_embed.cli.base import backend_option, count_option, model_option
from rsicd_embed.cli.bench.base import finish, record_options
from rsicd_embed.cli.record_output import Recorded, command_line
from rsicd_embed.files import temporary_folder

if TYPE_CHECKING:
    from rsicd_embed.reports.record_types import ServeRecord


@click.command(cls=Recorded)
@model_option("the bundled model")
@backend_option
@count_option("--rows", default=10_000, help="Rows of the store.")
@click.option("--scheme", default="exact", show_default=True, help="Kind of store.")
@count_option("--clients", default=32, least=2, help="Concurrent clients for the throughput.")
@count_option("--workers", default=1, help="Processes of each server.")
@record_options
def serve(
    model: str | None,
    backend: str | None,
    rows: int,
    scheme: str,
    clients: int,
    workers: int,
    rounds: int,
    seed: int,
    output: Path,
    as_json: bool,
) -> None:
    """Time text searches over HTTP, with one client and with many.

    Two servers of the same store of random vectors are compared: one batches concurrent searches,
    the other answers them one by one. The clients run on this machine too and use part of its CPUs.
    """
    from rsicd_embed import plugins
    from rsicd_embed.bench import serve_rates
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
    head = record.document(
        "serve",
        {"model": model or "bundled", "rows": rows, "scheme": scheme, "clients": clients}
        | {"workers": workers, "rounds": rounds, "seed": seed},
        command=command_line(),
    )
    options = ("--workers", str(workers), *(("--backend", backend) if backend else ()))
    with temporary_folder() as folder:
        store = f"{scheme}:{folder}/store"
        serve_rates.fill(store, rows, provenance(load_for_a_query(model)), seed)
        settings = serve_rates.ServeSettings(clients=clients, options=options)
        results = serve_rates.run(
            store, settings, TimingPlan(rounds, seed), progress=status_printer()
        )
    run = cast("ServeRecord", {**head, **results})
    finish(run, output, "bench-serve", _lines, as_json=as_json)


def _lines(run: ServeRecord) -> list[str]:
    from rsicd_embed.reports.record import table

    rows = [("", "searches/s", "95%", "best")]
    for name, rate in run["candidates"].items():
        interval = "{:.0f}–{:.0f}".format(*rate["per_s_interval"])
        rows.append((name, f"{rate['per_s']:.0f}", interval, f"{rate['per_s_best']:.0f}"))
    lines = table(rows)
    for ratio in run["ratios"]:
        interval = "{:.2f}–{:.2f}".format(*ratio["interval"])
        lines.append(f"{ratio['of']}: {ratio['ratio']:.2f} ({interval}) times {ratio['to']}")
    for server, latency in run["latency_ms"].items():
        lines.append(
            f"one client, {server}: p50 {latency['p50']} ms, p90 {latency['p90']} ms, "
            f"p99 {latency['p99']} ms; {run['cpu_ms_per_search'][server]} ms of CPU time per "
            f"search with many clients; first response after {run['start_s'][server]} s"
        )
    return lines
