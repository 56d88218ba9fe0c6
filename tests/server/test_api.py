"""The HTTP API returns the results of the store and the model."""

from __future__ import annotations

import base64
import datetime as dt
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import TypeAdapter

import rsicd_embed
from rsicd_embed import Area, Near, Part, Query
from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.embedder.training_words import TrainingWords
from rsicd_embed.find import finding
from rsicd_embed.find.finding import Question
from rsicd_embed.images import read_rgb
from rsicd_embed.server import attributes
from rsicd_embed.stores.base import open_store
from rsicd_embed.testing.stores import MADE_BY, batch, unit

from .conftest import Archive, make_archive

LABEL = {"column": "label", "operator": "=", "value": 'it\'s "odd"'}


def expected(archive: Archive, text: str, k: int, where: str | None = None) -> list[dict[str, Any]]:
    """The hits of the store's own `search`, without the columns that the API hides."""
    with rsicd_embed.open_store(archive.uri) as store:
        vectors = load_for_a_query(archive.model).embed_texts([text])
        hits = store.search(vectors, k=k, where=where).to_pylist()
    hidden = {"query", "uri"}
    return [{name: value for name, value in hit.items() if name not in hidden} for hit in hits]


def same(hits: list[dict[str, Any]], expected_hits: list[dict[str, Any]]) -> None:
    """Compares hits; the last bits of scores depend on the batch of a text."""
    assert len(hits) == len(expected_hits)
    for hit, other in zip(hits, expected_hits, strict=True):
        assert hit.pop("score") == pytest.approx(other.pop("score"), abs=1e-5)
        assert hit == other


def test_search_by_words(client: Any, archive: Archive) -> None:
    got = client.get("/api/search", params={"text": "a port", "k": 5})
    assert got.status_code == 200
    assert got.headers["content-type"] == "application/json"
    assert got.json()["query"] == "a port"
    same(got.json()["hits"], expected(archive, "a port", 5))
    posted = client.post("/api/search", json={"text": "a port", "k": 5})
    same(posted.json()["hits"], expected(archive, "a port", 5))


def test_filters_are_applied_before_k(client: Any, archive: Archive) -> None:
    year = {"column": "year", "operator": ">=", "value": 2003}
    query = {"text": "x", "k": 3, "filters": [LABEL, year]}
    hits = client.post("/api/search", json=query).json()["hits"]
    same(hits, expected(archive, "x", 3, "label = 'it''s \"odd\"' AND year >= 2003"))
    assert len(hits) == 3


def test_search_by_id_excludes_that_row(client: Any, archive: Archive) -> None:
    hits = client.post("/api/search", json={"id": archive.ids[3], "k": 11}).json()["hits"]
    assert {hit["id"] for hit in hits} == set(archive.ids) - {archive.ids[3]}
    assert [hit["rank"] for hit in hits] == list(range(1, 12))
    first = client.post("/api/search", json={"id": archive.ids[3], "k": 1}).json()["hits"]
    assert first == hits[:1]
    filtered = {"id": archive.ids[1], "k": 12, "filters": [LABEL]}
    hits = client.post("/api/search", json=filtered).json()["hits"]
    assert {hit["label"] for hit in hits} == {LABEL["value"]}
    assert archive.ids[1] not in {hit["id"] for hit in hits}


def test_composed_queries(client: Any, archive: Archive) -> None:
    parts = [Part("a port"), Part("rain", weight=-0.5), Part(id=archive.ids[3])]
    query = Query(parts, k=4, offset=2, within=Area((-180, -60, 100, 60)), where="year > 2001")
    with rsicd_embed.open_store(archive.uri) as store:
        expected = rsicd_embed.search(query, store, load_for_a_query(archive.model))
    body = {
        "text": "a port",
        "parts": [{"text": "rain", "weight": -0.5}, {"id": archive.ids[3]}],
        "k": 4,
        "offset": 2,
        "within": [-180, -60, 100, 60],
        "filters": [{"column": "year", "operator": ">", "value": 2001}],
    }
    got = client.post("/api/search", json=body).json()
    assert [hit["id"] for hit in got["hits"]] == expected["id"].to_pylist() != []
    assert [hit["rank"] for hit in got["hits"]] == [3, 4, 5, 6][: len(expected)]
    assert got["query"] == f"a port, not rain, like {archive.ids[3]}"
    ring = [[-180, -60], [100, -60], [100, 60], [-180, 60], [-180, -60]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    wide = {"type": "MultiPolygon", "coordinates": [[[[-180, -60], [0, -60], [0, 60], [-180, 60],
            [-180, -60]]], [[[0, -60], [100, -60], [100, 60], [0, 60], [0, -60]]]]}  # fmt: skip
    assert client.post("/api/search", json=body | {"within": wide}).json() == got
    assert "antimeridian" in client.post("/api/search", json=body | {"within": polygon}).text
    near = {"text": "a port", "near": "0,0,6000km", "k": 200}
    with rsicd_embed.open_store(archive.uri) as store:
        query = Query([Part("a port")], k=200, near=Near(0, 0, 6_000_000))
        expected = rsicd_embed.search(query, store, load_for_a_query(archive.model))
    assert 0 < len(expected) < len(archive.ids)
    for response in (
        client.post("/api/search", json=near | {"contained": True}),
        client.get("/api/search", params=near),
    ):
        assert [hit["id"] for hit in response.json()["hits"]] == expected["id"].to_pylist()
    wrong = client.get("/api/search", params=near | {"near": "0,0,1"})
    assert wrong.status_code == 422 and "expected LON,LAT,RADIUS" in wrong.text
    params = {"text": "a port", "not": "rain", "like": archive.ids[3], "k": 12}
    listed = client.get("/api/search", params=params | {"min_score": -1}).json()["hits"]
    assert archive.ids[3] not in [hit["id"] for hit in listed]
    least = listed[5]["score"]
    best = client.get("/api/search", params=params | {"min_score": least}).json()["hits"]
    assert best == listed[:6]
    assert (
        client.get("/api/search", params=params | {"offset": 2, "k": 3}).json()["hits"]
        == (listed[2:5])
    )


def test_prompts(client: Any, archive: Archive) -> None:
    template = {"text": "port", "prompts": "a {category} at night", "k": 5}
    hits = client.get("/api/search", params={"text": "a port at night", "k": 5}).json()["hits"]
    assert client.get("/api/search", params=template).json()["hits"] == hits
    assert client.post("/api/search", json=template).json()["hits"] == hits


def test_hybrid(client: Any, archive: Archive) -> None:
    query = {"text": "river", "hybrid": True, "text_column": "label", "k": 5}
    hits = client.get("/api/search", params=query).json()["hits"]
    assert {hit["label"] for hit in hits[:3]} == {"river"}
    assert hits[0]["text_score"] > 0
    assert client.post("/api/search", json=query).json()["hits"] == hits
    condition = {"column": "label", "operator": "=", "value": "port"}
    hits = client.post("/api/search", json=query | {"filters": [condition]}).json()["hits"]
    assert {hit["label"] for hit in hits} == {"port"}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"text": "a", "hybrid": True}, 422, "expected a text column"),
        ({"text": "…", "hybrid": True, "text_column": "label"}, 422, "a text with words"),
        ({"k": 3}, 422, "expected at least one text, image or id to look for, found none"),
        ({"parts": [{"text": "a", "weight": -1}]}, 422, "found 1 to avoid"),
        ({"parts": [{"text": "a", "weight": 0}]}, 422, "weight other than 0"),
        ({"parts": [{"text": "a", "id": "b"}]}, 422, "expected one of text, image and id"),
        ({"text": "a", "parts": [{"text": "a", "weight": -1}]}, 422, "cancel out"),
        ({"text": "a", "parts": [{"id": "nobody", "weight": -1}]}, 404, "no row with the id"),
        ({"text": "a", "within": [1, 2]}, 422, "expected minlon,minlat,maxlon,maxlat"),
        ({"text": "a", "within": {"type": "Point"}}, 422, "within: expected GeoJSON"),
        ({"text": "a", "min_score": 2}, 422, "min_score"),
        ({"text": "a", "offset": 10**6}, 422, "offset"),
        ({"text": "a", "prompts": "maps"}, 422, "expected prompts named none, photograph, aerial"),
    ],
)
def test_wrong_composed_queries(client: Any, body: Any, status: int, message: str) -> None:
    got = client.post("/api/search", json=body)
    assert got.status_code == status
    assert message in got.json()["error"]


def test_search_by_image(client: Any, archive: Archive) -> None:
    data = (archive.folder / archive.ids[4]).read_bytes()
    form = {"k": "3", "filters": json.dumps([LABEL])}
    got = client.post("/api/search/image", files={"image": ("a.png", data)}, data=form).json()
    assert got["hits"][0]["id"] == archive.ids[4]
    assert got["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert {hit["label"] for hit in got["hits"]} == {LABEL["value"]}


def test_find_in_image(client: Any, archive: Archive) -> None:
    path = archive.folder / archive.ids[5]
    form = {
        "text": "a port",
        "patch": ["20", "40"],
        "overlap": "0.25",
        "k": "4",
        "against": ["sea"],
    }
    uploaded = client.post("/api/find", files={"image": path.read_bytes()}, data=form).json()
    stored = client.post("/api/find", data=form | {"id": archive.ids[5]}).json()
    assert uploaded == stored
    result = finding.find(
        read_rgb(path),
        Question("a port", ("sea",), (20, 40), 0.25),
        load_for_a_query(archive.model),
    )
    assert uploaded["count"] == len(result.boxes)
    assert [patch["box"] for patch in uploaded["patches"]] == [
        patch["box"] for patch in result.best(4)
    ]
    np.testing.assert_allclose(
        [patch["score"] for patch in uploaded["patches"]],
        [patch["score"] for patch in result.best(4)],
        atol=1e-5,
    )
    head, _, data = uploaded["heat_map"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as heat:
        assert (heat.mode, heat.size) == ("RGBA", (uploaded["width"], uploaded["height"]))


def test_thumbnails(client: Any, archive: Archive) -> None:
    for id_ in archive.ids:
        got = client.get("/api/pictures", params={"id": id_, "side": 32})
        assert got.headers["content-type"] == "image/jpeg"
        with Image.open(io.BytesIO(got.content)) as small:
            assert max(small.size) == 32
            full = read_rgb(archive.folder / id_).resize(small.size)
            difference = np.asarray(full, float) - np.asarray(small.convert("RGB"), float)
            assert np.abs(difference).mean() < 12
    again = client.get(
        "/api/pictures",
        params={"id": archive.ids[-1], "side": 32},
        headers={"if-none-match": got.headers["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")
    whole = client.get("/api/pictures", params={"id": archive.ids[0], "side": 1000})
    with Image.open(io.BytesIO(whole.content)) as large:
        assert large.size == (60, 50)  # never enlarged


@pytest.mark.parametrize("url", ["/", "/static/app.js", "/static/land.svg"])
def test_known_files_of_the_page_are_not_sent_again(client: Any, url: str) -> None:
    first = client.get(url)
    assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
    again = client.get(url, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(url, headers={"if-none-match": '"older"'})
    assert (other.status_code, other.content) == (200, first.content)


def test_columns(client: Any, archive: Archive) -> None:
    got = client.get("/api/columns").json()
    assert got["rows"] == len(archive.ids)
    assert got["place"] == {"lon": "lon", "lat": "lat"}
    columns = {column.pop("name"): column for column in got["columns"]}
    assert set(columns) == {"width", "height", "label", "year", "lon", "lat", "cloudy"}
    assert columns["label"]["values"] == ["port", 'it\'s "odd"', "river"]
    assert (columns["year"]["min"], columns["year"]["max"]) == (2000, 2011)
    assert columns["cloudy"]["kind"] == "truth"
    assert columns["cloudy"]["type"] == "bool"
    assert "names" not in columns["label"]  # readable already, or unknown
    assert got["originals"] is False


def test_columns_have_class_names_and_ranges_of_times(tmp_path: Path) -> None:
    moments = [dt.datetime(2020, 1, day) for day in (2, 1, 3)]
    rows = batch(
        ["a", "b", "c"],
        unit(3),
        label=["denseresidential", "port", "it's"],
        country=["France", "denseresidential", None],
        at=pa.array(moments, pa.timestamp("ns", "+05:30")),
        plain=pa.array(moments, pa.timestamp("s")),
        day=pa.array([moment.date() for moment in moments]),
        far=pa.array([10**15, None, 0], pa.timestamp("s")),
        half=pa.array([1.5, float("nan"), -2.0], pa.float16()),
        mars=pa.array(moments, pa.timestamp("us", "UTC")).cast(pa.timestamp("us", "Mars/Olympus")),
    )
    with open_store(f"exact:{tmp_path}/store", MADE_BY) as store:
        store.upsert([rows])
        store.upsert([batch(["d"], unit(1), far=pa.array([7], pa.timestamp("s")))])
        columns = {column["name"]: column for column in attributes.describe(store)["columns"]}
    assert columns["label"]["names"] == {"denseresidential": "dense residential area"}
    assert set(columns["label"]["values"]) == {"denseresidential", "port", "it's"}
    assert "names" not in columns["country"]
    ranges = {name: (column.get("min"), column.get("max")) for name, column in columns.items()}
    assert ranges["at"] == ("2020-01-01T05:30:00+05:30", "2020-01-03T05:30:00+05:30")
    assert ranges["plain"] == ("2020-01-01T00:00:00", "2020-01-03T00:00:00")
    assert ranges["day"] == ("2020-01-01", "2020-01-03")
    assert ranges["mars"] == ("2020-01-01T00:00:00+00:00", "2020-01-03T00:00:00+00:00")
    assert ranges["far"] == (None, None)
    assert ranges["half"] == (-2.0, 1.5)
    assert columns["at"]["type"] == "timestamp[ns, tz=+05:30]"


def test_thumbnails_of_narrow_images(own_archive: Archive, serve: Callable[..., Any]) -> None:
    id_ = own_archive.ids[1]
    Image.new("RGB", (4000, 1), (9, 90, 200)).save(own_archive.folder / id_)
    with rsicd_embed.open_store(own_archive.uri) as store:
        row = store.scan(where=f"id = '{id_}'").read_all()
        place = row.schema.get_field_index("sha256")
        store.upsert(row.set_column(place, "sha256", pa.nulls(1, pa.string())).to_batches())
    narrow = serve(own_archive)
    got = narrow.get("/api/pictures", params={"id": id_, "side": 64})
    assert Image.open(io.BytesIO(got.content)).size == (64, 1)
    # Without a hash in the store, the ETag is that of the picture, which may change.
    Image.new("RGB", (4000, 1), (200, 90, 9)).save(own_archive.folder / id_)
    headers = {"if-none-match": got.headers["etag"]}
    changed = narrow.get("/api/pictures", params={"id": id_, "side": 64}, headers=headers)
    assert changed.status_code == 200 and changed.content != got.content


@pytest.mark.parametrize(
    ("method", "url", "fields", "message"),
    [
        ("get", "/api/search", {"text": "a", "where": "year > 2001"}, "where: unknown parameter"),
        ("get", "/api/search", {"text": "a", "k": [1, 2]}, "k: expected one value"),
        ("get", "/api/search", {"text": ["a", "b"], "like": ["1.png", "2.png"]}, None),
        ("get", "/api/pictures", {"id": "1.png", "size": "9"}, "size: unknown parameter"),
        ("post", "/api/find", {"text": "a", "id": "1.png", "top": "3"}, "top: unknown parameter"),
        ("post", "/api/find", {"text": "a", "id": "1.png", "against": ["b", "c"]}, None),
        ("post", "/api/find", {"text": "a", "id": ["1.png", "2.png"]}, "id: expected one value"),
    ],
)
def test_ignored_parameters_are_refused(
    client: Any, method: str, url: str, fields: dict[str, Any], message: str | None
) -> None:
    got = client.request(method, url, **{"params" if method == "get" else "data": fields})
    if message is None:
        assert got.status_code == 200
    else:
        assert got.status_code == 422
        assert message in got.json()["error"]
    form = client.post("/api/search", data={"text": "a"})  # instead of JSON
    assert form.status_code == 422 and "unknown" not in form.json()["error"]


def test_original_files_require_paths(
    client: Any, archive: Archive, serve: Callable[..., Any]
) -> None:
    id_ = archive.ids[0]
    query = {"id": id_, "original": "true"}
    assert client.get("/api/pictures", params=query).status_code == 403
    shown = serve(archive, paths=True)
    got = shown.get("/api/pictures", params=query)
    assert got.content == (archive.folder / id_).read_bytes()
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''0.png"
    assert shown.get("/api/columns").json()["originals"] is True
    hits = shown.post("/api/search", json={"id": archive.ids[1], "k": 12}).json()["hits"]
    assert str(archive.folder / id_) in [hit["uri"] for hit in hits]
    assert shown.get("/api/pictures", params=query | {"id": "nowhere"}).status_code == 404


def test_server_state(client: Any, archive: Archive) -> None:
    assert client.get("/healthz").json() == {"alive": True}
    assert client.get("/readyz").json() == {
        "ready": True, "rows": len(archive.ids), "model": archive.model.name,
    }  # fmt: skip
    client.get("/nowhere/1")
    text = client.get("/metrics").text
    assert 'rsicd_embed_requests_total{method="GET",route="/healthz",status="200"}' in text
    assert 'route="other",status="404"' in text
    assert "/nowhere" not in text
    assert "rsicd_embed_batch_searches_count" in text


def test_responses_match_the_schemas(client: Any, archive: Archive) -> None:
    """Routes do not validate their responses, so this test does."""
    from rsicd_embed.server import page_schemas, schemas

    def check(type_: Any, document: Any) -> None:
        TypeAdapter(type_).validate_python(document, strict=True)

    check(schemas.Hits, client.get("/api/search", params={"text": "x"}).json())
    check(page_schemas.ColumnList, client.get("/api/columns").json())
    check(page_schemas.Overview, client.post("/api/overview", json={}).json())
    check(page_schemas.Ready, client.get("/readyz").json())
    response = client.post("/api/find", data={"text": "x", "id": archive.ids[0]}).json()
    check(schemas.FindResponse, response)
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/api/search", "/api/search/image", "/api/find", "/api/pictures"} <= set(paths)


def test_security_headers_are_on_every_response(client: Any) -> None:
    for url in ("/", "/api/columns", "/nowhere", "/api/search", "/metrics"):
        headers = client.get(url).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_unknown_words_are_reported(
    archive: Archive, serve: Callable[[Archive], Any], tiny_model: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    TrainingWords({"port": 30}).write(model)
    trained = serve(make_archive(tmp_path / "trained", model, count=3))
    line = (
        "'marina' never occurred in this model's training captions, so the ranking may be "
        "meaningless; known words near it: port"
    )
    for text, warnings in {"a marina": [line], "a port": []}.items():
        assert trained.get("/api/search", params={"text": text}).json()["warnings"] == warnings
        assert trained.post("/api/search", json={"text": text}).json()["warnings"] == warnings
        form = {"text": text, "id": archive.ids[1]}
        assert trained.post("/api/find", data=form).json()["warnings"] == warnings
    assert trained.post("/api/search", json={"id": archive.ids[1]}).json()["warnings"] == []
    data = (archive.folder / archive.ids[1]).read_bytes()
    by_image = trained.post("/api/search/image", files={"image": ("a marina", data)})
    assert by_image.json()["warnings"] == []
    assert serve(archive).get("/api/search", params={"text": "marina"}).json()["warnings"] == []
