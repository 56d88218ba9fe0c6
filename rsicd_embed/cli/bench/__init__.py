"""`rsicd-embed bench`: how fast, beside what else there is, on this machine."""

from __future__ import annotations

import click

from rsicd_embed.cli.base import Group
from rsicd_embed.cli.bench.bench_ann import ann
from rsicd_embed.cli.bench.bench_compare import compare
from rsicd_embed.cli.bench.bench_embed import embed
from rsicd_embed.cli.bench.bench_ingest import ingest
from rsicd_embed.cli.bench.bench_recommend import recommend
from rsicd_embed.cli.bench.bench_report import report
from rsicd_embed.cli.bench.bench_serve import serve


@click.group(cls=Group)
def bench() -> None:
    """Measure speed and memory; each run leaves a JSON record and a page of plots.

    Figures of two runs, or of two machines, are not to be compared without care: where one run can
    measure all, let it.
    """


for command in (ann, embed, ingest, serve, report, compare, recommend):
    bench.add_command(command)
