"""Composed queries: the vector, the hits, areas, and equal answers in all stores, CLI and SQL."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed import Area, Part, Query
from rsicd_embed.errors import ArgumentError, QueryError, UnknownRowError
from rsicd_embed.query import recent_texts
from rsicd_embed.query.composed import parse_all, shared_weights
from rsicd_embed.records import vector_matrix
from rsicd_embed.stores.base import VectorStore, open_store

from .conftest import MADE_BY, SCHEMES, Words, direction, table

BOX = Area((-10, -5, 30, 40))
L_SHAPE = {
    "type": "Polygon",
    "coordinates": [[[0, 0], [40, 0], [40, 10], [10, 10], [10, 40], [0, 40], [0, 0]]],
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[VectorStore]]:
    """The same rows with coordinates in each kind of store."""
    rows, numbers = table(), np.random.default_rng(3)
    lon, lat = numbers.uniform(-60, 60, len(rows)), numbers.uniform(-60, 60, len(rows))
    gaps = numbers.random(len(rows)) < 0.1
    rows = rows.append_column("lon", pa.array(lon, mask=gaps)).append_column("lat", pa.array(lat))
    with ExitStack() as stack:
        opened = []
        for scheme in SCHEMES:
            uri = f"{scheme}:{tmp_path_factory.mktemp('composed') / 'store'}"
            opened.append(stack.enter_context(open_store(uri, MADE_BY)))
            opened[-1].upsert(rows)
        yield opened


def unit(text: str) -> np.ndarray:
    return direction(text)[0].astype(np.float64)


def expected(query: Query, store: VectorStore) -> list[tuple[int, str, float]]:
    """(rank, id, score) by definition, over the rows that DataFusion finds."""
    rows = store.scan().read_all()
    vectors = dict(zip(rows["id"].to_pylist(), vector_matrix(rows["vector"]), strict=True))
    avoided = [part.weight for part in query.parts if part.weight < 0]
    total = sum(
        (part.weight if part.weight > 0 else part.weight * min(avoided) / sum(avoided))
        * (unit(part.text) if part.text is not None else vectors[part.id].astype(float))
        for part in query.parts
    )
    matching = set(store.scan(["id"], query.where).read_all()["id"].to_pylist())
    if query.within is not None:
        west, south, east, north = query.within.box
        places = zip(*(rows[name].to_pylist() for name in ("id", "lon", "lat")), strict=True)
        matching &= {
            id_
            for id_, lon, lat in places
            if lon is not None and west <= lon <= east and south <= lat <= north
        }
    excluded = set() if query.with_examples else {part.id for part in query.parts}
    scores = {i: float(v @ (total / np.linalg.norm(total))) for i, v in vectors.items()}
    least = -1 if query.min_score is None else query.min_score
    ranked = sorted(
        (i for i in matching - excluded if scores[i] >= least), key=lambda i: -scores[i]
    )
    numbered = [(rank, i, scores[i]) for rank, i in enumerate(ranked, start=1)]
    return numbered[query.offset :][: query.k]


def random_query(draw: random.Random) -> Query:
    texts = [Part(f"text {draw.randrange(50)}", weight=draw.choice([1, 1, 2, 0.3])) for _ in "ab"]
    avoided = [Part(f"avoid {draw.randrange(50)}", weight=-0.5)]
    ids = [
        Part(id=f"{i % 7}/{i}", weight=draw.choice([1, -0.5])) for i in draw.sample(range(700), 3)
    ]
    some = draw.sample([*texts, *avoided, *ids], draw.randint(1, 5))
    return Query(
        [*some, Part(id="3/3")] if all(part.weight < 0 for part in some) else some,
        k=draw.choice([1, 10, 40, None]),
        offset=draw.choice([0, 0, 7]),
        where=draw.choice([None, "label = 'port'", "cloud < 0.4 AND width > 100"]),
        within=draw.choice([None, None, BOX]),
        min_score=draw.choice([None, None, 0.2]),
        with_examples=draw.random() < 0.2,
    )


@pytest.mark.parametrize("queries", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_equal_hits_in_all_stores(stores: list[VectorStore], words: Words, queries: int) -> None:
    draw = random.Random(20)
    for _ in range(queries):
        query = random_query(draw)
        answers = [rsicd_embed.search(query, store, words) for store in stores]
        first = answers[0]
        ranked = zip(*(first[name].to_pylist() for name in ("rank", "id", "score")), strict=True)
        for (rank, id_, score), (rank_, id__, score_) in zip(
            ranked, expected(query, stores[0]), strict=True
        ):
            assert (rank, id_) == (rank_, id__), query
            assert score == pytest.approx(score_, abs=2e-6)
        for other in answers[1:]:
            assert other.select(["rank", "id", "score"]).equals(
                first.select(["rank", "id", "score"])
            ), query


def test_one_part_is_a_plain_search(exact: VectorStore, words: Words) -> None:
    hits = rsicd_embed.search(Query([Part("a port")]), exact, words)
    assert hits.equals(exact.search(direction("a port")))


def test_all_hits_have_the_columns_and_order_of_a_search(exact: VectorStore, words: Words) -> None:
    hits = rsicd_embed.search(Query([Part("a port")], k=None), exact, words)
    assert hits.equals(exact.search(direction("a port"), k=len(exact)))
    none = rsicd_embed.search(Query([Part("a port")], k=None, where="width > 900"), exact, words)
    assert (len(none), none.schema) == (0, hits.schema)


def test_rows_alone_need_no_model(exact: VectorStore, words: Words) -> None:
    rsicd_embed.search(Query([Part(id="3/3"), Part(id="4/4", weight=-1)]), exact, words)
    assert words.embedded == []
    rsicd_embed.search(Query([Part("a"), Part("b"), Part("a", weight=-0.5)]), exact, words)
    assert words.embedded == ["a", "b"]
    rsicd_embed.search(Query([Part("b"), Part("c"), Part("a", weight=-0.5)]), exact, words)
    assert words.embedded == ["a", "b", "c"]  # recent texts are remembered
    rsicd_embed.search(Query([Part("a")], prompts="{category} port"), exact, words)
    assert words.embedded == ["a", "b", "c", "a port"]


def test_parts_to_avoid_share_the_weight_of_the_strongest(exact: VectorStore, words: Words) -> None:
    once = Query([Part("a port"), Part("rain", weight=-0.5)])
    thrice = Query([Part("a port"), *[Part("rain", weight=-0.5)] * 3])
    assert rsicd_embed.search(thrice, exact, words).equals(rsicd_embed.search(once, exact, words))
    parts = parse_all(texts=["a"], like=["i"], avoided=["b", "2*c"], unlike=["j"])
    assert [part.weight for part in parts] == [1, 1, -0.5, -1, -0.25]
    expected = [1, 1, -0.5 / 1.75, -1 / 1.75, -0.25 / 1.75]
    assert shared_weights(parts) == pytest.approx(expected)
    assert [str(part) for part in parts] == ["a", "like i", "not b", "not 2*c", "unlike j"]


def test_the_oldest_texts_are_forgotten(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_texts, "_MOST", 2)
    for texts in (["a", "b"], ["a", "c"], ["a"], ["b"]):
        vectors = recent_texts.text_vectors(words, texts, ("{category}",))
        for text in texts:
            np.testing.assert_array_equal(vectors[text], direction(text)[0])
    assert words.embedded == ["a", "b", "c", "b"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Query([]), "expected at least one"),
        (lambda: Query([Part("a", weight=-1)]), "to look for, found 1 to avoid"),
        (lambda: Query("a port"), "expected a list of parts"),
        (lambda: Query([Part("a")], k=0), "expected k"),
        (lambda: Query([Part("a")], offset=-1), "expected offset"),
        (lambda: Query([Part("a")], min_score=1.5), "from -1 to 1"),
        (lambda: Query([Part("a")], min_score=float("nan")), "from -1 to 1"),
        (lambda: Part("a", id="b"), "expected one of text, image and id"),
        (lambda: Part(), "expected one of text, image and id"),
        (lambda: Part("  "), "not empty"),
        (lambda: Part(id=5), "expected an id that is a string, found 5"),  # type: ignore[arg-type]
        (lambda: Part("a", weight=0), "weight other than 0"),
        (lambda: Part("a", weight=float("nan")), "weight other than 0"),
        (lambda: Part.parse("text", "0*a"), "weight other than 0"),
    ],
)
def test_wrong_queries(make: Callable[[], object], message: str) -> None:
    with pytest.raises((QueryError, ArgumentError), match=message):
        make()


def test_queries_without_a_vector(exact: VectorStore, words: Words) -> None:
    contradiction = Query([Part("a"), Part("b"), Part("b", weight=-2), Part("a", weight=-2)])
    with pytest.raises(QueryError, match="cancel out"):
        rsicd_embed.search(contradiction, exact, words)
    with pytest.raises(UnknownRowError, match="no row with the id 'nobody'"):
        rsicd_embed.search(Query([Part(id="nobody")]), exact, words)
    with pytest.raises(QueryError, match="expected rows with coordinates"):
        rsicd_embed.search(Query([Part("a")], within=BOX), exact, words)


def inside(area: Area, points: list[tuple[float, float]], stores: list[VectorStore]) -> list[bool]:
    """Whether each point is inside, as the filters of a store say."""
    rows = pa.table({"Longitude": [x for x, _ in points], "latitude": [y for _, y in points]})
    from rsicd_embed.stores.filters import matching

    return list(matching(rows, area.condition(rows.schema)))


def test_areas() -> None:
    box = Area.parse("170,-10,-170,10")
    assert inside(box, [(175, 0), (-175, 0), (0, 0), (175, 11)], []) == [True, True, False, False]
    shape = Area.of_geojson({"type": "Feature", "geometry": L_SHAPE})
    points = [(5.0, 5.0), (30.0, 5.0), (5.0, 30.0), (30.0, 30.0), (-1.0, 5.0), (10.1, 10.1)]
    assert inside(shape, points, []) == [True, True, True, False, False, False]
    assert inside(shape, [(10.1, 10.0)], []) == [True]  # an edge is part of the area
    outline = [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]
    hole = [[3, 3], [6, 3], [6, 6], [3, 6], [3, 3]]
    far = [[20, 20], [29, 20], [29, 29], [20, 29], [20, 20]]
    rings = Area.of_geojson({"type": "MultiPolygon", "coordinates": [[outline, hole], [far]]})
    points = [(1.0, 1.0), (4.0, 4.0), (25.0, 25.0), (15.0, 15.0)]
    assert inside(rings, points, []) == [True, False, True, False]


def test_polygons_of_many_points_agree_with_matplotlib() -> None:
    path = pytest.importorskip("matplotlib.path")
    angles = np.linspace(0, 2 * np.pi, 1500, endpoint=False)
    radius = 20 + 8 * np.sin(7 * angles)
    ring = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
    ring = np.concatenate([ring, ring[:1]])
    area = Area.of_geojson({"type": "Polygon", "coordinates": [ring.tolist()]})
    points = np.random.default_rng(0).uniform(-30, 30, (400, 2))
    assert inside(area, points.tolist(), []) == list(path.Path(ring).contains_points(points))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"type": "Point", "coordinates": [0, 0]}, "expected GeoJSON of type Polygon"),
        ({"type": "FeatureCollection", "features": []}, "found 0"),
        ({"type": "Polygon", "coordinates": []}, "found 0"),
        ([], "expected GeoJSON"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 1]]]}, "at least four points"),
        (
            {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]},
            "crosses itself",
        ),
        (
            {"type": "Polygon", "coordinates": [[[170, 0], [-170, 0], [-170, 9], [170, 0]]]},
            "antimeridian",
        ),
        ({"type": "Polygon", "coordinates": [[[0, 0], [900, 0], [9, 9], [0, 0]]]}, "in degrees"),
    ],
)
def test_wrong_polygons(document: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "place.geojson").write_text(json.dumps(document))
    with pytest.raises(QueryError, match=message) as raised:
        Area.parse(str(tmp_path / "place.geojson"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "0,50,1,-50", "-999,0,0,0", "nan,0,1,1"])
def test_wrong_boxes(text: str) -> None:
    with pytest.raises(QueryError, match="expected"):
        Area.parse(text)


def test_sql_has_the_scores_of_a_search(store: VectorStore, words: Words) -> None:
    parts = [Part("a port", weight=2), Part("rain", weight=-0.5), Part(id="3/3")]
    hits = rsicd_embed.search(Query(parts, k=20, with_examples=True), store, words)
    call = "similarity('2*a port', not => 'rain', like => '3/3')"
    rows = rsicd_embed.sql(
        f"SELECT id, {call} FROM images ORDER BY {call} DESC, id LIMIT 20", store, words
    )
    assert rows.column_names == ["id", call]
    assert rows["id"].equals(hits["id"])
    assert rows[call].to_pylist() == hits["score"].to_pylist()


def test_prompts_average_the_vectors_of_their_templates(exact: VectorStore, words: Words) -> None:
    prompts = [f"{start} a port" for start in ("an aerial photograph of", "a satellite image of")]
    prompts += ["an aerial view of a port", "a remote sensing image of a port", "a port"]
    hits = rsicd_embed.search(Query([Part("a port")], prompts="aerial"), exact, words)
    assert words.embedded == prompts
    mean = np.mean([direction(prompt)[0] for prompt in prompts], axis=0)
    assert hits["id"].equals(exact.search(mean)["id"])
    template = rsicd_embed.search(Query([Part("a")], prompts="{category} port"), exact, words)
    assert template.equals(exact.search(direction("a port")))


def test_unknown_prompts() -> None:
    with pytest.raises(QueryError, match=r"named none, photograph, aerial, or a template"):
        Query([Part("a port")], prompts="maps")
