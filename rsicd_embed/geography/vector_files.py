"""Rows as features for other programs: GeoPackage, FlatGeobuf, and geometries of GeoJSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from rsicd_embed.errors import QueryError, StoreError, one_line
from rsicd_embed.geography.spatial_functions import points

DRIVERS = {"gpkg": "GPKG", "fgb": "FlatGeobuf"}
GENERATOR = "rsicd-embed"
_LAYER = "images"
_GEOMETRY = "geometry"
# The times that GDAL writes, from the year 1 to 9999, in seconds since 1970.
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799
_DAY_S = 86_400
_PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_AS_IS = (
    pt.is_boolean,
    pt.is_signed_integer,
    pt.is_uint8,
    pt.is_uint16,
    pt.is_uint32,
    pt.is_float32,
    pt.is_float64,
    pt.is_string,
    pt.is_date32,
    pt.is_timestamp,
    pt.is_binary,
)


def save_features(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    path: Path,
    kind: str,
    coordinates: tuple[str, str] | None,
    texts: Callable[[pa.Array], list[str | None]],
) -> list[str]:
    """Writes rows to a GeoPackage or FlatGeobuf file, batch by batch.

    Geometries are the WKB of the column geometry, or else points on the map. Types that these
    formats lack, such as lists, become text. Names must differ by more than case, also from that of
    the geometry: others get a number, as in `Name` and `name_2`. Times outside the years 1 to 9999
    become null, and the character NUL, at which GDAL ends texts, becomes U+FFFD.

    Args:
        batches: rows of `schema`.
        schema: columns of the rows.
        path: the file, which must not exist.
        kind: a key of `DRIVERS`.
        coordinates: columns of longitudes and latitudes, for rows without footprints.
        texts: converts the values of a column to texts.

    Returns:
        Messages for the user about renamed columns and values that are not as in the rows.

    Raises:
        StoreError: the file cannot be written.
        QueryError: pyogrio is missing.
    """
    try:
        import pyogrio
    except ImportError:
        raise QueryError(
            f"{DRIVERS[kind]} files need pyogrio; pip install 'rsicd-embed[geo]'"
        ) from None
    has_footprints = _GEOMETRY in schema.names and pt.is_binary(schema.field(_GEOMETRY).type)
    required = f"{_GEOMETRY} IS NOT NULL"
    if not has_footprints and coordinates:
        required = "{} BETWEEN -180 AND 180 AND {} BETWEEN -90 AND 90".format(*coordinates)
    names = [name for name in schema.names if name != _GEOMETRY or not has_footprints]
    fields = _field_names(names)
    failure: list[BaseException] = []
    lost: Counter[str] = Counter()
    with_nul: Counter[str] = Counter()

    def plain(name: str, column: pa.Array) -> pa.Array:
        values = _plain(column, texts)
        if pt.is_string(values.type):
            with_nul[name] += pc.sum(pc.match_substring(values, "\0")).as_py() or 0
            return pc.replace_substring(values, "\0", "\ufffd")
        usable = usable_times(values)
        lost[name] += usable.null_count - values.null_count
        return usable

    def converted() -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                columns = [plain(name, batch[name]) for name in names]
                if has_footprints:
                    columns.append(batch[_GEOMETRY])
                else:
                    lon, lat = (batch[name].cast(pa.float64()) for name in coordinates or ())
                    columns.append(points(_within(lon, 180), _within(lat, 90)))
                if kind == "fgb" and columns[-1].null_count:
                    raise QueryError(
                        "expected rows that all have a place for FlatGeobuf, found some without; "
                        f'select them with --where "{required}", or use .gpkg'
                    )
                yield pa.RecordBatch.from_arrays(columns, schema=target)
        except BaseException as error:
            failure.append(error)  # which the C interface would hide
            raise

    empty = [_plain(pa.array([], schema.field(name).type), texts).type for name in names]
    target = pa.schema([*zip(fields, empty, strict=True), (_GEOMETRY, pa.binary())])
    options = {}
    if kind == "gpkg":
        lowered = {name.lower() for name in fields}
        options["FID"] = next(name for name in ("fid", "gid", "ogc_fid") if name not in lowered)
    try:
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(target, converted()),
            path,
            layer=_LAYER,
            driver=DRIVERS[kind],
            geometry_name=_GEOMETRY,
            geometry_type="Unknown",
            crs="OGC:CRS84",
            layer_metadata={"GENERATOR": GENERATOR},
            **options,
        )
    except (pyogrio.errors.DataSourceError, RuntimeError, ValueError, pa.ArrowException) as error:
        if failure:
            raise failure[0] from None
        raise StoreError(f"cannot write {path.name}: {one_line(error)}") from error
    notes = [
        f"column {name!r} is {new!r} in the file, where names must differ by more than case"
        for name, new in zip(names, fields, strict=True)
        if name != new
    ]
    notes += [
        f"column {name!r}: {number:,} texts have the character NUL, which is U+FFFD in the file; "
        "use .parquet to keep it"
        for name, number in (+with_nul).items()
    ]
    return notes + [
        f"column {name!r}: {number:,} times outside the years 1 to 9999 are null in the file; "
        "use .parquet to keep them"
        for name, number in (+lost).items()
    ]


def _field_names(names: Sequence[str]) -> list[str]:
    """The names of columns in a file; see `save_features`. GDAL crashes or mixes up others."""
    used, given = {_GEOMETRY}, {name.lower() for name in names}
    fields = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(2))
        free = (other for other in numbered if other.lower() not in used | given)
        fields.append(name if name.lower() not in used else next(free))
        used.add(fields[-1].lower())
    return fields


def is_generated(path: Path) -> bool:
    """Whether `save_features` wrote a file."""
    import pyogrio

    try:
        info = pyogrio.read_info(path, layer=_LAYER)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, RuntimeError):
        return False
    return bool((info.get("layer_metadata") or {}).get("GENERATOR") == GENERATOR)


def geojson_geometries(column: pa.Array) -> list[dict[str, Any] | None]:
    """WKB as GeoJSON geometries; None for null, invalid and empty ones."""
    import shapely

    shapes = shapely.from_wkb(column.to_numpy(zero_copy_only=False), on_invalid="ignore")
    usable = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    texts = shapely.to_geojson(shapes)
    return [json.loads(text) if good else None for text, good in zip(texts, usable, strict=True)]


def _within(degrees: pa.Array, most: float) -> pa.Array:
    """Degrees from `-most` to `most`; null for others, and for NaN."""
    return pc.if_else(pc.less_equal(pc.abs(degrees), most), degrees, pa.scalar(None, pa.float64()))


def usable_times(column: pa.Array) -> pa.Array:
    """Times and dates of the years 1 to 9999; null for others, which GDAL takes for 1970."""
    if pt.is_timestamp(column.type):
        unit, numbers = _PER_S[column.type.unit], column.view(pa.int64())
        first, end = _FIRST_S * unit, (_LAST_S + 1) * unit
    elif pt.is_date32(column.type):
        numbers = column.view(pa.int32()).cast(pa.int64())
        first, end = _FIRST_S // _DAY_S, _LAST_S // _DAY_S + 1
    else:
        return column
    # All nanoseconds of 64 bits are within these years.
    first, end = max(first, -(2**63)), min(end, 2**63 - 1)
    usable = pc.and_(pc.greater_equal(numbers, first), pc.less(numbers, end))
    return pc.if_else(usable, column, pa.scalar(None, column.type))


def _plain(column: pa.Array, texts: Callable[[pa.Array], list[str | None]]) -> pa.Array:
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pt.is_large_string(column.type):
        return column.cast(pa.string())
    if pt.is_float16(column.type):
        return column.cast(pa.float32())
    if pt.is_fixed_size_binary(column.type) or pt.is_large_binary(column.type):
        return column.cast(pa.binary())
    if any(accepts(column.type) for accepts in _AS_IS):
        return column
    return pa.array(texts(column), pa.string())
