"""`rsicd-embed reembed`: a store's images with another model, switched over in one step."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import (
    backend_option,
    batch_size_option,
    json_option,
    precision_option,
    print_json,
    show,
    store_option,
    tell_skipped,
)
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.embedder.clip.backends import Backend, Precision


@click.command()
@store_option
@click.option("--model", required=True, metavar="MODEL", help="The new model.")
@click.option(
    "--drop-unreadable", is_flag=True, help="Lose the rows whose image cannot be read any more."
)
@batch_size_option
@precision_option
@backend_option
@json_option
def reembed(
    store_uri: str,
    model: str,
    drop_unreadable: bool,
    batch_size: int,
    precision: Precision | None,
    backend: Backend | None,
    as_json: bool,
) -> None:
    """Embed a store's images again, with another model.

    Images are read from where they were when they were ingested. Searches see the old vectors
    until all new ones are there. An interrupted run goes on where it stopped.
    """
    share_one_heap()
    import rsicd_embed
    from rsicd_embed import indexing
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.stores.base import require_versioned

    with rsicd_embed.open_store(store_uri) as opened:
        store = require_versioned(opened)
        embedder = rsicd_embed.load_embedder(
            model, batch_size=batch_size, precision=precision, backend=backend
        )
        if embedder.fingerprint == store.provenance.fingerprint:
            if as_json:
                print_json({"rows": len(store), "tag": None, **indexing.Summary().as_json()})
            else:
                show(f"{store_uri} holds vectors of this model already")
            return
        folder = indexing.staging_folder(store_uri, embedder)
        with (
            rsicd_embed.open_store(f"exact:{folder}", embedder=embedder) as staging,
            image_progress("reembed", len(store)) as advance,
        ):
            done = indexing.reembed(
                store, embedder, staging, drop_unreadable=drop_unreadable, progress=advance
            )
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        print_json(done.as_json())
    else:
        show(
            f"{done.rows} rows of {store_uri} are now of model {embedder.name}; "
            f"to go back: rsicd-embed store restore {done.tag} --store {store_uri}"
        )
    tell_skipped(done.ingest.skipped)
