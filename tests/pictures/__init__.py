"""Tests of sheets and grids of images."""
