"""Commands that fill a store: `rsicd-embed ingest`, `import` and `reembed`."""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import (
    backend_option,
    batch_size_option,
    embedding_options,
    json_option,
    model_option,
    note,
    precision_option,
    print_json,
    report_skipped,
    show,
    store_option,
)
from rsicd_embed.cli.ingest_report import report_summary
from rsicd_embed.cli.terminal_text import counted
from rsicd_embed.errors import ImageError
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.datasets.scenes import Tiling
    from rsicd_embed.datasets.stac_sources import StacSelection
    from rsicd_embed.embedder.clip.backends import Backend, Precision
    from rsicd_embed.indexing import Summary
    from rsicd_embed.indexing.foreign_files import VectorLayout
    from rsicd_embed.indexing.image_workers import ImageWorkers
    from rsicd_embed.indexing.import_rows import Phase

profile_option = click.option(
    "--profile", is_flag=True, help="Print the time of each stage, and the slowest stage."
)


@click.command()
@embedding_options
@store_option
@click.option(
    "--prune", is_flag=True, help="Remove rows of these sources whose image no longer exists."
)
@profile_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Embed in this process, or by the workers of a Ray cluster.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Ray cluster; auto finds the one on this machine.  [default: RAY_ADDRESS, else this "
    "machine alone]",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Number of Ray workers.  [default: one per accelerator or, without any, per machine]",
)
def ingest(
    sources: tuple[str | Path, ...],
    store_uri: str,
    model: str | None,
    split: str | None,
    column_types: dict[str, str],
    tiling: Tiling | None,
    stac: StacSelection | None,
    strict: bool,
    prune: bool,
    profile: bool,
    engine: str,
    address: str | None,
    workers: int | None,
    batch_size: int,
    precision: Precision | None,
    backend: Backend | None,
    as_json: bool,
) -> None:
    """Embed images into a store.

    A SOURCE is a folder, an image, a JSONL/CSV/Parquet manifest, a folder with a dataset_*.json
    (RSICD, UCM, Sydney), a WebDataset tar, a Parquet file with images, or a STAC item, collection,
    catalogue or API search, whose --asset is embedded; on this machine or at s3://, gs://, az:// or
    http(s)://. With --tile, --bands or --stretch, its images are georeferenced scenes that are cut
    into tiles, one row per tile. Images that are already in the store are not embedded again, so an
    interrupted run continues where it stopped.

    To store vectors that export or embed wrote to a file, use import.
    """
    share_one_heap()
    import rsicd_embed
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.indexing.image_workers import LocalWorkers
    from rsicd_embed.indexing.ingest import ingest_with
    from rsicd_embed.indexing.ray_workers import RayWorkers
    from rsicd_embed.stores.base import open_store

    if engine == "local" and (address or workers):
        raise click.UsageError("--address and --workers need --engine ray")
    _refuse_row_files(sources, store_uri)
    opened = rsicd_embed.open_sources(
        sources,
        split=split,
        allow_empty=prune,
        column_types=column_types,
        tiling=tiling,
        stac=stac,
    )
    load = partial(
        rsicd_embed.load_embedder,
        model,
        batch_size=batch_size,
        precision=precision,
        backend=backend,
    )
    with ExitStack() as stack:
        images: ImageWorkers
        if engine == "ray":
            # Ray prints what its workers complain of there.
            stack.enter_context(redirect_stdout(sys.stderr))
            images = stack.enter_context(RayWorkers(load, address=address, count=workers))
        else:
            images = LocalWorkers(load())
        store = stack.enter_context(open_store(store_uri, images.provenance))
        total = sum(len(source.examples) for source in opened)
        advance = stack.enter_context(image_progress("ingest", total))
        summary = ingest_with(
            opened,
            images,
            store,
            strict=strict,
            prune=prune,
            column_types=column_types,
            progress=advance,
        )
        rows = len(store)
    report_summary(summary, rows, store_uri, "images", as_json=as_json, profile=profile)
    if summary.skipped and not rows:
        raise ImageError(f"expected images, found none that can be read; {store_uri} has no rows")


def _refuse_row_files(sources: tuple[str | Path, ...], store_uri: str) -> None:
    """Raises a UsageError that names `import` if a source already contains vectors."""
    from rsicd_embed.rowfile import RowFile

    local = (source for source in sources if isinstance(source, Path))
    row_files = [source for source in local if RowFile.open(source)]
    if not row_files:
        return
    others = [source for source in sources if source not in row_files]
    contrast = f"{others[0]} does not" if others else "which need no model"
    raise click.UsageError(
        f"{row_files[0]} contains vectors, {contrast}: "
        f"import it with rsicd-embed import {row_files[0]} --store {store_uri}"
    )


@click.command("import")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@store_option
@model_option("any model")
@click.option(
    "--preset",
    type=click.Choice(["major-tom", "earth-embeddings", "clay"]),
    help="Column names of a published dataset of embeddings.",
)
@click.option(
    "--vector-column",
    metavar="NAME",
    help="Column of vectors, in files that rsicd-embed did not write.",
)
@click.option(
    "--id-column",
    "id_columns",
    metavar="NAME",
    multiple=True,
    help="Column of ids; several are joined; repeatable.",
)
@click.option(
    "--map", "columns", metavar="NEW=OLD", multiple=True, help="Rename a column; repeatable."
)
@click.option("--split", help="Use only rows of this split.  [default: all rows]")
@click.option("--strict", is_flag=True, help="Fail if a file contains an id twice.")
@profile_option
@json_option
def import_(
    files: tuple[Path, ...],
    store_uri: str,
    model: str | None,
    preset: str | None,
    vector_column: str | None,
    id_columns: tuple[str, ...],
    columns: tuple[str, ...],
    split: str | None,
    strict: bool,
    profile: bool,
    as_json: bool,
) -> None:
    """Import rows with their vectors into a store.

    A FILE is a Parquet file that export or embed wrote, or a folder of the parts that embed --shard
    wrote. Vectors are copied unchanged, without the model, and are refused if the store contains
    vectors of another model. Rows that the store already has are skipped, so an interrupted import
    continues where it stopped.

    With --vector-column or --preset, a FILE is any other Parquet or GeoParquet file with vectors of
    the model named by --model. They are normalised, and the model is recorded as declared.
    """
    share_one_heap()
    import rsicd_embed
    from rsicd_embed.cli.progress import image_progress

    phase = partial(image_progress, unit="rows")
    if preset or vector_column or id_columns or columns:
        if model is None or split or strict:
            raise click.UsageError(
                "expected --model with the columns of other people's vectors, without --split "
                "and --strict"
            )
        layout = _layout(preset, vector_column, id_columns, columns)
        summary = _import_vectors(files, store_uri, model, layout, phase)
    else:
        if model:
            _require_model(files, model)
        summary = rsicd_embed.import_rows(files, store_uri, split=split, strict=strict, phase=phase)
    with rsicd_embed.open_store(store_uri) as store:
        rows = len(store)
    report_summary(summary, rows, store_uri, "rows", as_json=as_json, profile=profile)


def _layout(
    preset: str | None,
    vector_column: str | None,
    id_columns: tuple[str, ...],
    columns: tuple[str, ...],
) -> VectorLayout:
    from rsicd_embed.indexing.foreign_files import VectorLayout
    from rsicd_embed.indexing.import_vectors import PRESETS

    pairs = [text.partition("=") for text in columns]
    if wrong := next(
        (text for text, (_, _, old) in zip(columns, pairs, strict=True) if not old), 0
    ):
        raise click.UsageError(f"expected --map NEW=OLD, found {wrong!r}")
    base = PRESETS[preset] if preset else VectorLayout()
    return VectorLayout(
        vector_column or base.vector,
        id_columns or base.ids,
        {**base.columns, **{new: old for new, _, old in pairs}},
    )


def _import_vectors(
    files: tuple[Path, ...], store_uri: str, model: str, layout: VectorLayout, phase: Phase
) -> Summary:
    """Imports vectors from other sources, and checks the model if it can be loaded."""
    from rsicd_embed.embedder.loading import load_for_a_query
    from rsicd_embed.errors import ModelError
    from rsicd_embed.indexing.import_vectors import import_vectors

    try:
        embedder = load_for_a_query(model)
    except ModelError as error:
        embedder = None
        note(f"the declared model is not checked, as it cannot be loaded here: {error}")
    return import_vectors(files, store_uri, model, layout, embedder=embedder, phase=phase)


def _require_model(files: tuple[Path, ...], model: str) -> None:
    """Raises a FingerprintError if the vectors of a file are not from `model`."""
    from rsicd_embed.embedder.base import provenance
    from rsicd_embed.embedder.loading import load_for_a_query
    from rsicd_embed.indexing.import_rows import open_files, require_fit

    row_files = open_files(files)
    made_by = provenance(load_for_a_query(model))
    for row_file in row_files:
        require_fit(row_file, made_by, f"--model {model}")


@click.command()
@store_option
@model_option(None, required=True)
@click.option("--drop-unreadable", is_flag=True, help="Delete rows whose image is unreadable.")
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
    """Embed a store's images again with another model.

    Images are read from the paths in the store. Searches use the old vectors until all new ones are
    written; then the store switches in one step. An interrupted run continues where it stopped.
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
                show(f"{store_uri} already contains vectors of this model")
            return
        folder = indexing.staging_folder(store_uri, embedder)
        with (
            rsicd_embed.open_store(f"exact:{folder}", embedder=embedder) as staging,
            image_progress("reembed", len(store)) as advance,
        ):
            result = indexing.reembed(
                store, embedder, staging, drop_unreadable=drop_unreadable, progress=advance
            )
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        print_json(result.as_json())
    else:
        show(
            f"{store_uri} ({counted(result.rows, 'row')}) now uses model {embedder.name}; "
            f"to go back: rsicd-embed store restore {result.tag} --store {store_uri}"
        )
    report_skipped(result.ingest.skipped)
