"""The cached manifest of a segment store."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rsicd_embed.stores.base import open_store
from rsicd_embed.stores.segments.segment_manifest import CachedFile

from .contract import MADE_BY, batch, unit


def replaced(path: Path, content: bytes, like: os.stat_result) -> None:
    """Replaces a file by another one with the same times."""
    aside = path.with_name("aside")
    aside.write_bytes(content)
    os.utime(aside, ns=(like.st_atime_ns, like.st_mtime_ns))
    aside.replace(path)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere the file is always read")
def test_current_until_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = path.stat()
    cached = CachedFile.read(path)
    assert cached.content == b"one"
    assert cached.is_current(path)
    # However often: the inode of the first file is not reused while it is mapped.
    for _ in range(20):
        replaced(path, b"two", before)
        assert not cached.is_current(path)
    path.unlink()
    assert not cached.is_current(path)


def test_empty_files_are_never_cached(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cached = CachedFile.read(tmp_path / "file")
    assert cached.content == b""
    assert not cached.is_current(tmp_path / "file")


def test_unreadable_state_is_reported_each_time(tmp_path: Path) -> None:
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
