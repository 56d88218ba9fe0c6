"""A STAC item beside an export, with the area of its rows and the model of their vectors."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.errors import StoreError
from rsicd_embed.files import replace_file, storage_errors
from rsicd_embed.geography.geoparquet import GEOMETRY
from rsicd_embed.geography.vector_files import usable_times
from rsicd_embed.indexing.export_rows import ExportedRows
from rsicd_embed.stores.base import VectorStore

SUFFIX = ".stac.json"
_EXTENSIONS = (
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/table/v1.2.0/schema.json",
)
_MARK = b'"rsicd_embed:fingerprint"'
_MOST_SCENES = 100  # listed as sources
_SHA256 = "1220"  # prefix of a multihash: the function and the length of its digest


def stac_path(output: Path) -> Path:
    """The item beside an export: `north.stac.json` for `north.parquet`."""
    return output.with_suffix(SUFFIX)


def require_replaceable_item(path: Path, *, force: bool = False) -> None:
    """Checks that an item will not replace a file of another program; StoreError if it would."""
    with storage_errors(f"cannot write {path}"):
        if force or not path.exists() or _MARK in path.read_bytes():
            return
    raise StoreError(
        f"{path} exists and was not written by rsicd-embed; choose another file, or remove it "
        "(--force replaces it)"
    )


def write_stac_item(
    store: VectorStore, output: Path, exported: ExportedRows, where: str | None = None
) -> Path:
    """Writes a STAC item that describes an export.

    Args:
        store: the store that was exported.
        output: the exported file.
        exported: the result of `export_rows`.
        where: its SQL condition.

    Returns:
        The path of the item.

    Raises:
        StoreError: it cannot be written.
    """
    path = stac_path(output)
    item = _item(store, output, exported, where)
    with storage_errors(f"cannot write {path}"):
        replace_file(path, lambda aside: aside.write_text(json.dumps(item, indent=2), "utf-8"))
    return path


def _item(
    store: VectorStore, output: Path, exported: ExportedRows, where: str | None
) -> dict[str, Any]:
    made_by, schema = store.provenance, store.schema
    now = _text(datetime.now(UTC))
    properties = {
        **_times(store, schema, where, now),
        "created": now,
        "processing:datetime": now,
        "processing:software": {"rsicd-embed": version("rsicd-embed")},
        "emb:type": "chip",
        "emb:dimensions": made_by.dim,
        "data_type": "float32",
        "mlm:name": made_by.model,
        "rsicd_embed:model": made_by.model,
        "rsicd_embed:fingerprint": made_by.fingerprint,
    }
    asset = {
        "href": f"./{output.name}",
        "type": "application/vnd.apache.parquet",
        "title": f"{exported.rows:,} rows with unit vectors",
        "roles": ["data"],
        "file:size": exported.bytes,
        "file:checksum": _SHA256 + exported.sha256,
        "table:row_count": exported.rows,
        "table:columns": [{"name": field.name, "type": str(field.type)} for field in schema],
    }
    if exported.bounds is not None:
        asset["table:primary_geometry"] = GEOMETRY
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": output.stem,
        "geometry": None,
        "properties": properties,
        "links": [
            {"rel": "emb:source-data", "href": scene} for scene in _scenes(store, schema, where)
        ],
        "assets": {"embeddings": asset},
    }
    if exported.bounds is not None:
        item |= {"bbox": list(exported.bounds), "geometry": _outline(*exported.bounds)}
    return item


def _times(store: VectorStore, schema: pa.Schema, where: str | None, now: str) -> dict[str, Any]:
    """The times of the images; that of the export, which STAC requires, if they have none."""
    least = most = None
    if "datetime" in schema.names and pt.is_timestamp(schema.field("datetime").type):
        with store.scan(["datetime"], where) as reader:
            for batch in reader:
                times = usable_times(batch["datetime"])
                ends = pc.min_max(times.cast(pa.timestamp("us", "UTC"), safe=False))
                if (low := ends["min"].as_py()) is not None:
                    high = ends["max"].as_py()
                    least, most = min(least or low, low), max(most or high, high)
    if least is None or most is None:
        return {"datetime": now}
    if least == most:
        return {"datetime": _text(least)}
    return {"datetime": None, "start_datetime": _text(least), "end_datetime": _text(most)}


def _scenes(store: VectorStore, schema: pa.Schema, where: str | None) -> list[str]:
    """The scenes that rows were cut from, in order; none if there are many."""
    if "scene" not in schema.names or not pt.is_string(schema.field("scene").type):
        return []
    scenes: dict[str, None] = {}
    with store.scan(["scene"], where) as reader:
        for batch in reader:
            scenes |= dict.fromkeys(batch["scene"].drop_null().unique().to_pylist())
            if len(scenes) > _MOST_SCENES:
                return []
    return sorted(scenes)


def _outline(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    """A box as GeoJSON, cut in two at the antimeridian."""
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    rings = [[[[a, south], [b, south], [b, north], [a, north], [a, south]]] for a, b in spans]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}
    return {"type": "MultiPolygon", "coordinates": rings}


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
