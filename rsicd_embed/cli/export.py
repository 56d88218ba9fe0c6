"""`rsicd-embed export`: a store's rows → a file that any other store takes."""

from __future__ import annotations

from pathlib import Path

import click

from rsicd_embed.cli.base import as_of_option, json_option, note, print_json, show, store_option


@click.command()
@store_option
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .parquet file; one that an earlier export wrote is replaced.",
)
@click.option("--where", metavar="SQL", help="Only rows for which this predicate is true.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet"]),
    default="parquet",
    show_default=True,
    help="What to write.",
)
@as_of_option
@json_option
def export(
    store_uri: str, output: Path, where: str | None, kind: str, as_of: str | None, as_json: bool
) -> None:
    """Write the rows of a store, vectors and all, to a file.

    ingest takes the file into any other store, bit by bit and without the model; other programs
    read it as Parquet.
    """
    if output.suffix.lower() != f".{kind}":
        raise click.UsageError(f"expected an output named *.{kind}: {output}")
    import rsicd_embed
    from rsicd_embed.cli.models import state_of
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.indexing.export import export_rows

    with (
        rsicd_embed.open_store(store_uri) as newest,
        state_of(newest, as_of) as store,
        image_progress("export", len(store), "rows") as advance,
    ):
        done = export_rows(store, output, where=where, progress=advance)
        made_by = store.provenance
    rate = done.rows / done.seconds if done.seconds else 0.0
    if as_json:
        print_json(
            {
                "store": store_uri,
                "output": str(output),
                "model": made_by.model,
                "fingerprint": made_by.fingerprint,
                "dim": made_by.dim,
                "rows": done.rows,
                "bytes": done.bytes,
                "sha256": done.sha256,
                "seconds": round(done.seconds, 3),
                "rows_per_s": round(rate, 1),
            }
        )
    else:
        show(
            f"{done.rows} rows with vectors of length {made_by.dim} in {output} "
            f"({done.bytes / 1e6:.1f} MB) in {done.seconds:.1f} s ({rate:.1f} rows/s)"
        )
    if not done.rows:
        note("no rows: the store is empty, or none matches --where")
