"""`rsicd-embed caption`: a sentence for each image, or for each row of a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.captioning.caption_config import METHODS
from rsicd_embed.cli.base import F, json_option, model_option, print_json, show

if TYPE_CHECKING:
    from rsicd_embed.captioning.caption_config import Decoding

captioner_option = click.option(
    "--captioner", metavar="DIR", help="Folder that `train caption` wrote.  [default: bundled]"
)


def decoding_options(command: F) -> F:
    """Adds the options of `Decoding` except the random seed."""
    options: list[Callable[[F], F]] = [
        click.option(
            "--max-words",
            type=click.IntRange(1),
            help="Maximum words in a caption.  [default: 24, or as many as the captioner allows]",
        ),
        click.option(
            "--temperature",
            default=1.0,
            show_default=True,
            help="Temperature of nucleus sampling; lower values prefer likely words.",
        ),
        click.option(
            "--top-p",
            default=0.9,
            show_default=True,
            help="Total probability of the words that nucleus sampling considers.",
        ),
        click.option(
            "--beams",
            default=5,
            show_default=True,
            type=click.IntRange(1, 64),
            help="Number of captions that beam search extends in parallel.",
        ),
        click.option(
            "--decoding",
            "method",
            type=click.Choice(METHODS),
            default="beam",
            show_default=True,
            help="beam: the best captions; greedy: several times as fast; nucleus: random.",
        ),
    ]
    for option in options:
        command = option(command)
    return command


def decoding_of(options: dict[str, Any]) -> Decoding:
    """The `Decoding` of the options' values."""
    from rsicd_embed.captioning.caption_config import Decoding

    return Decoding(**options)


@click.command()
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--store", "store_uri", metavar="URI", help="Caption all rows of a store, from their vectors."
)
@click.option(
    "--column", default="caption_auto", show_default=True, help="Column of the store to write."
)
@click.option("--where", metavar="SQL", help="Only rows that match this SQL condition.")
@click.option("--overwrite", is_flag=True, help="Replace existing captions.")
@captioner_option
@decoding_options
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Random seed of nucleus sampling.",
)
@model_option("the model of the captioner")
@json_option
def caption(
    images: tuple[Path, ...],
    store_uri: str | None,
    column: str,
    where: str | None,
    overwrite: bool,
    captioner: str | None,
    model: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a caption for each IMAGE, or for each row of a store.

    In a store, the columns are COLUMN and COLUMN_log_probability, the mean log-probability of a
    caption's words: the higher, the more certain the captioner. Rows that have a caption keep it,
    so an interrupted run continues where it stopped.
    """
    if bool(images) == (store_uri is not None):
        raise click.UsageError("expected either IMAGES or --store URI")
    decoding = decoding_of(options)
    if store_uri is not None:
        if model is not None:
            raise click.UsageError("expected IMAGES with --model, found --store")
        _caption_store(store_uri, captioner, decoding, column, where, overwrite, as_json)
        return
    if where is not None or overwrite:
        raise click.UsageError("expected --store with --where and --overwrite, found IMAGES")
    _caption_images(images, captioner, decoding, model, as_json)


def _caption_images(
    images: tuple[Path, ...],
    captioner: str | None,
    decoding: Decoding,
    model: str | None,
    as_json: bool,
) -> None:
    from rsicd_embed.captioning.loading_captioner import load_captioner
    from rsicd_embed.curation.caption_column import require_captioner_of
    from rsicd_embed.embedder.base import provenance
    from rsicd_embed.embedder.loading import load_for_a_query

    writer = load_captioner(captioner)
    embedder = load_for_a_query(model or writer.made_by.model)
    require_captioner_of(provenance(embedder), writer, f"model {embedder.name}")
    generated = writer.caption_vectors(embedder.embed_images(images), decoding)
    rows = list(zip(images, generated.texts, generated.log_probabilities.tolist(), strict=True))
    if as_json:
        print_json(
            {
                "captions": [
                    {"uri": str(path), "caption": text, "log_probability": likely}
                    for path, text, likely in rows
                ],
                "captioner": writer.name,
                "model": embedder.name,
            }
        )
        return
    for path, text, likely in rows:
        show(f"{likely:+.2f}  {text}", uri=str(path))


def _caption_store(
    store_uri: str,
    captioner: str | None,
    decoding: Decoding,
    column: str,
    where: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    import rsicd_embed
    from rsicd_embed.captioning.loading_captioner import load_captioner
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.curation.caption_column import caption_store

    with rsicd_embed.open_store(store_uri) as store:
        writer = load_captioner(captioner)
        with image_progress("caption", len(store), "rows") as advance:
            result = caption_store(
                store,
                writer,
                column=column,
                decoding=decoding,
                where=where,
                overwrite=overwrite,
                progress=advance,
            )
    if as_json:
        print_json(
            {"captioned": result.captioned, "kept": result.kept, "column": result.column}
            | {"captioner": writer.name, "model": writer.made_by.model}
        )
        return
    kept = f"; {result.kept} rows kept theirs" if result.kept else ""
    show(f"captioned {result.captioned} rows in column {result.column}{kept}")
