"""Conformance suites for third-party embedders and stores; they need pytest.

Subclass `EmbedderContract` or `StoreContract`, and override its fixture. `StoreMachine`, which runs
random operations on stores, also needs hypothesis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rsicd_embed.plugins import lazy_exports

# Makes failing asserts show their values.
pytest.register_assert_rewrite("rsicd_embed.testing.embedders", "rsicd_embed.testing.stores")

if TYPE_CHECKING:
    from rsicd_embed.testing.embedders import EmbedderContract
    from rsicd_embed.testing.stores import DIM, MADE_BY, StoreContract, batch, stored, unit
    from rsicd_embed.testing.stores.state_machine import StoreMachine
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "rsicd_embed.testing.embedders": ("EmbedderContract",),
            "rsicd_embed.testing.stores": (
                "DIM",
                "MADE_BY",
                "StoreContract",
                "batch",
                "stored",
                "unit",
            ),
            "rsicd_embed.testing.stores.state_machine": ("StoreMachine",),
        },
    )

__all__ = [
    "DIM",
    "MADE_BY",
    "EmbedderContract",
    "StoreContract",
    "StoreMachine",
    "batch",
    "stored",
    "unit",
]
