from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rsicd_embed.stores.base import open_store
from rsicd_embed.stores.cached_file import CachedFile

from .contract import MADE_BY, batch, unit


def replaced(path: Path, content: bytes, like: os.stat_result) -> None:
    """Another file in its place, of the same times."""
    aside = path.with_name("aside")
    aside.write_bytes(content)
    os.utime(aside, ns=(like.st_atime_ns, like.st_mtime_ns))
    aside.replace(path)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere the file is always read")
def test_it_is_the_newest_until_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = path.stat()
    reading = CachedFile.of(path)
    assert reading.content == b"one"
    assert reading.is_newest(path)
    # However often: the number of the first file is not given to another as long as it is held.
    for _ in range(20):
        replaced(path, b"two", before)
        assert not reading.is_newest(path)
    path.unlink()
    assert not reading.is_newest(path)


def test_an_empty_file_is_always_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    reading = CachedFile.of(tmp_path / "file")
    assert reading.content == b""
    assert not reading.is_newest(tmp_path / "file")


def test_a_state_that_cannot_be_read_is_told_each_time(tmp_path: Path) -> None:
    uri = f"exact:{tmp_path / 'store'}"
    manifest = tmp_path / "store" / "manifest.json"
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch(["a"], unit(1))])
        good, status = manifest.read_bytes(), manifest.stat()
        replaced(manifest, b"x" * len(good), status)
        for _ in range(2):
            with pytest.raises(Exception, match="damaged"):
                store.search(np.ones(8))
        replaced(manifest, good, status)
        assert store.search(np.ones(8))["id"].to_pylist() == ["a"]
