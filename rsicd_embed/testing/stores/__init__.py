"""The conformance suite of stores: subclass `StoreContract` and override its `uri` fixture.

class TestMine(StoreContract):
    @pytest.fixture
    def uri(self, tmp_path):
        return f"mine:{tmp_path / 'store'}"

The scheme must be found by entry point, in other processes too: install your package, or put a
folder with its `.dist-info` on PYTHONPATH. These names of `rsicd_embed.stores` raise the errors
that the tests expect: `not_found` and `require_provenance` (opening), `conform` and `checked_ids`
(writing), `without_columns` (dropping columns), and `RowStore` (searches and scans).

`rsicd_embed.testing.StoreMachine`, which needs hypothesis, also runs random operations and compares
stores with a dictionary.
"""

from rsicd_embed.testing.stores.contract import StoreContract
from rsicd_embed.testing.stores.sample_rows import (
    DIM,
    MADE_BY,
    batch,
    matches,
    now_and_reopened,
    stored,
    unit,
)

__all__ = [
    "DIM",
    "MADE_BY",
    "StoreContract",
    "batch",
    "matches",
    "now_and_reopened",
    "stored",
    "unit",
]
