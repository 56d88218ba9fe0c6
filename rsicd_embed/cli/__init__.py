"""The `rsicd-embed` command. Heavy imports live inside the commands."""

from __future__ import annotations

import click

from rsicd_embed.cli.augment_captions import augment_captions
from rsicd_embed.cli.base import Group
from rsicd_embed.cli.bench import bench
from rsicd_embed.cli.embed import embed
from rsicd_embed.cli.eval import evaluation
from rsicd_embed.cli.export import export
from rsicd_embed.cli.find import find
from rsicd_embed.cli.info import info
from rsicd_embed.cli.ingest import ingest
from rsicd_embed.cli.reembed import reembed
from rsicd_embed.cli.search import search
from rsicd_embed.cli.serve import serve
from rsicd_embed.cli.sql import sql
from rsicd_embed.cli.store import store
from rsicd_embed.cli.train import train


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rsicd-embed")
def main() -> None:
    """Search satellite imagery in plain words."""


for command in (
    ingest,
    embed,
    search,
    find,
    serve,
    sql,
    info,
    export,
    store,
    reembed,
    train,
    augment_captions,
    evaluation,
    bench,
):
    main.add_command(command)
