"""Tests of the application: finding in pictures, the HTTP API, the page."""
