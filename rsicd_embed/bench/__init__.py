"""Metrics and published protocols."""
