from __future__ import annotations

import pytest

from rsicd_embed.stores.segments import segment_files

from .contract import FolderContract


class TestExact(FolderContract):
    scheme = "exact"


class TestExactInManyBlocks(FolderContract):
    """The same tests with each row read and written separately, as if all were large."""

    scheme = "exact"

    @pytest.fixture(autouse=True)
    def small_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(segment_files, "_BLOCK_BYTES", 1)
