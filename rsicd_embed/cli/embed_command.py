"""`rsicd-embed embed`: the vectors of images as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import (
    embedding_options,
    print_json,
    report_skipped,
    report_source,
    show,
)
from rsicd_embed.cli.terminal_text import counted
from rsicd_embed.parallel import share_one_heap

if TYPE_CHECKING:
    from rsicd_embed.datasets.scenes import Tiling
    from rsicd_embed.datasets.stac_sources import StacSelection
    from rsicd_embed.embedder.clip.backends import Backend, Precision

SUFFIXES = (".parquet", ".npy")


@click.command()
@embedding_options
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write: .parquet for ids, vectors and attributes, or .npy for a matrix; with "
    "--shard, a folder.",
)
@click.option(
    "--shard",
    "shard_text",
    metavar="I/N",
    help="Embed only shard I of N, numbered from 0, and write it as a part to the folder OUTPUT.",
)
def embed(
    sources: tuple[str | Path, ...],
    output: Path,
    shard_text: str | None,
    model: str | None,
    split: str | None,
    column_types: dict[str, str],
    tiling: Tiling | None,
    stac: StacSelection | None,
    strict: bool,
    batch_size: int,
    precision: Precision | None,
    backend: Backend | None,
    as_json: bool,
) -> None:
    """Embed images into a file.

    Sources are the same as for ingest. Rows are in the order of the sources; unreadable images are
    left out. OUT.npy comes with OUT.ids.json, which lists the ids of its rows.

    With --shard, N processes or machines share the images: each writes its part into one folder,
    which import reads. An interrupted shard continues where it stopped.
    """
    if shard_text is None and (output.suffix not in SUFFIXES or output.is_dir()):
        raise click.UsageError(
            f"expected an output named *{' or *'.join(SUFFIXES)}, found {output}"
        )
    if shard_text is not None and output.is_file():
        raise click.UsageError(
            f"expected a folder for the parts of --shard, found the file {output}"
        )
    share_one_heap()
    import rsicd_embed
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.indexing.export_rows import write_vectors
    from rsicd_embed.indexing.shards import Shard, write_shard

    shard = None if shard_text is None else Shard.parse(shard_text)
    opened = rsicd_embed.open_sources(
        sources, split=split, column_types=column_types, tiling=tiling, stac=stac
    )
    embedder = rsicd_embed.load_embedder(
        model, batch_size=batch_size, precision=precision, backend=backend
    )
    parts = opened if shard is None else shard.select(opened)
    with image_progress("embed", sum(len(source.examples) for source in parts)) as advance:
        if shard is None:
            summary = write_vectors(
                opened, embedder, output, strict=strict, column_types=column_types, progress=advance
            )
        else:
            summary = write_shard(
                opened,
                embedder,
                output,
                shard,
                strict=strict,
                column_types=column_types,
                progress=advance,
            )
            output = output / f"{shard.name}.parquet"
    if as_json:
        print_json(summary.as_json())
    else:
        kept = f"{summary.unchanged} unchanged, " if summary.unchanged else ""
        show(
            f"{counted(summary.embedded, 'vector')} of length {embedder.dim} in {output}, {kept}"
            f"{len(summary.skipped)} skipped, in {summary.seconds:.1f} s "
            f"({summary.images_per_s:.1f} images/s)"
        )
    report_skipped(summary.skipped)
    report_source(summary.unread, summary.notes)
