"""`rsicd-embed bench report`: a page of plots from records that are there."""

from __future__ import annotations

from pathlib import Path

import click

from rsicd_embed.cli.base import show
from rsicd_embed.cli.bench.bench_compare import record_argument

NAME = "report.html"


@click.command()
@click.argument("records", nargs=-1, required=True, type=record_argument)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Folder of the page, {NAME}.",
)
def report(records: tuple[Path, ...], output: Path) -> None:
    """Make one page of the plots and tables of some records of `bench` and `eval`.

    The page is one file, which needs no network and no scripts. Every run writes its own beside its
    record; this is for several in one, and for records without.
    """
    from rsicd_embed.reports import write
    from rsicd_embed.reports.record import read

    runs = [read(one) for one in records]
    show(f"report: {write.save(output / NAME, runs)}")
