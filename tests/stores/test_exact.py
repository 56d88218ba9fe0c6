from __future__ import annotations

from .contract import StoreContract


class TestExact(StoreContract):
    scheme = "exact"
