"""Heat maps of georeferenced images as GeoTIFF, for maps and further computation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rsicd_embed.errors import FindError, ImageError, StoreError
from rsicd_embed.files import make_folder, replace_file, storage_errors
from rsicd_embed.find.finding import Finding
from rsicd_embed.find.heatmap import similarity_map
from rsicd_embed.images import as_stored
from rsicd_embed.images.scene_windows import SceneWindow, file_of, open_scene

SUFFIXES = (".tif", ".tiff")
_SOFTWARE = "rsicd-embed"


@dataclass(frozen=True)
class PicturePlace:
    """The place of a picture on the globe.

    Attributes:
        size: width and height of the picture in pixels.
        crs: coordinate reference system, as rasterio's object.
        transform: from pixels of the picture to coordinates of `crs`, as an affine transform.
    """

    size: tuple[int, int]
    crs: Any
    transform: Any

    @classmethod
    def of(cls, address: str) -> PicturePlace:
        """The place of a georeferenced image, or of a window of a scene.

        Raises:
            ImageError: it cannot be read, or has no place.
        """
        window = SceneWindow.parse(address)
        with open_scene(window.file if window else file_of(address)) as scene:
            a, b, c, d, e, f = scene.transform[:6]
            if scene.crs is None or (a, b, c, d, e, f) == (1, 0, 0, 0, 1, 0):
                raise ImageError(
                    "expected a georeferenced image for a heat map as GeoTIFF, found one without "
                    "coordinates; use .png"
                )
            left, top, width, height = window.box if window else (0, 0, scene.width, scene.height)
            size = (window and window.size) or (width, height)
            crs = scene.crs
        c, f = a * left + b * top + c, d * left + e * top + f
        return cls(size, crs, _stretched((a, b, c, d, e, f), width / size[0], height / size[1]))

    def scaled(self, columns: int, rows: int) -> Any:
        """The transform of a raster of another size that covers the picture."""
        x, y = self.size[0] / columns, self.size[1] / rows
        return _stretched(self.transform[:6], x, y)


def _stretched(transform: tuple[float, ...], x: float, y: float) -> Any:
    """An affine transform from pixels that are x times as wide and y times as high."""
    from rasterio import Affine

    a, b, c, d, e, f = transform
    return Affine(a * x, b * y, c, d * x, e * y, f)


def save_geotiff(
    finding: Finding, place: PicturePlace, path: Path, *, orientation: int = 1
) -> None:
    """Writes `similarity_map` as a GeoTIFF of one float32 band, atomically.

    Args:
        finding: the scores of the patches of a picture that was turned upright.
        place: the place of the picture as stored.
        path: the file.
        orientation: that of the picture's file, as in `Picture.orientation`; the map gets it too.

    Raises:
        FindError: GDAL, which finds the place, reads another picture from the file.
        StoreError: it cannot be written, or exists and rsicd-embed did not write it.
    """
    import rasterio

    require_own_raster(path)
    heat = as_stored(Image.fromarray(similarity_map(finding)), orientation)
    size = finding.size[::-1] if orientation in range(5, 9) else finding.size
    if size != place.size:
        raise FindError(
            f"expected a picture of {place.size[0]}×{place.size[1]} pixels, as GDAL reads it, "
            f"found {size[0]}×{size[1]}; use .png"
        )
    values = np.asarray(heat)
    rows, columns = values.shape
    kind = "probability" if len(finding.texts) > 1 else "similarity, from 0 to 1"

    def write(aside: Path) -> None:
        with rasterio.open(
            aside,
            "w",
            driver="GTiff",
            width=columns,
            height=rows,
            count=1,
            dtype="float32",
            crs=place.crs,
            transform=place.scaled(columns, rows),
            compress="deflate",
            predictor=3,
        ) as file:
            file.write(values, 1)
            file.set_band_description(1, f"{kind}: {finding.texts[0]}")
            file.update_tags(TIFFTAG_SOFTWARE=_SOFTWARE)

    with storage_errors(f"cannot write {path}"):
        make_folder(path.parent)
        replace_file(path, write)


def require_own_raster(path: Path) -> None:
    """Checks that a GeoTIFF to be replaced is one of ours; StoreError if it is not."""
    import rasterio

    if not path.exists():
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(path) as file:
                software = file.tags().get("TIFFTAG_SOFTWARE")
    except rasterio.errors.RasterioError:
        software = None
    if software != _SOFTWARE:
        raise StoreError(
            f"{path} exists and was not written by rsicd-embed; choose another file, or remove it"
        )
