"""`rsicd-embed embed`: images → vectors in a file, for people who bring their own store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import (
    embedding_options,
    print_json,
    report_source,
    show,
    tell_skipped,
)
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.embedder.clip.backends import Backend, Precision

SUFFIXES = (".parquet", ".npy")


@click.command()
@embedding_options
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .parquet file with ids, vectors and attributes; or a .npy matrix, with ids beside it.",
)
def embed(
    sources: tuple[Path, ...],
    output: Path,
    model: str | None,
    split: str | None,
    column_types: dict[str, str],
    strict: bool,
    batch_size: int,
    precision: Precision | None,
    backend: Backend | None,
    as_json: bool,
) -> None:
    """Embed images into a file.

    A SOURCE is what `ingest` takes. Rows are in the order of the sources, without the images that
    cannot be read. Beside OUT.npy, OUT.ids.json lists the ids of its rows.
    """
    if output.suffix not in SUFFIXES:
        raise click.UsageError(f"expected an output named *{' or *'.join(SUFFIXES)}: {output}")
    share_one_heap()
    import rsicd_embed
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.indexing.export_rows import write_vectors

    opened = rsicd_embed.open_sources(sources, split=split, column_types=column_types)
    embedder = rsicd_embed.load_embedder(
        model, batch_size=batch_size, precision=precision, backend=backend
    )
    with image_progress("embed", sum(len(source.examples) for source in opened)) as advance:
        summary = write_vectors(
            opened, embedder, output, strict=strict, column_types=column_types, progress=advance
        )
    if as_json:
        print_json(summary.as_json())
    else:
        show(
            f"{summary.embedded} vectors of length {embedder.dim} in {output}, "
            f"{len(summary.skipped)} skipped, in {summary.seconds:.1f} s "
            f"({summary.images_per_s:.1f} images/s)"
        )
    tell_skipped(summary.skipped)
    report_source(summary.unread, summary.notes)
