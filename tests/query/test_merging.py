"""Hits with overlapping footprints, of which only the best is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed import Part, Query
from rsicd_embed.errors import QueryError
from rsicd_embed.geography.overlap import separate
from rsicd_embed.query.search import hits as ranked_hits
from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import VectorStore
from rsicd_embed.testing.stores import batch, unit

from ..helpers import SCHEMES, run

shapely = pytest.importorskip("shapely")
MADE_BY = Provenance("m", "weights:1/dim:8", 8)
SIDE = 12  # tiles of side 2, one apart


def shapes_of() -> np.ndarray:
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
    return shapely.box(x, y, x + 2, y + 2)


@pytest.fixture(params=SCHEMES)
def store(request: Any, tmp_path: Path) -> VectorStore:
    count = SIDE * SIDE
    wkb = pa.array(shapely.to_wkb(shapes_of()), pa.binary())
    caption = [f"tile {i % 3}" for i in range(count)]
    ids = [f"{i:03}" for i in range(count)]
    added = batch(ids, unit(count, seed=2), geometry=wkb, caption=caption)
    with rsicd_embed.open_store(f"{request.param}:{tmp_path / 'st'}", MADE_BY) as opened:
        opened.upsert([added])
        yield opened


def naive(wkb: list[bytes | None], overlap: float) -> list[int]:
    kept: list[int] = []
    shapes = [None if value is None else shapely.from_wkb(value) for value in wkb]
    for i, shape in enumerate(shapes):
        others = [shapes[j] for j in kept]
        if shape is None or not any(
            other is not None and shape.area > 0 and other.area > 0
            and shape.intersection(other).area / shape.union(other).area >= overlap
            for other in others
        ):  # fmt: skip
            kept.append(i)
    return kept


@pytest.mark.parametrize("overlap", [0.1, 0.2, 0.5, 1.0])
def test_suppression_equals_a_naive_one(overlap: float) -> None:
    rng = np.random.default_rng(0)
    x, y, side = rng.uniform(0, 6, (3, 120)) * [[1], [1], [0.3]]
    shapes = [*shapely.box(x, y, x + side, y + side), None, shapely.Point(1, 1)]
    shapes += [shapes[5], shapely.Point(1, 1), shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])]
    wkb = [None if shape is None else shape.wkb for shape in shapes]
    expected = naive(wkb[:-1], overlap)
    assert separate(pa.array(wkb[:-1], pa.binary()), overlap).tolist() == expected
    assert separate(pa.array(wkb[:-1], pa.binary()), overlap, 7).tolist() == expected[:7]
    separate(pa.array(wkb, pa.binary()), overlap)  # an invalid polygon
    assert separate(pa.array([], pa.binary()), overlap).tolist() == []


def test_k_hits_without_overlap(store: VectorStore) -> None:
    shapes = shapes_of()
    parts = [Part(id="040")]
    everything = rsicd_embed.search(Query(parts, k=None, merge=0.1), store)
    ids = [int(id_) for id_ in everything["id"].to_pylist()]
    assert 30 <= len(ids) <= 60
    assert everything["rank"].to_pylist() == list(range(1, len(ids) + 1))
    pairs = np.triu(shapely.area(shapely.intersection(shapes[ids][:, None], shapes[ids])), 1)
    assert pairs.max() == 0  # a neighbour along an edge has 1/3, a diagonal one 1/7
    for k, offset in ((1, 0), (5, 0), (9, 4), (len(ids), 0), (500, 0), (3, len(ids) - 1)):
        hits = rsicd_embed.search(Query(parts, k=k, offset=offset, merge=0.1), store)
        assert hits["id"].to_pylist() == everything["id"].to_pylist()[offset : offset + k]
        assert hits["rank"].to_pylist()[:1] == [offset + 1]
    rough = rsicd_embed.search(Query(parts, k=200, merge=0.3), store)
    assert len(ids) < len(rough) < len(shapes) - 1  # diagonal neighbours stay
    least = everything["score"][10].as_py()
    some = rsicd_embed.search(Query(parts, k=100, merge=0.1, min_score=least), store)
    assert some["id"].to_pylist() == everything["id"].to_pylist()[:11]
    inside = rsicd_embed.Area((0, 0, 3, 3))
    few = rsicd_embed.search(Query(parts, k=50, merge=0.1, within=inside), store)
    assert 1 <= len(few) <= 9


def test_hybrid_hits_are_merged(store: VectorStore) -> None:
    shapes, vector = shapes_of(), unit(1, seed=3)[0]
    every = ranked_hits(Query([Part("tile 2")], k=200, hybrid=True), vector, store)
    merged = ranked_hits(Query([Part("tile 2")], k=200, hybrid=True, merge=0.1), vector, store)
    ids = [int(id_) for id_ in every["id"].to_pylist()]
    kept = separate(pa.array(shapely.to_wkb(shapes[ids]), pa.binary()), 0.1)
    assert [int(id_) for id_ in merged["id"].to_pylist()] == [ids[place] for place in kept]
    query = Query([Part("tile 2")], k=3, offset=2, hybrid=True, merge=0.1)
    page = ranked_hits(query, vector, store)
    assert page["id"].to_pylist() == merged["id"].to_pylist()[2:5]
    assert page["rank"].to_pylist() == [3, 4, 5]


def test_on_the_command_line(store: VectorStore) -> None:
    search = ("search", "--like", "040", "--store", store.uri, "--json", "-k", "8")
    merged = run(*search, "--merge").document["hits"]
    assert len(merged) == 8 and merged == run(*search, "--merge", "0.1").document["hits"]
    assert merged != run(*search).document["hits"]
    for wrong in ("0", "1.5", "nan"):
        assert "expected an overlap to merge hits above 0" in run(*search, "--merge", wrong).stderr
    listed = run(*search[:5]).stdout
    assert "geometry" not in listed and len(listed.splitlines()) == 10
    outcome = run(*search, "--merge", "a port")
    assert outcome.status == 2 and "expected a number after --merge" in outcome.stderr


def test_rows_without_footprints(tmp_path: Path) -> None:
    with rsicd_embed.open_store(f"exact:{tmp_path / 'st'}", MADE_BY) as store:
        store.upsert([batch(["a", "b"], unit(2, seed=1))])
        with pytest.raises(QueryError, match="expected rows with footprints to merge hits"):
            rsicd_embed.search(Query([Part(id="a")], merge=0.1), store)
