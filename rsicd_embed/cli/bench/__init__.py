"""`rsicd-embed bench`: speed and memory usage on this machine, compared with references."""

from __future__ import annotations

import click

from rsicd_embed.cli.base import Group
from rsicd_embed.cli.bench.bench_ann import ann
from rsicd_embed.cli.bench.bench_embed import embed
from rsicd_embed.cli.bench.bench_ingest import ingest
from rsicd_embed.cli.bench.bench_records import compare, recommend, report
from rsicd_embed.cli.bench.bench_serve import serve


@click.group(cls=Group)
def bench() -> None:
    """Measure speed and memory usage; each run saves a JSON record and an HTML page.

    Results of different runs or machines are hardly comparable: measure everything in one run where
    possible.
    """


for command in (ann, embed, ingest, serve, report, compare, recommend):
    bench.add_command(command)
