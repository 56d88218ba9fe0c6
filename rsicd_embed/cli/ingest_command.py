"""`rsicd-embed ingest`: images → vectors in a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import (
    embedding_options,
    note,
    print_json,
    report_source,
    show,
    store_option,
    tell_skipped,
)
from rsicd_embed.errors import ImageError
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.embedder.clip.backends.base import Backend, Precision
    from rsicd_embed.indexing import Summary


@click.command()
@embedding_options
@store_option
@click.option(
    "--prune", is_flag=True, help="Remove rows of these sources whose image has vanished."
)
@click.option("--profile", is_flag=True, help="Say how long each stage took, and which limits.")
def ingest(
    sources: tuple[Path, ...],
    store_uri: str,
    model: str | None,
    split: str | None,
    column_types: dict[str, str],
    strict: bool,
    prune: bool,
    profile: bool,
    batch_size: int,
    precision: Precision | None,
    backend: Backend | None,
    as_json: bool,
) -> None:
    """Embed images into a store.

    A SOURCE is a folder, an image, a JSONL/CSV/Parquet manifest, or a folder with a dataset_*.json
    (RSICD, UCM, Sydney). Images that are in the store already are not embedded again, so an
    interrupted run goes on where it stopped.

    Or it is a Parquet file that export or embed wrote: its vectors are taken as they are, without
    the model.
    """
    share_one_heap()
    import rsicd_embed
    from rsicd_embed import indexing
    from rsicd_embed.cli.imports import import_rows, row_files
    from rsicd_embed.cli.progress import image_progress

    files = row_files(sources)
    if files:
        if prune:
            raise click.UsageError("--prune looks for images; files of rows have none")
        if column_types:
            raise click.UsageError("--column-type is for manifests; files of rows have types")
        summary, rows = import_rows(files, store_uri, model, split, strict=strict)
        _tell(summary, rows, store_uri, "rows", as_json=as_json, profile=profile)
        return
    opened = rsicd_embed.open_sources(
        sources, split=split, allow_empty=prune, column_types=column_types
    )
    embedder = rsicd_embed.load_embedder(
        model, batch_size=batch_size, precision=precision, backend=backend
    )
    with rsicd_embed.open_store(store_uri, embedder=embedder) as store:
        total = sum(len(source.examples) for source in opened)
        with image_progress("ingest", total) as advance:
            summary = indexing.ingest(
                opened,
                embedder,
                store,
                strict=strict,
                prune=prune,
                column_types=column_types,
                progress=advance,
            )
        rows = len(store)
    _tell(summary, rows, store_uri, "images", as_json=as_json, profile=profile)


def _tell(
    summary: Summary, rows: int, store_uri: str, unit: str, *, as_json: bool, profile: bool
) -> None:
    from rsicd_embed.images import STRETCH_RULE

    if unit == "rows":
        counts, done = f"{summary.imported} imported", summary.imported
    else:
        counts, done = f"{summary.embedded} embedded, {summary.updated} updated", summary.embedded
    if as_json:
        print_json(summary.as_json())
    else:
        rate = done / summary.seconds if summary.seconds else 0.0
        show(
            f"{counts}, {summary.unchanged} unchanged, {summary.removed} removed, "
            f"{len(summary.skipped)} skipped in {summary.seconds:.1f} s "
            f"({rate:.1f} {unit}/s); {rows} rows in {store_uri}"
        )
    if summary.stretched:
        note(f"images scaled to 8 bits: {summary.stretched}; {STRETCH_RULE}")
    if profile:
        for line in _profile(summary, done, unit):
            note(line)
    if summary.displaced:
        first = summary.displaced[0]
        note(
            f"warning: {len(summary.displaced)} images took the rows of others that have the same "
            f"ids: {first.by} that of {first.uri}; ingest their common folder to have both"
        )
    tell_skipped(summary.skipped)
    report_source(summary.unread, summary.notes)
    if summary.skipped and not rows:
        raise ImageError(f"expected images, found none that can be read; {store_uri} has no rows")


def _profile(summary: Summary, done: int, unit: str) -> list[str]:
    from rsicd_embed.indexing.stages import elapsed_s

    alone = elapsed_s(summary.stages)
    slowest = max(alone, key=lambda name: alone[name])
    lines = [f"{name:<7} {seconds:8.2f} s busy" for name, seconds in summary.stages.items()]
    rate = done / alone[slowest] if alone[slowest] else 0.0
    share = alone[slowest] / summary.seconds if summary.seconds else 0.0
    lines.append(
        f"limited by {slowest}: {alone[slowest]:.2f} s of {summary.seconds:.2f} s ({share:.0%}), "
        f"{rate:.1f} {unit}/s alone"
    )
    return lines
