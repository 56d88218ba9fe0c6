from __future__ import annotations

from .contract import StoreContract


class TestNmslib(StoreContract):
    scheme = "nmslib"
