"""Hits with overlapping footprints are merged over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed import Part, Query
from rsicd_embed.embedder.loading import load_for_a_query

from .conftest import Archive

shapely = pytest.importorskip("shapely")


def test_merged_hits(own_archive: Archive, serve: Callable[[Archive], Any]) -> None:
    request = {"text": "a port", "k": 3, "merge": 0.1}
    client = serve(own_archive)
    assert "expected rows with footprints" in client.post("/api/search", json=request).text
    with rsicd_embed.open_store(own_archive.uri) as store:
        stored = store.scan().read_all()
        boxes = [shapely.box(i // 3 * 9, 0, i // 3 * 9 + 2, 2).wkb for i in range(len(stored))]
        store.upsert(stored.append_column("geometry", pa.array(boxes)).to_batches())
        embedder = load_for_a_query(own_archive.model)
        query = Query([Part("a port")], k=3, merge=0.1)
        expected = rsicd_embed.search(query, store, embedder)["id"].to_pylist()
    places = dict(zip(stored["id"].to_pylist(), boxes, strict=True))
    assert len({places[id_] for id_ in expected}) == 3
    for response in (
        client.post("/api/search", json=request),
        client.get("/api/search", params=request),
    ):
        hits = response.json()["hits"]
        assert [hit["id"] for hit in hits] == expected
        assert [hit["rank"] for hit in hits] == [1, 2, 3]
    more = client.post("/api/search", json=request | {"k": 9}).json()["hits"]
    assert len(more) == 4
    assert client.get("/api/search", params=request | {"merge": 2}).status_code == 422
