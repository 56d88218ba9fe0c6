"""Options of commands that cut georeferenced scenes into tiles."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import click

from rsicd_embed.cli.number_range import NumberRange
from rsicd_embed.errors import RsicdEmbedError


def _numbers(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[float, ...] | None:
    """Parses numbers with commas between them."""
    if text is None:
        return None
    try:
        return tuple(int(n) if parameter.name == "bands" else float(n) for n in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected numbers such as {parameter.metavar}") from None


SCENE_OPTIONS = (
    click.option(
        "--tile",
        metavar="SIDE",
        help="Cut georeferenced scenes into tiles of this side: pixels, or metres such as 500m.",
    ),
    click.option(
        "--stride",
        metavar="SIDE",
        help="Distance between neighbouring tiles, in pixels or metres.  [default: that of --tile]",
    ),
    click.option(
        "--bands",
        metavar="4,3,2",
        callback=_numbers,
        help="Numbers of the red, green and blue bands, from 1.  [default: as labelled]",
    ),
    click.option(
        "--stretch",
        metavar="LOW,HIGH",
        help="Percentiles of each scene that become black and white, or samples as LOW:HIGH.  "
        "[default: 2,98; 8-bit scenes as they are]",
    ),
    click.option(
        "--gsd",
        "gsd_m",
        type=float,
        metavar="METRES",
        help="Resample tiles to this pixel size, in metres.",
    ),
    click.option(
        "--max-nodata",
        type=NumberRange(0, 1),
        default=0.5,
        show_default=True,
        help="Leave out tiles with a larger fraction of nodata.",
    ),
    click.option(
        "--crs",
        metavar="CRS",
        help="Coordinate reference system of scenes that have none, such as EPSG:32633.",
    ),
    click.option(
        "--asset",
        "assets",
        metavar="KEY",
        multiple=True,
        help="Asset of STAC items to embed, or three as red,green,blue, the bands of one scene; "
        "repeatable.  [default: visual, or the only one]",
    ),
    click.option(
        "--property",
        "properties",
        metavar="NAME",
        multiple=True,
        help="Property of STAC items to keep as a column, such as view:off_nadir; repeatable.",
    ),
    click.option(
        "--bounds",
        metavar="LEFT,BOTTOM,RIGHT,TOP",
        callback=_numbers,
        help="Bounds of images that are not georeferenced, in units of --crs, or in degrees.",
    ),
)


def with_tiling(command: Callable[..., None]) -> Callable[..., None]:
    """Passes the scene options as one `Tiling`, those of STAC as one `StacSelection`.

    Each is None without any of its options.
    """

    @wraps(command)
    def call(
        *args: Any,
        tile: str | None,
        stride: str | None,
        bands: tuple[int, ...] | None,
        stretch: str | None,
        gsd_m: float | None,
        max_nodata: float,
        crs: str | None,
        bounds: tuple[float, ...] | None,
        assets: tuple[str, ...],
        properties: tuple[str, ...],
        **options: Any,
    ) -> None:
        given = (tile, stride, bands, stretch, gsd_m, crs, bounds)
        tiling = None
        if any(value is not None for value in given):
            from rsicd_embed.datasets.scenes import Tiling

            if bounds is not None and len(bounds) != 4:
                raise click.UsageError(f"expected four --bounds, found {len(bounds)}")
            try:
                tiling = Tiling(
                    tile, stride, bands, stretch, gsd_m, max_nodata, crs, cast(Any, bounds)
                )
            except RsicdEmbedError as error:
                raise click.UsageError(str(error)) from None
        stac = None
        if assets or properties:
            from rsicd_embed.datasets.stac_sources import StacSelection

            try:
                stac = StacSelection(assets, properties)
            except RsicdEmbedError as error:
                raise click.UsageError(str(error)) from None
        command(*args, tiling=tiling, stac=stac, **options)

    return call
