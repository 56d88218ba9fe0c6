"""Import of vectors from other sources: Parquet and GeoParquet files with any columns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.arguments import require_items
from rsicd_embed.datasets.spooled_examples import Digests
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import DatasetError, FingerprintError, ImageError
from rsicd_embed.indexing.foreign_files import ForeignFile, VectorLayout
from rsicd_embed.indexing.import_rows import Phase, silent
from rsicd_embed.indexing.ingest import Summary
from rsicd_embed.indexing.reconcile import merge_rows
from rsicd_embed.indexing.stages import Stages
from rsicd_embed.parallel import read_ahead
from rsicd_embed.records import VECTOR, declared
from rsicd_embed.stores.base import open_store

_STEP_BYTES = 1 << 26  # size of one upsert; four times as much is in memory
_SAMPLE = 8  # images embedded again to check the declared model
_LEAST_COSINE = 0.9

PRESETS = {
    "major-tom": VectorLayout(
        "embedding",
        ("unique_id",),
        {"lon": "centre_lon", "lat": "centre_lat", "datetime": "timestamp", "crs": "utm_crs"},
    ),
    "earth-embeddings": VectorLayout(
        "embedding",
        ("product_id", "grid_cell"),
        {
            "lon": "centre_lon",
            "lat": "centre_lat",
            "datetime": "timestamp",
            "geometry": "geometry_wkt",
        },
    ),
    "clay": VectorLayout("embeddings", ("source_url",), {"uri": "source_url", "datetime": "date"}),
}


def import_vectors(
    paths: Sequence[str | Path],
    store_uri: str,
    model: str,
    layout: VectorLayout,
    *,
    embedder: Embedder | None = None,
    phase: Phase = silent,
) -> Summary:
    """Imports vectors that another program computed, normalised to unit length.

    Files are read in steps of bounded memory, and rows with known ids are replaced, so an
    interrupted import can be repeated; columns that the files lack, such as labels, keep their
    values. Rows whose vector is null, zero, not finite or of another
    length than the first are skipped and listed. If an id is repeated, its last row is kept, and a
    note counts the others. The store records `model` as declared.

    Args:
        paths: Parquet or GeoParquet files.
        store_uri: URI of a new store, or of one with vectors declared to be of the same model.
        model: name of the model that made the vectors.
        layout: the columns of the files; see `PRESETS`.
        embedder: the model, if it can be loaded; its dimension is compared, and some rows whose
            `uri` is a readable image are embedded again.
        phase: as for `import_rows`.

    Raises:
        DatasetError: a file is not Parquet, lacks a column, or has a value that does not fit.
        FingerprintError: the vectors are not of the declared model, or the store has others.
        StoreError: the store cannot be opened or written.
    """
    require_items(paths, "paths", (str, Path))
    files = [ForeignFile.open(Path(path), layout) for path in paths]
    if not files:
        raise DatasetError("expected Parquet files with vectors, found none")
    dim = next((dim for file in files if (dim := file.first_dim())), 0)
    if not dim:
        raise DatasetError(f"{files[0].path}: expected vectors, found none")
    if embedder is not None and embedder.dim != dim:
        raise FingerprintError(
            f"expected vectors of length {embedder.dim}, as of model {model}, found {dim} in "
            f"{files[0].path}; declare the model that made them"
        )
    started, stages, summary = time.perf_counter(), Stages(), Summary()
    norms, written = _Norms(), 0
    ids: list[Digests] = []
    with (
        open_store(store_uri, declared(model, dim)) as store,
        phase("import", sum(file.rows for file in files)) as progress,
    ):
        for file in files:
            first = True
            for step in read_ahead(_steps(file.batches(dim, summary.skipped, norms.add))):
                if first and embedder is not None:
                    _require_made_by(embedder, step[0], model, str(file.path))
                first = False
                own = [id_ for batch in step for id_ in batch["id"].to_pylist()]
                with stages("write"):
                    merge_rows(store, step)
                ids.append(Digests(own))
                written += len(ids[-1])
                progress(len(ids[-1]))
        summary.imported = Digests.joined(ids).distinct
        if summary.imported:
            with stages("index"):
                store.optimize()
    summary.notes.append(f"vectors declared to be of model {model}; {norms}")
    if repeated := written - summary.imported:
        summary.notes.append(
            f"{repeated:,} rows have the id of a later row, which is kept instead of them; if ids "
            f"are not unique in {', '.join(layout.ids)}, name more columns with --id-column"
        )
    summary.notes += [
        f"{file.path}: not imported, as a store's columns of these names have other contents: "
        f"{', '.join(file.ignored)}; to keep one, rename it with --map NEW=OLD"
        for file in files
        if file.ignored
    ]
    summary.seconds = time.perf_counter() - started
    summary.stages = stages.seconds()
    return summary


class _Norms:
    """Statistics of the lengths of vectors before they were normalised."""

    def __init__(self) -> None:
        self.least, self.most, self.total, self.count = np.inf, 0.0, 0.0, 0

    def add(self, norms: np.ndarray) -> None:
        if norms.size:
            self.least, self.most = min(self.least, norms.min()), max(self.most, norms.max())
            self.total, self.count = self.total + float(norms.sum()), self.count + norms.size

    def __str__(self) -> str:
        if not self.count:
            return "no vector was imported"
        mean = self.total / self.count
        return f"norms before import: {self.least:.4g} to {self.most:.4g}, mean {mean:.4g}"


def _steps(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    for batch in batches:
        if group and sum(each.nbytes for each in group) + batch.nbytes > _STEP_BYTES:
            yield group
            group = []
        group.append(batch)
    if group:
        yield group


def _require_made_by(embedder: Embedder, batch: pa.RecordBatch, model: str, path: str) -> None:
    """Embeds some images again and compares; does nothing if none can be read."""
    if "uri" not in batch.schema.names:
        return
    cosines: list[float] = []
    sample: Any = batch.select(["uri", VECTOR]).slice(0, _SAMPLE).to_pylist()
    for row in sample:
        try:
            vector = embedder.embed_images([row["uri"] or ""])[0]
        except ImageError:
            continue
        cosines.append(float(vector @ np.asarray(row[VECTOR], np.float32)))
    if cosines and float(np.median(cosines)) < _LEAST_COSINE:
        raise FingerprintError(
            f"{path}: expected vectors of model {model}, but its own vectors of the same images "
            f"differ (median cosine {np.median(cosines):.2f}); declare the model that made them"
        )
