"""GeoParquet: the metadata of Parquet files with footprints, and how their bounds are found.

Version 1.1 has a covering column with the bounds of each row. Version 2.0 has Parquet's own type
for geometries, with bounds among the statistics of row groups; readers from before 2025 refuse it.
Footprints are WKB in longitudes and latitudes, so files name no coordinate reference system: the
default of both versions is OGC:CRS84.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from rsicd_embed.errors import DatasetError

GEOMETRY = "geometry"
METADATA_KEY = b"geo"
Version = Literal["1.1", "2.0"]
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_BBOX = pa.struct([(name, pa.float64()) for name in _CORNERS])
# By shapely's type ids; a linear ring has no WKB of its own.
_TYPES = (
    "Point",
    "LineString",
    "LineString",
    "Polygon",
    "MultiPoint",
    "MultiLineString",
    "MultiPolygon",
    "GeometryCollection",
)
_SLACK = 1e-9  # degrees beyond the map's edge that are rounding errors


class _NativeWkb(pa.ExtensionType):  # type: ignore[misc]
    """WKB that Arrow writes as Parquet's GEOMETRY in OGC:CRS84."""

    def __init__(self) -> None:
        super().__init__(pa.binary(), "geoarrow.wkb")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"{}"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> _NativeWkb:
        return cls()


class GeoParquetColumn:
    """The column of footprints of a file that is being written batch by batch.

    Attributes:
        covering: name of the column with the bounds of each row, by which readers skip row groups;
            None in GeoParquet 2.0.
    """

    def __init__(self, covering: str | None) -> None:
        self.covering = covering
        self._types: set[str] = set()
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        # Longitudes counted from 0 to 360, for places on both sides of the antimeridian.
        self._turned = np.array([np.inf, -np.inf])
        self._problem: str | None = None

    @classmethod
    def of(cls, schema: pa.Schema, version: Version = "1.1") -> GeoParquetColumn | None:
        """The column of footprints of rows; None if they have none."""
        if GEOMETRY not in schema.names:
            return None
        if not pt.is_binary(schema.field(GEOMETRY).type):
            return None
        if version == "2.0":
            return cls(None)
        names = ("bbox", f"{GEOMETRY}_bbox", f"_{GEOMETRY}_bbox")
        free = [name for name in names if name not in schema.names]
        return cls(free[0]) if free else None

    @property
    def problem(self) -> str | None:
        """Why the file is plain Parquet; None if it is GeoParquet."""
        return self._problem

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The schema of the file, with the covering column or the native type."""
        if self.covering is not None:
            return schema.append(pa.field(self.covering, _BBOX))
        place = schema.get_field_index(GEOMETRY)
        return schema.set(place, schema.field(place).with_type(_NativeWkb()))

    def add(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Converts a batch to `schema`, and rewrites extended WKB, which GeoParquet excludes.

        Raises:
            DatasetError: GeoParquet 2.0 cannot have these geometries.
        """
        geometry, bounds = self._read(batch[GEOMETRY])
        place = batch.schema.get_field_index(GEOMETRY)
        if self.covering is None:
            if self._problem is not None:
                raise DatasetError(
                    f"expected footprints for GeoParquet 2.0, found another column {GEOMETRY}: "
                    f"{self._problem}; use version 1.1, which becomes plain Parquet"
                )
            native = pa.ExtensionArray.from_storage(_NativeWkb(), geometry.cast(pa.binary()))
            columns = [*batch.columns]
            columns[place] = native
            return pa.RecordBatch.from_arrays(columns, schema=self.schema(batch.schema))
        missing = np.isnan(bounds).any(axis=1)
        corners = [pa.array(bounds[:, i], mask=missing) for i in range(4)]
        covering = pa.StructArray.from_arrays(corners, fields=list(_BBOX), mask=pa.array(missing))
        columns = [*batch.columns, covering]
        columns[place] = geometry
        return pa.RecordBatch.from_arrays(columns, schema=self.schema(batch.schema))

    def metadata(self) -> dict[bytes, bytes]:
        """The file's metadata once all rows are added; empty for plain Parquet."""
        if self._problem is not None:
            return {}
        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": sorted(self._types)}
        if self.covering is not None:
            column["covering"] = {"bbox": {name: [self.covering, name] for name in _CORNERS}}
        if (bounds := self.bounds()) is not None:
            column["bbox"] = bounds
        document = {
            "version": "2.0.0" if self.covering is None else "1.1.0",
            "primary_column": GEOMETRY,
            "columns": {GEOMETRY: column},
        }
        return {METADATA_KEY: json.dumps(document).encode()}

    def bounds(self) -> tuple[float, float, float, float] | None:
        """West, south, east and north of all rows; west > east across the antimeridian.

        None without footprints, or with some that are not in degrees.
        """
        if self._problem is not None or not np.isfinite(self._bounds).all():
            return None
        west, south, east, north = self._bounds.tolist()
        start, end = self._turned.tolist()
        if end - start < east - west:
            west, east = (x - 360 if x > 180 else x for x in (start, end))
        return west, south, east, north

    def _read(self, column: pa.Array) -> tuple[pa.Array, np.ndarray]:
        """Geometries as ISO WKB, and float64 (n, 4) bounds; NaN where there are none."""
        try:
            import shapely
        except ImportError:
            self._problem = "GeoParquet needs shapely; pip install 'rsicd-embed[geo]'"
            return column, np.full((len(column), 4), np.nan)
        shapes = shapely.from_wkb(column.to_numpy(zero_copy_only=False), on_invalid="ignore")
        invalid = shapely.is_missing(shapes) & column.is_valid().to_numpy(zero_copy_only=False)
        bounds: np.ndarray = shapely.bounds(shapes)
        has_z = shapely.has_z(shapes)
        extended = has_z | (shapely.get_srid(shapes) > 0)
        if invalid.any():
            self._problem = "not every geometry is WKB that shapely reads"
        elif getattr(shapely, "has_m", lambda shapes: np.array(False))(shapes).any():
            self._problem = "GeoParquet has no geometries with measures (M)"
        elif (np.abs(np.nan_to_num(bounds)) > np.array([180, 90] * 2) + _SLACK).any():
            self._problem = "not every geometry is in degrees"
        else:
            self._collect(shapely, shapes, bounds, has_z)
            if extended.any():
                wkb = shapely.to_wkb(shapes, flavor="iso", include_srid=False)
                column = pa.array(wkb, pa.binary())
        return column, bounds

    def _collect(
        self, shapely: Any, shapes: np.ndarray, bounds: np.ndarray, has_z: np.ndarray
    ) -> None:
        kinds = shapely.get_type_id(shapes)
        pairs = np.unique(np.stack([kinds, has_z])[:, kinds >= 0], axis=1)
        self._types |= {_TYPES[kind] + " Z" * z for kind, z in pairs.T.tolist()}
        parts = bounds[kinds <= 3]
        if (kinds > 3).any():
            parts = np.concatenate([parts, shapely.bounds(shapely.get_parts(shapes[kinds > 3]))])
        parts = parts[~np.isnan(parts).any(axis=1)]
        if not len(parts):
            return
        least, most = parts.min(axis=0), parts.max(axis=0)
        self._bounds[:2] = np.minimum(self._bounds[:2], least[:2])
        self._bounds[2:] = np.maximum(self._bounds[2:], most[2:])
        west, east = parts[:, 0], parts[:, 2]
        west, east = np.where(east < 0, west + 360, west), np.where(east < 0, east + 360, east)
        if (west < 0).any():  # a part on both sides of the prime meridian
            west, east = np.array([0.0]), np.array([360.0])
        self._turned[0] = min(self._turned[0], west.min())
        self._turned[1] = max(self._turned[1], east.max())


def geometry_columns(
    metadata: dict[bytes, bytes] | None, parquet: Any = None
) -> tuple[str | None, dict[str, str]]:
    """The columns of geometries of a file, by GeoParquet's metadata or Parquet's own types.

    Args:
        metadata: the file's metadata.
        parquet: its pyarrow.parquet.ParquetSchema.

    Returns:
        The main column, None if the file has no geometries, and the coordinate reference system of
        each column that is not in WGS 84, as PROJJSON or another text that PROJ understands.

    Raises:
        DatasetError: the metadata are damaged.
    """
    metadata = metadata or {}
    raw = metadata.get(METADATA_KEY)
    if raw is None:
        return _native_columns(metadata, parquet)
    try:
        document = json.loads(raw)
        systems = {name: column.get("crs") for name, column in document["columns"].items()}
        main = str(document["primary_column"])
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise DatasetError(
            "expected the metadata of GeoParquet in its key geo, found damaged ones; write the "
            "file again"
        ) from None
    return main, {
        name: crs if isinstance(crs, str) else json.dumps(crs)
        for name, crs in systems.items()
        if crs is not None and not _is_wgs84(crs)
    }


def _native_columns(
    metadata: dict[bytes, bytes], parquet: Any
) -> tuple[str | None, dict[str, str]]:
    """Those of type GEOMETRY or GEOGRAPHY; the main one is the first, if none is `geometry`."""
    systems: dict[str, str] = {}
    names = []
    for column in () if parquet is None else map(parquet.column, range(len(parquet))):
        kind = column.logical_type
        if kind.type not in ("GEOMETRY", "GEOGRAPHY") or "." in column.path:
            continue
        names.append(column.name)
        crs = str(json.loads(kind.to_json()).get("crs") or "")
        if crs.startswith("projjson:"):
            crs = metadata.get(crs.removeprefix("projjson:").encode(), crs.encode()).decode()
        crs = re.sub(r"^srid:", "EPSG:", crs)
        if crs and crs not in ("OGC:CRS84", "EPSG:4326") and not _is_wgs84(_parsed(crs)):
            systems[column.name] = crs
    main = GEOMETRY if GEOMETRY in names else next(iter(names), None)
    return main, systems


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _is_wgs84(crs: object) -> bool:
    """Whether a reference system in PROJJSON names WGS 84 with longitudes and latitudes."""
    identity = crs.get("id") if isinstance(crs, dict) else None
    if not isinstance(identity, dict):
        return False
    known = (identity.get("authority"), str(identity.get("code")))
    return known in {("OGC", "CRS84"), ("EPSG", "4326")}


def covering_column(metadata: dict[bytes, bytes] | None) -> str | None:
    """The name of a GeoParquet file's covering column; None if it has none."""
    try:
        geo = json.loads((metadata or {}).get(METADATA_KEY, b"{}"))
        path = geo["columns"][geo["primary_column"]]["covering"]["bbox"]["xmin"]
        return str(path[0])
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
