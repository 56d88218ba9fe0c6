"""`rsicd-embed bench`: how fast, beside what else there is, on this machine."""

from __future__ import annotations

import click

from rsicd_embed.cli.base import Group
from rsicd_embed.cli.bench.ann import ann
from rsicd_embed.cli.bench.embed import embed
from rsicd_embed.cli.bench.ingest import ingest
from rsicd_embed.cli.bench.serve import serve


@click.group(cls=Group)
def bench() -> None:
    """Measure speed and memory; each run leaves a JSON record.

    Figures of two runs, or of two machines, are not to be compared: let one run measure all.
    """


for command in (ann, embed, ingest, serve):
    bench.add_command(command)
