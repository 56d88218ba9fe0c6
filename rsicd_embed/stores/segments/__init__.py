"""Stores kept in a folder of immutable segment files, listed by a manifest."""
