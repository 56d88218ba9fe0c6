"""`rsicd-embed import`: files of rows with their vectors → a store."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from rsicd_embed.cli.base import json_option, model_option, store_option
from rsicd_embed.cli.ingest_summary import profile_option, report
from rsicd_embed.parallel import share_one_heap


@click.command("import")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@store_option
@model_option("any model")
@click.option("--split", help="Only rows whose split is this one.")
@click.option("--strict", is_flag=True, help="Fail if a file has the same id twice.")
@profile_option
@json_option
def import_(
    files: tuple[Path, ...],
    store_uri: str,
    model: str | None,
    split: str | None,
    strict: bool,
    profile: bool,
    as_json: bool,
) -> None:
    """Import rows with their vectors into a store.

    A FILE is a Parquet file that export or embed wrote. Its vectors are stored bit by bit, without
    the model, and never beside those of another model. Rows that the store already has are left as
    they are, so an interrupted import continues where it stopped.
    """
    share_one_heap()
    import rsicd_embed
    from rsicd_embed.cli.progress import image_progress

    if model:
        _require_model(files, model)
    summary = rsicd_embed.import_rows(
        files, store_uri, split=split, strict=strict, phase=partial(image_progress, unit="rows")
    )
    with rsicd_embed.open_store(store_uri) as store:
        rows = len(store)
    report(summary, rows, store_uri, "rows", as_json=as_json, profile=profile)


def _require_model(files: tuple[Path, ...], model: str) -> None:
    """Refuses files whose vectors another model made; FingerprintError."""
    from rsicd_embed.embedder.base import provenance
    from rsicd_embed.embedder.loading import load_for_a_query
    from rsicd_embed.indexing.import_rows import open_files, require_fit

    opened = open_files(files)
    made_by = provenance(load_for_a_query(model))
    for file in opened:
        require_fit(file, made_by, f"--model {model}")
