"""Import of vectors from other sources: Parquet and GeoParquet files with any columns."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from rsicd_embed.arguments import require_items
from rsicd_embed.datasets.base import Skipped
from rsicd_embed.datasets.column_types import plain
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import DatasetError, FingerprintError, ImageError, one_line
from rsicd_embed.geography.footprints import to_wgs84
from rsicd_embed.geography.geoparquet import covering_column
from rsicd_embed.indexing.import_rows import Phase, silent
from rsicd_embed.indexing.ingest import Summary
from rsicd_embed.indexing.stages import Stages
from rsicd_embed.parallel import read_ahead
from rsicd_embed.records import FIXED_COLUMNS, VECTOR, declared, is_list, vector_array
from rsicd_embed.stores.base import open_store

_STEP_BYTES = 1 << 26  # size of one upsert; four times as much is in memory
_BLOCK_ROWS = 256  # small enough for its copies to stay in the processor's cache
_MOST_LISTED = 10  # rows of one file that are skipped for the same kind of reason
_SAMPLE = 8  # images embedded again to check the declared model
_LEAST_COSINE = 0.9
_TIMES = ("%Y%m%dT%H%M%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d")
_UTC = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class VectorLayout:
    """The columns of files with vectors.

    Attributes:
        vector: column of lists of 16-, 32- or 64-bit floats.
        ids: columns that together are unique; joined by "/".
        columns: column of the store → column of the file. Others keep their names. `geometry` may
            be WKB or WKT, `datetime` a time, a date or text.
    """

    vector: str = "embedding"
    ids: tuple[str, ...] = ("id",)
    columns: Mapping[str, str] = field(default_factory=dict)


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
    interrupted import can be repeated. Rows whose vector is null, zero, not finite or of another
    length than the first are skipped and listed. The store records `model` as declared.

    Args:
        paths: Parquet or GeoParquet files.
        store_uri: URI of a new store, or of one with vectors declared to be of the same model.
        model: name of the model that made the vectors.
        layout: the columns of the files; see `PRESETS`.
        embedder: the model, if it can be loaded; its dimension is compared, and some rows whose
            `uri` is a readable image are embedded again.
        phase: as for `import_rows`.

    Raises:
        DatasetError: a file is not Parquet, or lacks a column.
        FingerprintError: the vectors are not of the declared model, or the store has others.
        StoreError: the store cannot be opened or written.
    """
    require_items(paths, "paths", (str, Path))
    files = [_VectorFile.open(Path(path), layout) for path in paths]
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
    norms = _Norms()
    with (
        open_store(store_uri, declared(model, dim)) as store,
        phase("import", sum(file.rows for file in files)) as progress,
    ):
        for file in files:
            first = True
            for step in read_ahead(_steps(file.batches(dim, norms, summary.skipped))):
                if first and embedder is not None:
                    _require_made_by(embedder, step[0], model, str(file.path))
                first = False
                with stages("write"):
                    store.upsert(step)
                count = sum(map(len, step))
                summary.imported += count
                progress(count)
        if summary.imported:
            with stages("index"):
                store.optimize()
    summary.notes.append(f"vectors declared to be of model {model}; {norms}")
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


@dataclass(frozen=True)
class _VectorFile:
    """A Parquet file with a column of vectors.

    Attributes:
        crs: coordinate reference system of its geometry, as PROJJSON; None for WGS 84.
        renamed: column of the file → column of the store, for all that are imported.
    """

    path: Path
    layout: VectorLayout
    rows: int
    renamed: Mapping[str, str]
    crs: str | None

    @classmethod
    def open(cls, path: Path, layout: VectorLayout) -> _VectorFile:
        try:
            with pq.ParquetFile(path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
                metadata = file.metadata.metadata or {}  # Arrow's schema may lack some of it
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{path} cannot be read as Parquet: {one_line(error)}") from error
        for name in (layout.vector, *layout.ids, *layout.columns.values()):
            if name not in schema.names:
                raise DatasetError(
                    f"{path}: expected a column {name!r}, found {', '.join(schema.names)}; name "
                    "columns with --vector-column, --id-column and --map"
                )
        kind = schema.field(layout.vector).type
        if not (is_list(kind) and pt.is_floating(kind.value_type)):
            raise DatasetError(
                f"{path}: expected lists of floats in {layout.vector!r}, found {kind}"
            )
        geo = json.loads(metadata.get(b"geo", b"{}"))
        primary = geo.get("primary_column")
        new = {old: name for name, old in layout.columns.items()}
        if primary in schema.names and "geometry" not in layout.columns:
            new.setdefault(primary, "geometry")
        reserved = {*new.values(), *FIXED_COLUMNS, covering_column(metadata)} - {"uri"}
        for name in schema.names:
            if name != layout.vector and name not in new and name not in reserved:
                new[name] = name
        crs = geo.get("columns", {}).get(primary, {}).get("crs") if primary else None
        identity = (crs or {}).get("id", {})
        known = (identity.get("authority"), str(identity.get("code")))
        is_wgs84 = crs is None or known in {("OGC", "CRS84"), ("EPSG", "4326")}
        return cls(path, layout, rows, new, None if is_wgs84 else json.dumps(crs))

    def first_dim(self) -> int:
        """Length of the first vector; 0 if there is none."""
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(256, columns=[self.layout.vector]):
                lengths = pc.list_value_length(batch.column(0)).drop_null()
                if len(lengths):
                    return int(lengths[0].as_py())
        return 0

    def batches(self, dim: int, norms: _Norms, skipped: list[Skipped]) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a store."""
        names = dict.fromkeys([self.layout.vector, *self.layout.ids, *self.renamed])
        reasons: dict[str, int] = {}
        start = 0
        with pq.ParquetFile(self.path) as file:
            step = max(1, min(16_384, (16 << 20) // (4 * dim)))
            for batch in file.iter_batches(step, columns=list(names)):
                vectors, lengths, why = _normalised(batch.column(self.layout.vector), dim)
                ids = _joined([batch.column(name) for name in self.layout.ids])
                why[np.asarray(ids.is_null())] = "no id"
                self._list(why, start, reasons, skipped)
                start += len(batch)
                good = np.array([reason is None for reason in why], bool)
                norms.add(lengths[good])
                rows = pa.array(good)
                columns = {"id": ids.filter(rows), VECTOR: vector_array(vectors[good])}
                for old, new in self.renamed.items():
                    columns[new] = self._column(new, batch.column(old).filter(rows))
                if "geometry" in columns and not {"lon", "lat"} <= columns.keys():
                    columns |= _centres(columns["geometry"])
                yield pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
        for reason, count in reasons.items():
            if count > _MOST_LISTED:
                skipped.append(Skipped(str(self.path), f"{count - _MOST_LISTED:,} more: {reason}"))

    def _list(
        self, why: np.ndarray, start: int, reasons: dict[str, int], skipped: list[Skipped]
    ) -> None:
        for row in np.flatnonzero([reason is not None for reason in why]):
            reason = str(why[row])
            reasons[reason] = reasons.get(reason, 0) + 1
            if reasons[reason] <= _MOST_LISTED:
                skipped.append(Skipped(str(self.path), f"row {start + row + 1}: {reason}"))

    def _column(self, name: str, column: pa.Array) -> pa.Array:
        if name == "datetime":
            return _times(column, self.path)
        column = column.cast(plain(column.type), safe=False)
        if name == "geometry":
            return to_wgs84(column, self.crs)
        if name in ("lon", "lat"):
            return column.cast(pa.float64())
        return column


def _normalised(column: pa.Array, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors float32 (n, dim), their original lengths, and why a row is unusable, or None."""
    why = np.full(len(column), None, object)
    counts = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(counts != dim):
        length = "none" if counts[row] < 0 else f"length {counts[row]}"
        why[row] = f"expected a vector of length {dim}, found {length}"
    usable = counts == dim
    chosen = column if usable.all() else column.filter(pa.array(usable))
    given = chosen.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    if usable.all():
        vectors = given
    else:
        vectors = np.zeros((len(column), dim), given.dtype)
        vectors[usable] = given
    matrix, lengths = np.empty(vectors.shape, np.float32), np.empty(len(vectors))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(vectors), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            block = vectors[rows].astype(np.float32)
            wide = block.astype(np.float64)
            norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
            divisors = np.where(np.isfinite(norms) & (norms > 0), norms, 1).astype(np.float32)
            np.divide(block, divisors[:, None], out=matrix[rows])
            lengths[rows] = norms
    why[usable & ~np.isfinite(lengths)] = "the vector has NaN or infinite values"
    why[usable & (lengths == 0)] = "the vector is all zero"
    return matrix, lengths, why


def _joined(columns: list[pa.Array]) -> pa.Array:
    texts = [column.cast(pa.string()) for column in columns]
    return texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, "/")


def _times(column: pa.Array, path: Path) -> pa.Array:
    if pt.is_timestamp(column.type):
        naive = column.type.tz is None
        return (pc.assume_timezone(column.cast(pa.timestamp("us"), safe=False), "UTC") if naive
                else column.cast(_UTC, safe=False))  # fmt: skip
    if pt.is_date(column.type):
        return pc.assume_timezone(column.cast(pa.timestamp("us")), "UTC")
    text = column.cast(pa.string())
    for pattern in _TIMES:
        times = pc.strptime(text, pattern, "us", error_is_null=True)
        if times.null_count == text.null_count:
            return pc.assume_timezone(times, "UTC")
    try:
        return text.cast(_UTC)
    except pa.ArrowException as error:
        raise DatasetError(f"{path}: expected times in datetime: {one_line(error)}") from None


def _centres(geometry: pa.Array) -> dict[str, pa.Array]:
    import shapely

    points = shapely.centroid(shapely.from_wkb(geometry.to_numpy(zero_copy_only=False)))
    missing = shapely.is_missing(points) | shapely.is_empty(points)
    return {
        name: pa.array(axis(points), pa.float64(), mask=missing)
        for name, axis in (("lon", shapely.get_x), ("lat", shapely.get_y))
    }


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
