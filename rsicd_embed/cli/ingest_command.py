"""`rsicd-embed ingest`: images → vectors in a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import embedding_options, store_option
from rsicd_embed.cli.ingest_summary import profile_option, report
from rsicd_embed.errors import ImageError
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.embedder.clip.backends import Backend, Precision


@click.command()
@embedding_options
@store_option
@click.option(
    "--prune", is_flag=True, help="Remove rows of these sources whose image has vanished."
)
@profile_option
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

    Vectors that export or embed wrote to a file go into a store with import.
    """
    share_one_heap()
    import rsicd_embed
    from rsicd_embed.cli.progress import image_progress

    _refuse_row_files(sources, store_uri)
    opened = rsicd_embed.open_sources(
        sources, split=split, allow_empty=prune, column_types=column_types
    )
    embedder = rsicd_embed.load_embedder(
        model, batch_size=batch_size, precision=precision, backend=backend
    )
    with rsicd_embed.open_store(store_uri, embedder=embedder) as store:
        total = sum(len(source.examples) for source in opened)
        with image_progress("ingest", total) as advance:
            summary = rsicd_embed.ingest(
                opened,
                embedder,
                store,
                strict=strict,
                prune=prune,
                column_types=column_types,
                progress=advance,
            )
        rows = len(store)
    report(summary, rows, store_uri, "images", as_json=as_json, profile=profile)
    if summary.skipped and not rows:
        raise ImageError(f"expected images, found none that can be read; {store_uri} has no rows")


def _refuse_row_files(sources: tuple[Path, ...], store_uri: str) -> None:
    """Refuses files that hold vectors already; UsageError that names the command for them."""
    from rsicd_embed.rowfile import RowFile

    files = [source for source in sources if RowFile.open(source)]
    if not files:
        return
    others = [source for source in sources if source not in files]
    ingested = f"{others[0]} does not" if others else "which need no model"
    raise click.UsageError(
        f"{files[0]} holds vectors, {ingested}: "
        f"import it with rsicd-embed import {files[0]} --store {store_uri}"
    )
