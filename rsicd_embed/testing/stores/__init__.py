"""What every store promises, as tests: subclass `StoreContract` and say where a store may be.

class TestMine(StoreContract):
    @pytest.fixture
    def uri(self, tmp_path):
        return f"mine:{tmp_path / 'store'}"

Its scheme must be found by entry point, in a process of its own too: install your package, or put
a folder with its `.dist-info` on PYTHONPATH. What the tests match of messages comes with the parts
of `rsicd_embed.stores` that they check: `opening` (what is there, and whose), `rows.conform` (rows
to be written), `filters` and `parts.scan` (`where`), `scoring` (queries and hits); `row_store` has
the reading half of a store made of them.

`machine.StoreMachine` does more than that: it drives stores at random, beside a dict. It needs
hypothesis.
"""

from rsicd_embed.testing.stores.contract import StoreContract
from rsicd_embed.testing.stores.sample_rows import (
    DIM,
    MADE_BY,
    batch,
    found,
    now_and_reopened,
    stored,
    unit,
)

__all__ = [
    "DIM",
    "MADE_BY",
    "StoreContract",
    "batch",
    "found",
    "now_and_reopened",
    "stored",
    "unit",
]
