"""Tiles of a scene with footprints, for tests of the map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import rsicd_embed
from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.geography.footprints import Georeference, footprints
from rsicd_embed.testing.stores import batch

SIDE = 200  # of a tile in pixels
COLUMNS, ROWS = 8, 5
TILE = 0.2  # degrees
WEST, NORTH = 10.0, 52.0
CENTRE = (WEST + 2.5 * TILE, NORTH - 1.5 * TILE)  # of a tile


def write_tiles(uri: str, model: Path) -> tuple[str, ...]:
    """Creates a store of 8 by 5 tiles with random vectors, and returns their ids."""
    embedder = load_for_a_query(model)
    columns, rows = (axis.ravel() * SIDE for axis in np.meshgrid(range(COLUMNS), range(ROWS)))
    degree = TILE / SIDE
    places = footprints(
        Georeference("EPSG:4326", (degree, 0, WEST, 0, -degree, NORTH)),
        np.stack([columns, rows, columns + SIDE, rows + SIDE], axis=1),
    )
    ids = tuple(f"tile{i}" for i in range(COLUMNS * ROWS))
    vectors = np.random.default_rng(0).normal(size=(len(ids), embedder.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tiles = batch(list(ids), vectors, lon=places.lon, lat=places.lat, geometry=places.geometry)
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        store.upsert([tiles])
    return ids
