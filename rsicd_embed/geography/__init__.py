"""Footprints of image tiles on the globe, places to search, and geographic files."""
