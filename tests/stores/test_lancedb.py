from __future__ import annotations

from .contract import StoreContract


class TestLance(StoreContract):
    scheme = "lancedb"
