"""What every store promises, as tests: subclass `StoreContract` and say where a store may be.

class TestMine(StoreContract):
    @pytest.fixture
    def uri(self, tmp_path):
        return f"mine:{tmp_path / 'store'}"

Its scheme must be found by entry point, in a process of its own too: install your package, or put
a folder with its `.dist-info` on PYTHONPATH. These names of `rsicd_embed.stores` raise the errors
that the tests expect: `not_found` and `require_provenance` (opening), `conform` and `checked_ids`
(writing), `without_columns` (dropping columns), and `RowStore` (searches and scans).

`rsicd_embed.testing.StoreMachine`, which needs hypothesis, also drives stores at random and
compares them with a dictionary.
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
