"""Tests of the HTTP API and the search page."""
