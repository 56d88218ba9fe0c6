"""Conformance suites for third-party parts; they need pytest."""

import pytest

# So that a failing assert shows the values.
pytest.register_assert_rewrite("rsicd_embed.testing.embedders", "rsicd_embed.testing.stores")
