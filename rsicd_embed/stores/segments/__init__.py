"""Stores on a folder of segments: files that never change, and a manifest that lists them."""
