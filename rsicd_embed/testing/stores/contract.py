"""The tests that every store passes, as one class."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.testing.stores.column_tests import ColumnTests
from rsicd_embed.testing.stores.condition_tests import ConditionTests
from rsicd_embed.testing.stores.opening_tests import Opening
from rsicd_embed.testing.stores.sample_rows import MADE_BY
from rsicd_embed.testing.stores.searching_tests import Searching
from rsicd_embed.testing.stores.upkeep_tests import Upkeep
from rsicd_embed.testing.stores.writing_tests import Writing


class StoreContract(Opening, Writing, ColumnTests, Searching, ConditionTests, Upkeep):
    """Every test takes the fixture `uri`, which a subclass provides."""

    @pytest.fixture
    def uri(self) -> str:
        """Where there is no store yet, but one can be made; another place for each test."""
        raise NotImplementedError("a subclass gives the URI")

    @pytest.fixture
    def store(self, uri: str) -> Iterator[VectorStore]:
        """A new store at `uri`."""
        with open_store(uri, MADE_BY) as store:
            yield store
