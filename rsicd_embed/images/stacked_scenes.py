"""Scenes whose bands are in several files of one place, such as the bands of Sentinel-2.

The address of such a scene has the files in the order of its bands, as `B04.tif#+B03.tif#+B02.tif`.
GDAL reads them as one virtual dataset (VRT).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import numpy as np

from rsicd_embed.errors import ImageError
from rsicd_embed.remote import gdal_path

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

DRIVERS = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG", "WEBP", "BMP", "HFA")
_SEPARATOR = "#+"
_COLOURS = ("Red", "Green", "Blue")


def stack_address(files: Sequence[str]) -> str:
    """The address of a scene of several files, each a path or URL."""
    return _SEPARATOR.join(files)


def files_of_stack(address: str) -> list[str]:
    """The files of a scene; one for most scenes."""
    return address.split(_SEPARATOR)


def require_driver(scene: DatasetReader) -> None:
    """Checks that a scene is in one of `DRIVERS`; ImageError if it is not."""
    if scene.driver not in DRIVERS:
        raise ImageError(f"expected a scene in {', '.join(DRIVERS)}, found {scene.driver}")


def virtual_dataset(files: Sequence[str]) -> str:
    """A VRT document with a band for each of the files, on the finest of their grids.

    Coarser bands are interpolated (bilinear).

    Raises:
        ImageError: a file has several bands, or they do not cover the same area.
        RasterioError: a file cannot be read.
    """
    import rasterio

    scenes: list[DatasetReader] = []
    try:
        for file in files:
            scenes.append(rasterio.open(gdal_path(file)))
            require_driver(scenes[-1])
            if scenes[-1].count != 1:
                raise ImageError(
                    f"expected one band in each of several files, found {scenes[-1].count} in "
                    f"{file}; name an asset with all bands alone, or others"
                )
        grid = max(scenes, key=lambda scene: scene.width * scene.height)
        for file, scene in zip(files, scenes, strict=True):
            _require_same_area(scene, grid, file)
        bands = [_band(number, scene, grid) for number, scene in enumerate(scenes, 1)]
        a, b, c, d, e, f = grid.transform[:6]
        crs = escape(grid.crs.to_wkt()) if grid.crs else ""
        return (
            f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">'
            f"<SRS>{crs}</SRS><GeoTransform>{c!r},{a!r},{b!r},{f!r},{d!r},{e!r}</GeoTransform>"
            f"{''.join(bands)}</VRTDataset>"
        )
    finally:
        for scene in scenes:
            scene.close()


def _require_same_area(scene: DatasetReader, grid: DatasetReader, file: str) -> None:
    if scene.crs != grid.crs:
        raise ImageError(
            f"expected files in one coordinate reference system, found {scene.crs} in {file} and "
            f"{grid.crs}; choose others"
        )
    corners, expected = _corners(scene), _corners(grid)
    pixel = np.abs(np.array(grid.transform[:6])[[0, 1, 3, 4]]).max()
    if np.abs(corners - expected).max() > pixel / 2:
        raise ImageError(
            f"expected files of one area, found others in {file}: {_shown(scene.bounds)} instead "
            f"of {_shown(grid.bounds)}; choose others"
        )


def _shown(bounds: Sequence[float]) -> str:
    return ",".join(f"{side:.10g}" for side in bounds)


def _corners(scene: DatasetReader) -> np.ndarray:
    a, b, c, d, e, f = scene.transform[:6]
    columns, rows = np.array([0, scene.width, 0]), np.array([0, 0, scene.height])
    return np.stack([a * columns + b * rows + c, d * columns + e * rows + f])


def _band(number: int, scene: DatasetReader, grid: DatasetReader) -> str:
    from rasterio.dtypes import dtype_rev, typename_fwd

    kind = typename_fwd[dtype_rev[scene.dtypes[0]]]
    colour = f"<ColorInterp>{_COLOURS[number - 1]}</ColorInterp>" if number <= 3 else ""
    nodata = "" if scene.nodata is None else repr(float(scene.nodata))
    is_coarser = (scene.width, scene.height) != (grid.width, grid.height)
    resampling = ' resampling="bilinear"' if is_coarser else ""
    rectangles = (
        f'<{name} xOff="0" yOff="0" xSize="{raster.width}" ySize="{raster.height}"/>'
        for name, raster in (("SrcRect", scene), ("DstRect", grid))
    )
    return (
        f'<VRTRasterBand dataType="{kind}" band="{number}">{colour}'
        f"{nodata and f'<NoDataValue>{nodata}</NoDataValue>'}"
        f"<ComplexSource{resampling}>"
        f'<SourceFilename relativeToVRT="0">{escape(scene.files[0])}</SourceFilename>'
        f"<SourceBand>1</SourceBand>{''.join(rectangles)}"
        f"{nodata and f'<NODATA>{nodata}</NODATA>'}</ComplexSource></VRTRasterBand>"
    )
