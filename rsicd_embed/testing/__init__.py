"""Conformance suites for third-party parts; they need pytest."""
