"""The demo's scene; the slow tests of the documents ingest and search it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rsicd_embed
from rsicd_embed.images import read_rgb
from scripts.doc_blocks import PROJECT
from tests.conftest import picture


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # in rasterio
def test_the_earth_becomes_one_georeferenced_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    monkeypatch.syspath_prepend(str(PROJECT / "examples"))
    import demo

    earth = tmp_path / "earth.jpg"
    picture(1, (400, 200)).save(earth)
    path = demo.write_scene(earth, tmp_path / "demo" / "earth.tif")
    with rasterio.open(path) as scene:
        assert (scene.width, scene.height, scene.count) == (400, 200, 3)
        assert scene.bounds == (-180, -90, 180, 90)
        assert scene.crs.to_epsg() == 4326
    (source,) = rsicd_embed.open_sources([path], tiling=rsicd_embed.Tiling(40))
    tiles = list(source.examples)
    assert len(tiles) == 50
    first = tiles[0].attributes
    assert (first["lon"], first["lat"]) == (-162, 72)
    assert np.asarray(read_rgb(tiles[0].file)).shape == (40, 40, 3)
    written = path.stat().st_mtime_ns
    assert demo.write_scene(earth, path).stat().st_mtime_ns == written
    assert [item.name for item in path.parent.iterdir()] == ["earth.tif"]  # nothing unfinished
