"""An embedder whose texts are unrelated directions."""

from __future__ import annotations

import pytest

from tests.query.conftest import Words


@pytest.fixture
def words() -> Words:
    return Words()
