"""`rsicd-embed export`: a store's rows, or a model, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from rsicd_embed.cli.base import (
    as_of_option,
    json_option,
    model_option,
    note,
    print_json,
    show,
)
from rsicd_embed.cli.terminal_text import counted

if TYPE_CHECKING:
    from rsicd_embed.geography.geoparquet import Version as GeoParquetVersion
    from rsicd_embed.query.table_files import Format

EXPORTS = ("parquet", "csv", "geojson", "json", "gpkg", "fgb")


@click.command()
@click.option("--store", "store_uri", metavar="URI", help="Store to export rows from.")
@model_option(None)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="For --store, a file; an earlier export is replaced. For --model, a new directory.",
)
@click.option("--where", metavar="SQL", help="Only rows that match this SQL condition.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(EXPORTS),
    help="File format of exported rows; only parquet includes vectors.  [default: by the suffix]",
)
@click.option(
    "--stac",
    is_flag=True,
    help="Also write a STAC item, *.stac.json, with the area covered by the rows of a Parquet file "
    "and the model of their vectors.",
)
@click.option(
    "--geoparquet",
    type=click.Choice(["1.1", "2.0"]),
    help="Version of Parquet files with footprints; 2.0 has Parquet's own type for geometries, "
    "which older programs do not read.  [default: 1.1]",
)
@click.option("--force", is_flag=True, help="Replace OUTPUT even if rsicd-embed did not write it.")
@as_of_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Data type of the model's weights.",
)
@click.option(
    "--quantize",
    type=click.Choice(["int8"]),
    help="Store the model's weights with eight bits per value, in a file that only rsicd-embed "
    "reads. They are converted to float32 when the model is loaded.",
)
@click.option(
    "--onnx",
    is_flag=True,
    help="Write the model's two towers as ONNX files for other programs, instead of a model that "
    "can be loaded again.",
)
@click.option(
    "--push-to", metavar="OWNER/NAME", help="Also upload the model to a private Hub repo."
)
@json_option
def export(
    store_uri: str | None,
    model: str | None,
    output: Path,
    where: str | None,
    kind: str | None,
    stac: bool,
    geoparquet: GeoParquetVersion | None,
    force: bool,
    as_of: str | None,
    dtype: str,
    quantize: str | None,
    onnx: bool,
    push_to: str | None,
    as_json: bool,
) -> None:
    """Export a store's rows or a model.

    Rows are written to a Parquet file, which import copies into any store, unchanged and without
    the model; or, for other programs, to CSV, GeoJSON, JSON, GeoPackage (.gpkg) or FlatGeobuf
    (.fgb) without their vectors. Parquet files of rows with footprints are GeoParquet. An earlier
    export is replaced, any other file only with --force.

    A model of any format is written to a directory, in the Hugging Face layout if transformers has
    the architecture, otherwise in open_clip's layout or rsicd-embed's own. Nothing is uploaded
    unless --push-to is given.
    """
    if (store_uri is None) == (model is None):
        raise click.UsageError("expected either --store or --model")
    if store_uri is None:
        if where or as_of or stac or geoparquet or force or kind:
            raise click.UsageError(
                "expected --store with --where, --as-of, --format, --stac, --geoparquet and "
                "--force, found --model"
            )
        if quantize and dtype != "float32":
            raise click.UsageError(f"expected --dtype {dtype} or --quantize, found both")
        if onnx and (quantize or dtype != "float32"):
            raise click.UsageError("expected --onnx alone, whose weights are float32, found both")
        _export_model(str(model), output, "onnx" if onnx else quantize or dtype, push_to, as_json)
        return
    of_model = {
        "--push-to": push_to,
        "--quantize": quantize,
        "--onnx": onnx,
        "--dtype": dtype != "float32",
    }
    for option, value in of_model.items():
        if value:
            raise click.UsageError(f"expected --model with {option}, found --store")
    named = output.suffix.lower().removeprefix(".")
    if (kind or named) != named or named not in EXPORTS or output.is_dir():
        expected = f"*.{kind}" if kind else " or ".join(f"*.{known}" for known in EXPORTS)
        raise click.UsageError(f"expected an output named {expected}, found {output}")
    if named == "parquet":
        version = geoparquet or "1.1"
        _export_rows(store_uri, output, where, as_of, stac, version, force, as_json)
    elif stac or geoparquet:
        option = "--stac" if stac else "--geoparquet"
        raise click.UsageError(
            f"expected {option} with a Parquet file, which has vectors, found {output}"
        )
    else:
        _export_table(store_uri, output, cast("Format", named), where, as_of, force, as_json)


def _export_model(model: str, output: Path, dtype: str, repo: str | None, as_json: bool) -> None:
    from rsicd_embed.embedder.export_model import export_model, push
    from rsicd_embed.embedder.export_onnx import export_onnx

    exported = (
        export_onnx(model, output) if dtype == "onnx" else export_model(model, output, dtype=dtype)
    )
    if not exported.card:
        note("no model card: the checkpoint has none; write README.md before sharing it")
    commit = None if repo is None else push(output, repo)
    if as_json:
        print_json(
            {
                "model": model,
                "output": str(output),
                "fingerprint": exported.fingerprint,
                "dtype": dtype,
                "bytes": exported.weights_bytes,
                "commit": commit,
            }
        )
    else:
        show(f"{model} in {output} ({dtype}, {exported.weights_bytes / 1e6:.1f} MB of weights)")
        if repo is not None:
            show(f"uploaded: {commit}")


def _export_rows(
    store_uri: str,
    output: Path,
    where: str | None,
    as_of: str | None,
    stac: bool,
    geoparquet: GeoParquetVersion,
    force: bool,
    as_json: bool,
) -> None:
    import rsicd_embed
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.cli.search_command import store_version
    from rsicd_embed.indexing import stac_item
    from rsicd_embed.indexing.export_rows import export_rows

    if stac:
        stac_item.require_replaceable_item(stac_item.stac_path(output), force=force)
    item: Path | None = None
    with (
        rsicd_embed.open_store(store_uri) as newest,
        store_version(newest, as_of) as store,
        image_progress("export", len(store), "rows") as advance,
    ):
        exported = export_rows(
            store, output, where=where, force=force, geoparquet=geoparquet, progress=advance
        )
        made_by = store.provenance
        if stac:
            item = stac_item.write_stac_item(store, output, exported, where)
    rate = exported.rows / exported.seconds if exported.seconds else 0.0
    if as_json:
        print_json(
            {
                "store": store_uri,
                "output": str(output),
                "model": made_by.model,
                "fingerprint": made_by.fingerprint,
                "dim": made_by.dim,
                "rows": exported.rows,
                "bytes": exported.bytes,
                "sha256": exported.sha256,
                "seconds": round(exported.seconds, 3),
                "rows_per_s": round(rate, 1),
                **({} if item is None else {"stac": str(item)}),
            }
        )
    else:
        show(
            f"{counted(exported.rows, 'row')} with vectors of length {made_by.dim} in {output} "
            f"({exported.bytes / 1e6:.1f} MB) in {exported.seconds:.1f} s ({rate:.1f} rows/s)"
        )
    if item is not None:
        note(f"STAC item: {item}")
    if exported.not_geo is not None:
        note(f"not GeoParquet, but plain Parquet: {exported.not_geo}")
    if not exported.rows:
        note("no rows: the store is empty, or no row matches --where")


def _export_table(
    store_uri: str,
    output: Path,
    kind: Format,
    where: str | None,
    as_of: str | None,
    force: bool,
    as_json: bool,
) -> None:
    import rsicd_embed
    from rsicd_embed.cli.search_command import store_version
    from rsicd_embed.query import generated_files, table_files
    from rsicd_embed.records import VECTOR

    generated_files.require_replaceable(output, kind, force=force)
    with rsicd_embed.open_store(store_uri) as newest, store_version(newest, as_of) as store:
        columns = [name for name in store.schema.names if name != VECTOR]
        with store.scan(columns, where) as reader:
            rows = table_files.save(reader, reader.schema, kind, output, note)
    if as_json:
        print_json({"store": store_uri, "output": str(output), "format": kind, "rows": rows})
    else:
        show(f"{counted(rows, 'row')} without vectors in {output}")
    if not rows:
        note("no rows: the store is empty, or no row matches --where")
