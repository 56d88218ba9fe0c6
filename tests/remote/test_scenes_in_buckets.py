"""Scenes in buckets, as assets of STAC items and as sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rsicd_embed
from rsicd_embed import Tiling
from rsicd_embed.images import read_picture
from rsicd_embed.remote import gdal_options

from ..datasets.test_scenes import noise, write_scene
from ..datasets.test_stac_sources import asset, item, opened, write
from .faulty_s3 import FaultyS3, error

pytest.importorskip("rasterio")
pytest.importorskip("pystac")
# In affine, which rasterio calls.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


@pytest.mark.parametrize("key", ["a b/v.tif", "a%20b/ö,1.tif", "a#b/c?d.tif", "x+y&z=1.tif"])
def test_assets_of_stac_items(s3: FaultyS3, bucket: str, tmp_path: Path, key: str) -> None:
    samples = noise(64, 96)
    write_scene(tmp_path / "v.tif", samples)
    s3.put(bucket, {key: (tmp_path / "v.tif").read_bytes()})
    url = f"s3://{bucket}/{key}"
    document = write(tmp_path / "item.json", item("a", {"visual": asset(url, "visual")}))
    for source in (
        opened(document),
        *rsicd_embed.open_sources([url], tiling=Tiling(32)),
        *rsicd_embed.open_sources([f"s3://{bucket}"], tiling=Tiling(32)),
    ):
        assert source.skipped == ()
        assert len(source.examples) == 6
        last = source.examples[5]
        assert last.attributes["scene"] == url
        expected = read_picture(last.file.replace(url, str(tmp_path / "v.tif")))
        assert np.array_equal(np.asarray(read_picture(last.file).image), np.asarray(expected.image))


def test_bands_in_several_objects(s3: FaultyS3, bucket: str, tmp_path: Path) -> None:
    files = {}
    for name in ("red", "green", "blue"):
        write_scene(tmp_path / f"{name}.tif", noise(32, 32)[..., :1])
        files[f"{name}.tif"] = (tmp_path / f"{name}.tif").read_bytes()
    s3.put(bucket, files)
    assets = {name[:-4]: asset(f"s3://{bucket}/{name}") for name in files}
    source = opened(write(tmp_path / "item.json", item("a", assets)), "red,green,blue")
    assert (source.skipped, len(source.examples)) == ((), 1)


def test_failures_are_reported(s3: FaultyS3, bucket: str, tmp_path: Path) -> None:
    s3.put(bucket, {})

    def reason(name: str) -> str:
        document = item("a", {"visual": asset(f"s3://{bucket}/{name}.tif", "visual")})
        (skipped,) = opened(write(tmp_path / "item.json", document)).skipped
        return skipped.reason

    assert "does not exist" in reason("missing")
    s3.fault = lambda _method, _path, start: error(start, "403 Forbidden", "AccessDenied")
    assert reason("private") == (
        f"s3://{bucket} denies access; check the permissions of your credentials, or set "
        "RSICD_EMBED_ANONYMOUS=1 for a public bucket"
    )


def test_options_of_gdal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    assert gdal_options() == {}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://minio.example.org:9000/")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "ours")
    assert gdal_options() == {
        "AWS_S3_ENDPOINT": "minio.example.org:9000",
        "AWS_HTTPS": "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AZURE_STORAGE_ACCOUNT": "ours",
    }
    monkeypatch.setenv("RSICD_EMBED_ANONYMOUS", "1")
    monkeypatch.setenv("AWS_S3_ENDPOINT", "gdal.example.org")
    assert gdal_options().keys() >= {"AWS_NO_SIGN_REQUEST", "GS_NO_SIGN_REQUEST"}
    assert "AWS_S3_ENDPOINT" not in gdal_options()
