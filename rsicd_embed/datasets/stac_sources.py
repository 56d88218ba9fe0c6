"""STAC items, collections, item collections, static catalogues and API searches as sources.

Each chosen asset of an item becomes an example, a scene that `scenes` cuts into tiles.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import urlsplit

import pyarrow as pa

from rsicd_embed import remote
from rsicd_embed.datasets import scenes
from rsicd_embed.datasets.base import Example, Skipped, Source, local_path
from rsicd_embed.datasets.stac_reading import SEARCH, WEB, ItemReader
from rsicd_embed.errors import DatasetError, one_line
from rsicd_embed.images import stack_address
from rsicd_embed.records import FIXED_COLUMNS

if TYPE_CHECKING:
    from pystac import Asset, Item

_SUFFIXES = (".json", ".geojson")
_TOP_LEVEL = 1 << 20  # bytes of a JSON file in which STAC is recognised
# Assets that are pictures of the whole item, by key or role, best first.
_VISUAL = ("visual", "true-color", "rendered_preview", "image")
_RASTER = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2", "image/jpeg", "image/png")
_FIXED = {
    "item": pa.string(),
    "collection": pa.string(),
    "asset": pa.string(),
    "bands": pa.string(),
    "datetime": pa.timestamp("us", "UTC"),
    "cloud_cover": pa.float64(),
}


@dataclass(frozen=True)
class StacSelection:
    """The assets and properties to read from STAC items.

    Attributes:
        assets: keys of the assets, or names or common names of their only band; three with commas,
            as `red,green,blue`, are the bands of one scene. None for the asset `visual`, or the
            only raster with the role data.
        properties: properties that become columns, such as `view:off_nadir`, whose column is
            `view_off_nadir`.

    Raises:
        DatasetError: a property has the name of another column.
    """

    assets: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.properties:
            if column_name(name) in {*FIXED_COLUMNS, *_FIXED, *scenes.COLUMNS.names}:
                raise DatasetError(
                    f"expected a property that is not a column already, found {name!r}"
                )
        columns = [column_name(name) for name in self.properties]
        repeated = [name for name, n in Counter(columns).items() if n > 1]
        if repeated:
            raise DatasetError(
                f"expected properties of different columns, found several of {repeated[0]!r}"
            )


def address_of(path: Path | str) -> str | None:
    """The URL or path of a STAC source; None for other sources.

    URLs that end in .json or .geojson, or are items, collections or searches of an API, are STAC.
    Local JSON files are STAC if they declare it.
    """
    address = remote.address_of(path)
    if address.startswith(WEB):
        try:
            place = urlsplit(address).path
        except ValueError:  # reported as a source that cannot be read
            return None
        is_stac = place.endswith((*_SUFFIXES, SEARCH)) or "/collections/" in place
        return address if is_stac else None
    if not address.lower().endswith(_SUFFIXES) or not os.path.isfile(address):  # noqa: PTH113
        return None
    try:
        with Path(address).open("rb") as file:
            return address if b'"stac_version"' in file.read(_TOP_LEVEL) else None
    except OSError:
        return None


def load(address: str, selection: StacSelection) -> Source:
    """Reads a STAC item, collection, item collection or catalogue, or searches an API.

    Links to children are followed. Items without a chosen asset, and items and catalogues that
    cannot be read, are in `Source.skipped`.

    Args:
        address: a path or URL; a search is the URL of an API's endpoint with its parameters, such
            as `https://host/v1/search?collections=a&bbox=1,2,3,4&limit=20`.
        selection: assets and properties.

    Returns:
        A source with the columns item, collection, asset, bands, datetime and cloud_cover, and
        those of the selected properties.

    Raises:
        DatasetError: it cannot be read, is not STAC, or has no items; or pystac is missing.
    """
    try:
        import pystac  # noqa: F401
    except ImportError:
        raise DatasetError("STAC needs pystac; pip install 'rsicd-embed[geo]'") from None
    reader = ItemReader()
    examples: dict[str, Example] = {}
    values: dict[str, list[Any]] = {name: [] for name in selection.properties}
    count = 0
    for item in reader.items(address):
        count += 1
        for name in selection.properties:
            values[name].append(item.properties.get(name))
        try:
            chosen = [
                _example(item, key, assets, selection.properties)
                for key, assets in _assets(item, selection.assets).items()
            ]
        except Exception as error:  # pystac passes odd values on
            reason = one_line(error, limit=400)
            reader.skipped.append(Skipped(item.get_self_href() or item.id, reason))
            continue
        for example in chosen:
            if example.id in examples:
                reason = f"another item has the same id {item.id!r}"
                reader.skipped.append(Skipped(example.file, reason))
            examples.setdefault(example.id, example)
    if not count and not reader.skipped:
        raise DatasetError(f"{address}: expected STAC items, found none")
    columns = {name: _property_type(given) for name, given in values.items()}
    examples = {id_: _typed(example, columns) for id_, example in examples.items()}
    types = {column_name(name): kind for name, kind in columns.items()}
    root = address.partition("?")[0] if address.startswith(WEB) else Path(address)
    return Source(
        root,
        tuple(examples.values()),
        schema=pa.schema({**_FIXED, **types}),
        skipped=tuple(reader.skipped),
    )


def column_name(name: str) -> str:
    """The column of a property; `view:off_nadir` becomes `view_off_nadir`, which SQL can name."""
    return name.replace(":", "_")


def _assets(item: Item, keys: Sequence[str]) -> dict[str, tuple[Asset, ...]]:
    """The chosen assets of an item, or the default one; several for a scene of several files."""
    if not keys:
        key, asset = _default_asset(item)
        return {key: (asset,)}
    return {key: _chosen(item, key) for key in keys}


def _chosen(item: Item, key: str) -> tuple[Asset, ...]:
    names = [key] if key in item.assets else [name.strip() for name in key.split(",")]
    if len(names) not in (1, 3):
        raise DatasetError(
            f"expected one asset or three with commas, as red,green,blue, found {key!r}"
        )
    return tuple(_asset(item, name) for name in names)


def _asset(item: Item, name: str) -> Asset:
    """The asset with a key, or else the only one whose single band has that name."""
    available = item.assets
    if name in available:
        return available[name]
    having = [asset for asset in available.values() if name in _single_band(asset)]
    if len(having) != 1:
        raise DatasetError(
            f"expected the asset {name!r}, found {', '.join(available) or 'none'}"
            + (f"; {len(having)} of them have a band of that name" if having else "")
        )
    return having[0]


def _single_band(asset: Asset) -> set[str]:
    """The name and common name of an asset's band; empty if it has none or several."""
    bands = _bands(asset)
    keys = ("name", "common_name", "eo:common_name")
    return {str(bands[0][key]) for key in keys if bands[0].get(key)} if len(bands) == 1 else set()


def _bands(asset: Asset) -> list[dict[str, Any]]:
    bands = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
    return [band for band in bands if isinstance(band, dict)]


def _default_asset(item: Item) -> tuple[str, Asset]:
    available = item.assets
    rasters = {
        key: asset
        for key, asset in available.items()
        if (asset.media_type or "").split(";")[0].strip() in _RASTER
    }
    for name in _VISUAL:
        for key, asset in rasters.items():
            if key == name or name in (asset.roles or ()):
                return key, asset
    data = {key: asset for key, asset in rasters.items() if "data" in (asset.roles or ())}
    for alone in (data, rasters):
        if len(alone) == 1:
            return next(iter(alone.items()))
    raise DatasetError(
        f"expected one raster among its assets, found {', '.join(available) or 'none'}; "
        "choose with --asset"
    )


def _file(asset: Asset) -> str:
    href = local_path(asset.get_absolute_href() or asset.href)
    return remote.public_address(href) if href.startswith(WEB) else href


def _example(item: Item, key: str, assets: Sequence[Asset], properties: Sequence[str]) -> Example:
    names = [str(band.get("name", "")) for asset in assets for band in _bands(asset)]
    cloud = item.properties.get("eo:cloud_cover")
    time = item.datetime or item.common_metadata.start_datetime
    attributes = {
        "item": item.id,
        "collection": item.collection_id,
        "asset": key,
        "bands": ",".join(names) or None,
        "datetime": time,
        "cloud_cover": float(cloud) if _is_number(cloud) else None,
        **{column_name(name): item.properties.get(name) for name in properties},
    }
    file = stack_address([_file(asset) for asset in assets])
    return Example(f"{item.id}/{key}", file, attributes)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _property_type(values: Sequence[Any]) -> pa.DataType:
    """The type of a property's column; text for lists, objects and mixtures."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.bool_()
    numbers = [value for value in values if _is_number(value)]
    if kinds == {int} and -(2**63) <= min(numbers) <= max(numbers) < 2**63:
        return pa.int64()
    # Larger integers than any float remain text.
    fits = all(isinstance(number, float) or abs(number) < 2**1023 for number in numbers)
    is_float = kinds and kinds <= {int, float} and fits
    return pa.float64() if is_float else pa.string()


def _typed(example: Example, columns: Mapping[str, pa.DataType]) -> Example:
    values = {}
    for name, kind in columns.items():
        value = example.attributes[column_name(name)]
        if value is not None and kind == pa.string() and not isinstance(value, str):
            value = json.dumps(value)
        elif value is not None and kind == pa.float64():
            value = float(value)
        values[column_name(name)] = value
    return Example(example.id, example.file, {**example.attributes, **values})
