"""The `rsicd-embed` command. Heavy imports are inside the commands, so that `--help` is fast."""

from __future__ import annotations

import click

from rsicd_embed.cli.augment_captions_command import augment_captions
from rsicd_embed.cli.base import Group
from rsicd_embed.cli.bench import bench
from rsicd_embed.cli.caption_command import caption
from rsicd_embed.cli.embed_command import embed
from rsicd_embed.cli.eval import evaluation
from rsicd_embed.cli.export_command import export
from rsicd_embed.cli.find_command import find
from rsicd_embed.cli.ingest_command import import_, ingest, reembed
from rsicd_embed.cli.label_command import duplicates, label
from rsicd_embed.cli.mcp_command import mcp
from rsicd_embed.cli.models_command import models
from rsicd_embed.cli.search_command import search
from rsicd_embed.cli.serve_command import serve
from rsicd_embed.cli.sql_command import sql
from rsicd_embed.cli.store_command import info, store
from rsicd_embed.cli.train.train_command import train


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rsicd-embed")
def main() -> None:
    """Search satellite imagery in plain words."""


for command in (
    ingest,
    embed,
    search,
    find,
    label,
    caption,
    duplicates,
    serve,
    mcp,
    sql,
    info,
    export,
    import_,
    store,
    reembed,
    models,
    train,
    augment_captions,
    evaluation,
    bench,
):
    main.add_command(command)
