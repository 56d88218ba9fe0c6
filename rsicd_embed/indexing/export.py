"""Vectors as files: embedded through a store that is thrown away."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from rsicd_embed.datasets.base import Source
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.files import storage_errors, sync_folder, write_file
from rsicd_embed.indexing.ingest import Progress, Summary, ingest
from rsicd_embed.records import VECTOR, vector_matrix
from rsicd_embed.stores.base import open_store


def write_vectors(
    sources: Sequence[Source],
    embedder: Embedder,
    output: Path,
    *,
    strict: bool = False,
    progress: Progress = lambda done: None,
) -> Summary:
    """Embeds images into `output`; each file appears whole or not at all.

    `*.parquet` has a row an image: id, vector, uri, sha256, width, height and its attributes.
    `*.npy` has the vectors, float32 (n, dim); `*.ids.json` beside it, their ids. Both are in the
    order of the sources.

    Raises:
        ImageError: an unreadable image, if `strict`.
        StoreError: the folder of `output` cannot be written to.
    """
    with (
        storage_errors(f"cannot write {output}"),
        tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as folder,
    ):
        made_by = provenance(embedder)
        with open_store(f"exact:{Path(folder, 'store')}", made_by) as store:
            summary = ingest(sources, embedder, store, strict=strict, progress=progress)
            rows = _in_order(store.scan().read_all(), sources)
            if output.suffix == ".npy":
                ids = json.dumps(rows["id"].to_pylist(), ensure_ascii=False)
                beside = output.with_suffix(".ids.json")

                def save_both(path: Path) -> None:
                    """Fills both before either is renamed."""
                    _save(path, vector_matrix(rows[VECTOR]))
                    write_file(beside, lambda aside: aside.write_text(ids, "utf-8"))

                write_file(output, save_both)
            else:
                model = {"model": made_by.model, "fingerprint": made_by.fingerprint}
                rows = rows.replace_schema_metadata({"rsicd-embed": json.dumps(model)})
                write_file(output, lambda path: pyarrow.parquet.write_table(rows, path))
        sync_folder(output.parent)
    return summary


def _in_order(rows: pa.Table, sources: Sequence[Source]) -> pa.Table:
    ids = pa.array([e.id for source in sources for e in source.examples], pa.string())
    places = pc.index_in(ids.unique(), rows["id"].combine_chunks()).drop_null()
    return rows.take(places).combine_chunks()


def _save(path: Path, vectors: np.ndarray) -> None:
    with path.open("wb") as file:  # numpy would add a suffix to the name
        np.save(file, vectors)
