"""Export of vectors to files: a store's rows, or newly embedded images."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed import rowfile
from rsicd_embed.datasets.base import Source
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import DatasetError, StoreError
from rsicd_embed.files import storage_errors, sync_folder, temporary_folder, write_file
from rsicd_embed.geography.geoparquet import Version as GeoParquetVersion
from rsicd_embed.indexing.ingest import Progress, Summary, ingest
from rsicd_embed.records import VECTOR, vector_matrix
from rsicd_embed.rowfile import RowFile
from rsicd_embed.stores.base import VectorStore, open_store, require_store


@dataclass(frozen=True)
class ExportedRows:
    """Result of an export.

    Attributes:
        rows: number of rows written.
        bytes: size of the file.
        sha256: SHA-256 of the file, in hexadecimal.
        seconds: wall time.
        bounds: west, south, east, north of the footprints; west > east across the antimeridian.
        not_geo: why a file of rows with footprints is not GeoParquet.
    """

    rows: int
    bytes: int
    sha256: str
    seconds: float
    bounds: tuple[float, float, float, float] | None = None
    not_geo: str | None = None


def export_rows(
    store: VectorStore,
    output: str | Path,
    *,
    where: str | None = None,
    force: bool = False,
    geoparquet: GeoParquetVersion = "1.1",
    progress: Progress = lambda rows: None,
) -> ExportedRows:
    """Writes a store's rows to a Parquet file that `import_rows` reads into any store.

    The file is written atomically in bounded memory. A file from an earlier export is replaced; any
    other file is not. The file is GeoParquet if rows have footprints, as WKB in a column geometry.

    Args:
        store: the store, whose current state is exported.
        output: path of the Parquet file.
        where: SQL condition that selects rows.
        force: replace any file.
        geoparquet: version of the format; readers from before 2025 refuse files of 2.0.
        progress: called with the number of rows written since the last call.

    Raises:
        DatasetError: GeoParquet 2.0 cannot have the geometries.
        FilterError: `where` is invalid.
        StoreError: the file cannot be written, or is not from an earlier export.
        ArgumentError: `store` is a URI.
    """
    require_store(store)
    output = Path(output)
    started = time.perf_counter()
    _require_place(output)
    if not force:
        _require_ours(output, " (--force replaces it)")
    reader = store.scan(None, where)
    written = rowfile.write(output, reader, reader.schema, store.provenance, progress, geoparquet)
    seconds = time.perf_counter() - started
    return ExportedRows(
        written.rows, written.bytes, written.sha256, seconds, written.bounds, written.not_geo
    )


def write_vectors(
    sources: Sequence[Source],
    embedder: Embedder,
    output: Path,
    *,
    strict: bool = False,
    column_types: Mapping[str, str] | None = None,
    progress: Progress = lambda done: None,
) -> Summary:
    """Embeds images into files, in the order of the sources; each is written atomically.

    A `*.parquet` file has one row per image, in the format of `export_rows`. A `*.npy` file has the
    vectors, float32 (n, dim), and `*.ids.json` beside it their ids.

    Raises:
        ImageError: an image is unreadable, if `strict`.
        StoreError: `output` cannot be written, or is another program's file.
    """
    _require_place(output)
    beside = output.with_suffix(".ids.json")
    if output.suffix == ".parquet" or not beside.exists():
        _require_ours(output)
    with (
        storage_errors(f"cannot write {output}"),
        temporary_folder(f".{output.name}-", output.parent) as folder,
    ):
        model = provenance(embedder)
        with open_store(f"exact:{folder / 'store'}", model) as store:
            summary = ingest(
                sources,
                embedder,
                store,
                strict=strict,
                column_types=column_types,
                progress=progress,
            )
            rows = _in_order(store.scan().read_all(), sources)
            if output.suffix == ".npy":
                ids = json.dumps(rows["id"].to_pylist(), ensure_ascii=False)

                def save_both(path: Path) -> None:
                    """Writes both files before either is renamed."""
                    _save(path, vector_matrix(rows[VECTOR]))
                    write_file(beside, lambda aside: aside.write_text(ids, "utf-8"))

                write_file(output, save_both)
            else:
                rowfile.write(output, rows.to_batches(), rows.schema, model)
        sync_folder(output.parent)
    return summary


def _require_place(output: Path) -> None:
    with storage_errors(f"cannot write {output}"):
        if not output.exists() and not output.parent.is_dir():
            raise StoreError(f"cannot write {output}: its folder does not exist; create it first")


def _require_ours(output: Path, remedy: str = "") -> None:
    with storage_errors(f"cannot write {output}"):
        if not output.exists():
            return
    try:
        ours = RowFile.open(output) is not None
    except DatasetError:
        ours = False
    if not ours:
        raise StoreError(
            f"{output} exists and was not written by rsicd-embed; choose another file, or remove "
            f"it{remedy}"
        )


def _in_order(rows: pa.Table, sources: Sequence[Source]) -> pa.Table:
    ids = pa.array([e.id for source in sources for e in source.examples], pa.string())
    places = pc.index_in(ids.unique(), rows["id"].combine_chunks()).drop_null()
    return rows.take(places).combine_chunks()


def _save(path: Path, vectors: np.ndarray) -> None:
    with path.open("wb") as file:  # given a path, NumPy would append a suffix
        np.save(file, vectors)
