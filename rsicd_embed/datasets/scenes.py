"""Georeferenced scenes as sources: each scene becomes its tiles, read window by window."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.datasets.base import Example, Skipped, Source
from rsicd_embed.errors import DatasetError, ImageError
from rsicd_embed.geography.footprints import (
    Affine,
    Footprints,
    Georeference,
    footprints,
    pixels_per_metre,
)
from rsicd_embed.images import MAX_PIXELS, Stretch
from rsicd_embed.images.scene_windows import (
    SceneWindow,
    colour_table,
    open_scene,
    read_samples,
    require_bands,
    white_is_zero,
)

PERCENTILES = "2,98"
COLUMNS = pa.schema(
    [
        ("scene", pa.string()),
        ("window", pa.string()),
        ("crs", pa.string()),
        ("gsd_m", pa.float64()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("geometry", pa.binary()),
        ("datetime", pa.timestamp("us", "UTC")),
        ("nodata", pa.float64()),
    ]
)
_SMALL = 2048  # a scene up to this side is read whole to find its range
_SAMPLE_WINDOWS, _SAMPLE_SIDE = 8, 256  # a larger one in 8×8 windows
_LARGEST_PICTURE = 512  # side in pixels of a tile given in metres
_LENGTH = re.compile(r"(\d+)|(\d+(?:\.\d+)?) ?(m|km)")
_PAIR = re.compile(r"(-?[\d.]+(?:e[+-]?\d+)?)([,:])(-?[\d.]+(?:e[+-]?\d+)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Tiling:
    """How scenes are cut into tiles and become 8-bit RGB.

    Attributes:
        tile: side of a tile in pixels, or on the ground such as "500m"; None for whole scenes.
        stride: distance between tiles, likewise; None for the side of a tile.
        bands: numbers of one or three bands, from 1; None for red, green and blue as the file
            labels them, or else the first three.
        stretch: "LOW,HIGH" percentiles of each scene, or "LOW:HIGH" samples, that become 0 and
            255, or 255 and 0 if the file says that 0 is white; None for percentiles 2 and 98, for
            the samples of 8-bit scenes as they are, or for the colours of a band with a colour
            table.
        gsd_m: metres per pixel that tiles are resampled to; None keeps the scene's, but tiles in
            metres have at most 512 pixels per side.
        max_nodata: largest share of pixels without data, from 0 to 1; other tiles are left out.
        crs: coordinate reference system of scenes that have none, such as "EPSG:32633".
        bounds: left, bottom, right, top of images without georeference, in `crs` or in degrees.

    Raises:
        DatasetError: a value is invalid.
    """

    tile: int | str | None = None
    stride: int | str | None = None
    bands: tuple[int, ...] | None = None
    stretch: str | None = None
    gsd_m: float | None = None
    max_nodata: float = 0.5
    crs: str | None = None
    bounds: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("tile", "stride"):
            _parsed_length(name, getattr(self, name))
        if self.stride is not None and self.tile is None:
            raise DatasetError("expected a tile size with the stride, found none; add one")
        if self.bands is not None and (len(self.bands) not in (1, 3) or min(self.bands) < 1):
            raise DatasetError(
                f"expected one or three band numbers from 1, such as 4,3,2, found {self.bands}"
            )
        if self.stretch is not None:
            self._limits(self.stretch)
        if self.gsd_m is not None and not 0 < self.gsd_m < math.inf:
            raise DatasetError(f"expected metres per pixel above 0, found {self.gsd_m}")
        if not 0 <= self.max_nodata <= 1:
            raise DatasetError(f"expected a share of nodata from 0 to 1, found {self.max_nodata}")
        if self.bounds is not None:
            left, bottom, right, top = self.bounds
            if not (-math.inf < left < right < math.inf and -math.inf < bottom < top < math.inf):
                raise DatasetError(f"expected left < right and bottom < top, found {self.bounds}")

    @staticmethod
    def _limits(text: str) -> tuple[float, float, bool]:
        """The limits of a stretch, and whether they are percentiles."""
        match = _PAIR.fullmatch(text.replace(" ", ""))
        try:
            low, high = (float(match[1]), float(match[3])) if match else (1, 0)
        except ValueError:
            low, high = 1, 0
        percent = match is not None and match[2] == ","
        if not low < high or (percent and not 0 <= low < high <= 100):
            raise DatasetError(
                f"expected a stretch of percentiles such as 2,98, or of samples such as 0:3000, "
                f"found {text!r}"
            )
        return low, high, percent


def cut(source: Source, tiling: Tiling) -> Source:
    """Replaces each scene of a source by its tiles.

    Tiles cover the scene; the last of a row or column ends at its edge. Attributes of the source
    are kept, and columns with the place of each tile are added. Nothing is written.

    Args:
        source: a source whose images are scenes.
        tiling: how to cut them.

    Returns:
        A source of tiles. Scenes that cannot be cut are in `Source.skipped`.
    """
    tiles: list[Example] = []
    skipped, notes = list(source.skipped), list(source.notes)
    for example in source.examples:
        try:
            scene = _Scene.open(example, tiling)
            tiles += scene.tiles(example)
        except (ImageError, DatasetError) as error:
            skipped.append(Skipped(example.uri, str(error)))
        else:
            notes += scene.notes
    types = {field.name: field.type for field in source.schema}
    own = {"datetime": types["datetime"]} if "datetime" in types else {}
    schema = pa.schema(types | {field.name: field.type for field in COLUMNS} | own)
    return replace(
        source,
        examples=tuple(tiles),
        schema=schema,
        skipped=tuple(skipped),
        notes=tuple(dict.fromkeys(notes)),
        rows=None,
        max_nodata=tiling.max_nodata,
    )


@dataclass(frozen=True)
class _Scene:
    """A scene's header, and the windows of its tiles.

    Attributes:
        boxes: left, top, right, bottom of each tile in pixels, int64 (n, 4).
    """

    boxes: np.ndarray
    size: tuple[int, int] | None
    bands: tuple[int, ...]
    stretch: Stretch | None
    georeference: Georeference | None
    acquired: datetime | None
    whole: bool
    notes: list[str]

    @classmethod
    def open(cls, example: Example, tiling: Tiling) -> _Scene:
        with open_scene(example.file) as scene:
            bands = tiling.bands or _colour_bands(scene)
            require_bands(scene, bands)
            notes = []
            georeference = _georeference(scene, tiling)
            if georeference is not None:
                try:
                    pixels_per_metre(georeference, scene.width, scene.height)
                except DatasetError as error:
                    notes, georeference = [f"{example.uri}: {error}"], None
            elif example.file:
                notes = [
                    f"{example.uri} is not georeferenced, so its rows have no coordinates; "
                    "give --crs, and --bounds if it has no world file"
                ]
            boxes, size = _boxes(scene.width, scene.height, georeference, tiling)
            stretch = _stretch(scene, bands, tiling)
            tags = scene.tags(ns="IMAGERY") | scene.tags()
        acquired = _time(tags.get("ACQUISITIONDATETIME") or tags.get("TIFFTAG_DATETIME"))
        whole = tiling.tile is None
        return cls(boxes, size, bands, stretch, georeference, acquired, whole, notes)

    def tiles(self, example: Example) -> Iterator[Example]:
        """The tiles of a scene, row by row."""
        georeference = self.georeference
        places = None if georeference is None else footprints(georeference, self.boxes)
        scene = {
            "scene": example.uri,
            "crs": georeference and georeference.crs,
            "datetime": self.acquired,
            **{name: value for name, value in example.attributes.items() if value is not None},
        }
        for i, (left, top, right, bottom) in enumerate(self.boxes.tolist()):
            box = (left, top, right - left, bottom - top)
            window = SceneWindow(example.file, box, self.bands, self.size, self.stretch)
            text = ",".join(map(str, box))
            id_ = example.id if self.whole else f"{example.id}#{text}"
            yield Example(id_, str(window), _TileValues(scene, places, i, text))


class _TileValues(Mapping[str, Any]):
    """The attributes of a tile; those of its scene are stored once."""

    __slots__ = ("_index", "_places", "_scene", "_window")

    def __init__(
        self, scene: Mapping[str, Any], places: Footprints | None, index: int, window: str
    ) -> None:
        self._scene, self._places, self._index, self._window = scene, places, index, window

    def __getitem__(self, name: str) -> Any:
        if name == "window":
            return self._window
        if self._places is not None and name in Footprints.__dataclass_fields__:
            return getattr(self._places, name)[self._index].as_py()
        return self._scene[name]

    def __iter__(self) -> Iterator[str]:
        places = Footprints.__dataclass_fields__ if self._places is not None else ()
        return iter(dict.fromkeys([*self._scene, "window", *places]))

    def __len__(self) -> int:
        return len(list(iter(self)))


def _colour_bands(scene: Any) -> tuple[int, ...]:
    """The bands labelled red, green and blue, or else the first three, or the first."""
    names = [colour.name for colour in scene.colorinterp]
    if {"red", "green", "blue"} <= set(names):
        return tuple(names.index(name) + 1 for name in ("red", "green", "blue"))
    colours = [band for band, name in enumerate(names, 1) if name != "alpha"] or [1]
    return tuple(colours[:3]) if len(colours) >= 3 else (colours[0],)


def _georeference(scene: Any, tiling: Tiling) -> Georeference | None:
    crs = scene.crs.to_string() if scene.crs else tiling.crs
    transform: Affine = scene.transform[:6]
    if transform == (1, 0, 0, 0, 1, 0):
        if tiling.bounds is None:
            return None
        left, bottom, right, top = tiling.bounds
        across, down = (right - left) / scene.width, (bottom - top) / scene.height
        transform, crs = (across, 0, left, 0, down, top), tiling.crs or "EPSG:4326"
    a, b, _, d, e, _ = transform
    return Georeference(crs, transform) if crs and a * e != b * d else None


def _boxes(
    width: int, height: int, georeference: Georeference | None, tiling: Tiling
) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The boxes of a scene's tiles, and the size of their pictures if they are resampled."""
    metres = any(isinstance(value, str) and "m" in value for value in (tiling.tile, tiling.stride))
    scale = (1.0, 1.0)
    if metres or tiling.gsd_m:
        if georeference is None:
            raise DatasetError("expected a georeferenced scene for sizes in metres, found none")
        scale = pixels_per_metre(georeference, width, height)
    grid = [tiling.gsd_m * s if tiling.gsd_m else 1.0 for s in scale]  # pixels per result's pixel
    if tiling.tile is None:
        side = (width, height)
        if width * height > MAX_PIXELS:
            raise DatasetError(
                f"expected at most {MAX_PIXELS:,} pixels, found {width}×{height}; give a --tile"
            )
    else:
        side = _in_pixels("tile", tiling.tile, scale, grid)
    if side[0] > width or side[1] > height:
        raise DatasetError(
            f"expected a scene of at least one tile, {side[0]}×{side[1]} pixels, found "
            f"{width}×{height}; give a smaller --tile"
        )
    stride = side if tiling.stride is None else _in_pixels("stride", tiling.stride, scale, grid)
    lefts, tops = _starts(width, side[0], stride[0]), _starts(height, side[1], stride[1])
    top, left = (axis.ravel() for axis in np.meshgrid(tops, lefts, indexing="ij"))
    boxes = np.stack([left, top, left + side[0], top + side[1]], axis=1)
    size = (max(1, round(side[0] / grid[0])), max(1, round(side[1] / grid[1])))
    if metres and not tiling.gsd_m and max(size) > _LARGEST_PICTURE:
        shrink = _LARGEST_PICTURE / max(size)
        size = (max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink)))
    return boxes, None if size == side else size


def _in_pixels(
    name: str, length: int | str, scale: Sequence[float], grid: Sequence[float]
) -> tuple[int, int]:
    number, metres = _parsed_length(name, length)
    factors = scale if metres else grid
    return max(1, round(number * factors[0])), max(1, round(number * factors[1]))


def _parsed_length(name: str, length: int | str | None) -> tuple[float, bool]:
    """A length, and whether it is in metres instead of pixels."""
    if length is None:
        return 0, False
    match = _LENGTH.fullmatch(str(length))
    number = float(match[1] or match[2]) if match else 0
    if match is None or not 0 < number < math.inf:
        raise DatasetError(
            f"expected a {name} in pixels, such as 224, or metres, such as 500m, found {length!r}"
        )
    return number * (1000 if match[3] == "km" else 1), match[3] is not None


def _starts(length: int, side: int, stride: int) -> np.ndarray:
    starts = np.arange(0, length - side + 1, stride)
    return starts if starts[-1] == length - side else np.append(starts, length - side)


def _stretch(scene: Any, bands: tuple[int, ...], tiling: Tiling) -> Stretch | None:
    if tiling.stretch is None:
        # The table of deep samples in which 0 is white has the whole range, which few scenes use.
        deep = any(scene.dtypes[band - 1] != "uint8" for band in bands)
        if colour_table(scene, bands) is not None and not (deep and white_is_zero(scene)):
            return None
        if not deep:
            tags = [scene.tags(band, ns="IMAGE_STRUCTURE") for band in bands]
            bits = max(int(of_band.get("NBITS", 8)) for of_band in tags)
            return Stretch(0, 2**bits - 1) if bits < 8 else None
    low, high, percent = Tiling._limits(tiling.stretch or PERCENTILES)
    if percent:
        samples = _sampled(scene, bands)
        low, high = (float(f"{value:.9g}") for value in np.percentile(samples, (low, high)))
        if low == high:
            high = low + 1
    return Stretch(low, high)


def _sampled(scene: Any, bands: tuple[int, ...]) -> np.ndarray:
    """Samples with data from all over a scene, (n, bands)."""
    from rasterio.errors import RasterioIOError
    from rasterio.windows import Window

    windows: list[Any] = [None]
    shape = (scene.height, scene.width)
    if max(shape) > _SMALL:
        shape = (min(_SAMPLE_SIDE, scene.height), min(_SAMPLE_SIDE, scene.width))
        tops, lefts = (
            np.linspace(0, whole - side, _SAMPLE_WINDOWS).astype(int)
            for whole, side in zip((scene.height, scene.width), shape, strict=True)
        )
        windows = [Window(int(x), int(y), shape[1], shape[0]) for y in tops for x in lefts]
    parts = []
    failure: RasterioIOError | None = None
    for window in windows:
        try:
            samples, valid = read_samples(scene, bands, window, shape)
        except RasterioIOError as error:  # its tile is reported when it is read
            failure = error
            continue
        parts.append(samples.reshape(-1, len(bands)) if valid is None else samples[valid])
    if failure and not parts:
        raise failure
    if not sum(map(len, parts)):
        raise ImageError("no pixel has data: all are nodata, transparent or not a number")
    return np.concatenate(parts)


def _time(text: str | None) -> datetime | None:
    """Reads a time as written in TIFF (`2020:01:13 10:50:01`) or ISO 8601; UTC by default."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(re.sub(r"^(\d{4}):(\d\d):", r"\1-\2-", text.strip()))
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
