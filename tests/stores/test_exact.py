from __future__ import annotations

from .contract import FolderContract


class TestExact(FolderContract):
    scheme = "exact"
