"""Windows of georeferenced scenes (GeoTIFF, COG, JPEG 2000, …), read as pictures.

The address of a window names everything that its pixels depend on, so the picture of a row is read
back from its uri alone: `/data/scene.tif#window=0,224,224,224&bands=4,3,2&stretch=120,3400`.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rsicd_embed.errors import ImageError, http_reason, one_line
from rsicd_embed.images.archived_images import container_of
from rsicd_embed.images.bit_depth import Stretch, scaled
from rsicd_embed.images.stacked_scenes import files_of_stack, require_driver, virtual_dataset
from rsicd_embed.remote import gdal_options, gdal_path, store_failure

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_MOST_OPEN = 8
_CACHE_BYTES = 256 << 20  # GDAL's cache of decoded blocks
_OPTIONS: dict[str, Any] = {"GDAL_CACHEMAX": _CACHE_BYTES, "GDAL_NUM_THREADS": "ALL_CPUS"}
# Without the first one, GDAL looks for files beside the scene.
_WEB_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": 30,
    "GDAL_HTTP_TIMEOUT": 120,
    "GDAL_HTTP_MAX_RETRY": 2,
}
_NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_ADDRESS = re.compile(
    r"(?P<file>.+)#window=(?P<box>\d+,\d+,\d+,\d+)(?:&size=(?P<size>\d+,\d+))?"
    rf"&bands=(?P<bands>\d+(?:,\d+)*)(?:&stretch=(?P<stretch>{_NUMBER},{_NUMBER}))?",
    re.DOTALL,
)

# GDAL's warnings about metadata reach the user through Python's logging otherwise.
logging.getLogger("rasterio").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class SceneWindow:
    """A rectangle of a scene, and how it becomes an RGB picture.

    Attributes:
        file: path or URL of the scene; of several files, see `stacked_scenes`.
        box: left, top, width, height in pixels of the scene.
        bands: numbers of one band (grey) or three (red, green, blue), from 1.
        size: width and height of the picture; None for those of the box.
        stretch: the samples that become 0 and 255, or 255 and 0 if the file says that 0 is white;
            None for 8-bit scenes, and for the colours of a band with a colour table.
    """

    file: str
    box: tuple[int, int, int, int]
    bands: tuple[int, ...]
    size: tuple[int, int] | None = None
    stretch: Stretch | None = None

    def __str__(self) -> str:
        size = f"&size={_joined(self.size)}" if self.size else ""
        limits = (self.stretch.low, self.stretch.high) if self.stretch else ()
        stretch = f"&stretch={','.join(f'{limit:.15g}' for limit in limits)}" if limits else ""
        return f"{self.file}#window={_joined(self.box)}{size}&bands={_joined(self.bands)}{stretch}"

    @classmethod
    def parse(cls, address: str) -> SceneWindow | None:
        """The window that an address names; None for the path of a file."""
        match = _ADDRESS.fullmatch(address) if "#window=" in address else None
        if match is None:
            return None
        left, top, width, height = _integers(match["box"])
        size = _integers(match["size"]) if match["size"] else None
        low, high = map(float, (match["stretch"] or "0,0").split(","))
        return cls(
            match["file"],
            (left, top, width, height),
            _integers(match["bands"]),
            (size[0], size[1]) if size else None,
            Stretch(low, high) if match["stretch"] else None,
        )

    def read(self) -> tuple[Image.Image, float]:
        """Reads the picture, with pixels without data black, and their share of all pixels.

        Raises:
            ImageError: the scene cannot be opened, or the window cannot be read.
        """
        from rasterio.windows import Window

        left, top, width, height = self.box
        columns, rows = self.size or (width, height)
        if not (columns and rows):
            raise ImageError(f"expected a window with pixels, found {width}×{height}")
        with open_scene(self.file) as scene:
            if left + width > scene.width or top + height > scene.height:
                raise ImageError(
                    f"expected a scene of at least {left + width}×{top + height} pixels, "
                    f"found {scene.width}×{scene.height}; it has changed"
                )
            require_bands(scene, self.bands)
            colours = None if self.stretch else colour_table(scene, self.bands)
            window = Window(left, top, width, height)
            samples, valid = read_samples(
                scene, self.bands, window, (rows, columns), numbers=colours is not None
            )
            inverted = colours is None and white_is_zero(scene)
        if self.stretch:
            samples = scaled(samples, self.stretch)
        elif colours is not None:
            samples = colours[np.minimum(samples[..., 0], len(colours) - 1)]
        elif samples.dtype != np.uint8:
            raise ImageError("expected a stretch for samples of more than 8 bits, found none")
        if inverted:
            samples = 255 - samples
        nodata = 0.0
        if valid is not None:
            samples = np.where(valid[..., np.newaxis], samples, np.uint8(0))
            nodata = 1 - float(valid.mean())
        if samples.shape[2] == 1:
            samples = np.repeat(samples, 3, axis=2)
        return Image.fromarray(np.ascontiguousarray(samples)), nodata


def file_of(address: str) -> str:
    """The file that contains the picture of a row's uri; the first of several."""
    window = SceneWindow.parse(address)
    return files_of_stack(window.file)[0] if window else container_of(address) or address


def _options(file: str) -> dict[str, Any]:
    """GDAL's options for reading a scene."""
    return _OPTIONS | _WEB_OPTIONS | gdal_options() if "://" in file else _OPTIONS


def _require_regular(file: str) -> None:
    """Raises ImageError for a pipe or device; opening one would block."""
    with suppress(OSError, ValueError):  # reported when it is opened
        mode = os.stat(file).st_mode  # noqa: PTH116 - it may be an address
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ImageError("not a regular file")


@contextmanager
def open_scene(file: str) -> Iterator[DatasetReader]:
    """Opens a scene for one thread at a time; the last few stay open.

    Raises:
        ImageError: it cannot be read, also while the context is active, or rasterio is missing.
    """
    try:
        import rasterio
        from rasterio.errors import RasterioError
    except ImportError as error:
        raise ImageError("scenes need rasterio; pip install 'rsicd-embed[geo]'") from error
    files = files_of_stack(file)
    for part in files:
        _require_regular(part)
    entry = _entry(files)
    try:
        with (
            entry.lock,
            warnings.catch_warnings(),
            rasterio.Env(**_options(file)),
        ):
            warnings.simplefilter("ignore")  # scenes without georeference
            if entry.scene is None or entry.scene.closed:
                whole = gdal_path(file) if len(files) == 1 else virtual_dataset(files)
                entry.scene = rasterio.open(whole)
            if len(files) == 1:
                require_driver(entry.scene)
            yield entry.scene
    except RasterioError as error:
        reason = one_line(error)
        for part in files:
            reason = reason.replace(gdal_path(part), part)
        if cause := store_failure(reason, files[0]):
            reason = cause
        elif status := re.search(r"HTTP response code: (\d+)", reason):
            reason = f"cannot be read: {http_reason(int(status[1]))}"
        elif "Range downloading" in reason:
            reason = "cannot be read: its web server sends whole files only; download it"
        elif "not recognized" in reason:
            reason = "not a scene that GDAL reads (GeoTIFF, JPEG 2000, PNG, JPEG, WebP, …)"
        elif "Read failed" in reason or "read" in reason.lower():
            inner = error.__cause__ or error.__context__
            reason = f"damaged image: {one_line(inner or error)}"
        raise ImageError(reason) from error
    except MemoryError as error:
        raise ImageError("too large for this machine's memory; use smaller tiles") from error


@dataclass
class _OpenScene:
    lock: threading.Lock
    scene: DatasetReader | None = None


_opened: OrderedDict[tuple[tuple[str, int, int], ...], _OpenScene] = OrderedDict()
_mutex = threading.Lock()


def _entry(files: Sequence[str]) -> _OpenScene:
    """The open scene of files, unless they have changed since."""
    key = tuple(map(_version, files))
    with _mutex:
        entry = _opened.pop(key, None) or _OpenScene(threading.Lock())
        _opened[key] = entry
        # Handles close once no thread uses them.
        while len(_opened) > _MOST_OPEN:
            _opened.popitem(last=False)
    return entry


def _version(file: str) -> tuple[str, int, int]:
    try:
        status = Path(file).stat()
    except (OSError, ValueError) as error:
        if "://" not in file:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ImageError(f"cannot be read: {reason}") from error
        return file, 0, 0
    return file, status.st_mtime_ns, status.st_size


def require_bands(scene: DatasetReader, bands: tuple[int, ...]) -> None:
    """Checks that a scene has real-valued bands of these numbers.

    Raises:
        ImageError: it does not.
    """
    missing = [band for band in bands if not 1 <= band <= scene.count]
    if missing:
        raise ImageError(f"expected bands from 1 to {scene.count}, found {missing[0]}")
    kinds = [scene.dtypes[band - 1] for band in bands]
    if unread := next((kind for kind in kinds if "complex" in kind), None):
        raise ImageError(f"expected real samples, found {unread}; convert them to amplitudes")


def white_is_zero(scene: DatasetReader) -> bool:
    """Whether larger samples of a TIFF are darker."""
    return bool(scene.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES")


def colour_table(scene: DatasetReader, bands: tuple[int, ...]) -> np.ndarray | None:
    """The colours of a single band's samples, uint8 (n, 3); None if they are brightness.

    GDAL gives such a table to palettes, to scenes of one bit, and to those in which 0 is white.
    """
    if len(bands) != 1:
        return None
    try:
        table = scene.colormap(bands[0])
    except ValueError:
        return None
    colours = np.zeros((max(table) + 1, 3), np.uint8)
    colours[list(table)] = [colour[:3] for colour in table.values()]
    return colours


def read_samples(
    scene: DatasetReader,
    bands: tuple[int, ...],
    window: object,
    shape: tuple[int, int],
    *,
    numbers: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads bands of a window, resampled to a shape; overviews are used where they suffice.

    Args:
        scene: an open scene.
        bands: numbers of the bands, from 1.
        window: a rasterio window; None for the whole scene.
        shape: height and width of the result.
        numbers: the samples are numbers of colours or classes, which have no mean: resampling
            takes the most frequent or nearest one.

    Returns:
        The samples (height, width, bands), and bool (height, width), False for pixels without
        data in all bands, masked, transparent or not finite; None if all have data.
    """
    from rasterio.enums import MaskFlags, Resampling

    whole = (scene.height, scene.width) if window is None else (window.height, window.width)  # type: ignore[attr-defined]
    smaller = shape[0] < whole[0]
    method = Resampling.average if smaller else Resampling.cubic
    if numbers:
        method = Resampling.mode if smaller else Resampling.nearest
    options = {"window": window, "out_shape": (len(bands), *shape)}
    samples = np.empty((*shape, len(bands)), np.result_type(*(scene.dtypes[b - 1] for b in bands)))
    scene.read(list(bands), resampling=method, out=samples.transpose(2, 0, 1), window=window)
    valid = None
    if any(scene.mask_flag_enums[band - 1] != [MaskFlags.all_valid] for band in bands):
        valid = (scene.read_masks(list(bands), **options) > 0).any(axis=0)
    if samples.dtype.kind == "f":
        finite = np.isfinite(samples).all(axis=2)
        if not finite.all():
            valid = finite if valid is None else valid & finite
            samples = np.nan_to_num(samples, nan=0, posinf=0, neginf=0)
    return samples, None if valid is None or valid.all() else valid


def _joined(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def _integers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
