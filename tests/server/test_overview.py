"""The archive before any query: a sample of images, and all places on a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.server import overview
from rsicd_embed.stores.base import open_store
from rsicd_embed.testing.stores import MADE_BY, batch

from .browsing import (
    LOADED,
    LOOKS,
    SCREENS,
    SIZES,
    on_map,
    opened,
    parameters,
    results,
    searched,
    seen_on_map,
    serious_violations,
    served,
    until,
)
from .conftest import LABELS, Archive, make_archive

PLACE = (-133, -2)  # of one of the images
LABEL = {"column": "label", "operator": "=", "value": LABELS[2]}

# --- the API ---------------------------------------------------------------------------------


def test_sample_and_places(client: Any, archive: Archive) -> None:
    answer = client.post("/api/overview", json={"k": 5}).json()
    assert (answer["rows"], answer["complete"]) == (12, True)
    ids = [row["id"] for row in answer["sample"]]
    assert len(set(ids)) == 5
    assert set(ids) < set(archive.ids)
    assert "vector" not in answer["sample"][0]
    assert {"label", "year", "lon", "lat"} < set(answer["sample"][0])
    assert sum(group["count"] for group in answer["places"]) == 12
    assert client.post("/api/overview", json={"k": 5}).json() == answer  # always the same
    assert len(client.post("/api/overview", json={}).json()["sample"]) == 12


def test_conditions(client: Any, archive: Archive) -> None:
    answer = client.post("/api/overview", json={"filters": [LABEL]}).json()
    assert {row["label"] for row in answer["sample"]} == {LABELS[2]}
    assert answer["rows"] == len(answer["sample"]) == sum(g["count"] for g in answer["places"])
    box = [-100, -60, 100, 60]
    answer = client.post("/api/overview", json={"within": box}).json()
    assert 0 < answer["rows"] < 12
    assert all(abs(row["lon"]) <= 100 and abs(row["lat"]) <= 60 for row in answer["sample"])
    seen = client.post("/api/overview", json={"within": box, "view": [0, -90, 180, 90]}).json()
    assert 0 < seen["rows"] < answer["rows"]
    assert all(0 <= row["lon"] <= 100 and abs(row["lat"]) <= 60 for row in seen["sample"])
    none = client.post("/api/overview", json={"within": [0, 0, 0.1, 0.1]}).json()
    assert none == {"rows": 0, "complete": True, "sample": [], "places": []}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"k": 0}, "k: "),
        ({"k": 201}, "k: "),
        ({"within": [0, 50, 1, 40]}, "rising latitudes"),
        ({"within": [0, 50]}, "minlon,minlat,maxlon,maxlat"),
        ({"filters": [{"column": "no", "value": 1}]}, "no column 'no'"),
        ({"text": "a"}, "text: "),
    ],
)
def test_invalid_requests(client: Any, body: dict[str, Any], message: str) -> None:
    got = client.post("/api/overview", json=body)
    assert got.status_code == 422
    assert message in got.json()["error"]


def test_paths_are_hidden(own_archive: Archive, serve: Callable[..., Any]) -> None:
    with open_store(own_archive.uri) as store:
        rows = store.scan().read_all()
        scenes = pa.array([f"/secret/{i % 2}.tif" for i in range(len(rows))])
        store.upsert(rows.append_column("scene", scenes).to_batches())
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/api/overview", {}), ("/api/search", {"id": own_archive.ids[0]}),
    ]  # fmt: skip
    hidden, shown = serve(own_archive), serve(own_archive, paths=True)
    for url, body in requests:
        text = hidden.post(url, json=body).text
        assert not any(word in text for word in ('"uri"', '"scene"', "/secret"))
        text = shown.post(url, json=body).text
        assert '"uri"' in text and "/secret/1.tif" in text
        for column, value in (("scene", "/secret/0.tif"), ("uri", "x")):
            filters = [{"column": column, "operator": "starts with", "value": value}]
            refused = hidden.post(url, json=body | {"filters": filters})
            assert refused.status_code == 422 and "hides paths" in refused.json()["error"]
            assert shown.post(url, json=body | {"filters": filters}).status_code == 200
    assert "/secret" not in hidden.get("/api/columns").text
    assert "/secret/0.tif" in shown.get("/api/columns").text


def test_rows_without_coordinates(tmp_path: Path) -> None:
    with open_store(f"exact:{tmp_path / 'plain'}", MADE_BY) as store:
        store.upsert([batch(["a", "b"])])
        answer = overview.summarise(store, 5)
    assert sorted(row["id"] for row in answer["sample"]) == ["a", "b"]
    assert answer["places"] == []


@pytest.mark.parametrize("scheme", ["exact", "lancedb"])
def test_large_stores(tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    count = 5000
    places = {"lon": rng.uniform(2, 3, count), "lat": [*rng.uniform(48, 49, count - 1), np.nan]}
    with open_store(f"{scheme}:{tmp_path / 'many'}", MADE_BY) as store:
        store.upsert([batch([f"{i}" for i in range(count)], **places)])
        answer = overview.summarise(store, 24)
        assert len(answer["places"]) <= 72 * 36
        assert sum(group["count"] for group in answer["places"]) == count - 1
        for group in answer["places"]:
            west, south, east, north = group["box"]
            assert west - 1e-6 <= group["lon"] <= east + 1e-6
            assert south - 1e-6 <= group["lat"] <= north + 1e-6
            assert east - west <= 1 / 72 + 1e-9
        ids = [row["id"] for row in answer["sample"]]
        assert max(map(int, ids)) > 2500  # not the first rows
        monkeypatch.setattr(overview, "_MOST_ROWS", 10)
        partial = overview.summarise(store, 24)
        assert partial["rows"] <= count
        assert partial["complete"] == (partial["rows"] == count)


# --- the page --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[str]:
    """The address of a server for an archive of 30 images."""
    archive = make_archive(tmp_path_factory.mktemp("overview"), tiny_model, count=30)
    with served(archive.uri, "--backend", "numpy") as address:
        yield address


@pytest.fixture(params=SCREENS)
def page(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    """The page of that server."""
    with opened(browser, address, viewport=SIZES[request.param]) as page:
        yield page


def test_the_page_starts_with_the_archive(page: Any) -> None:
    assert searched(page, "images") == "24 of 30 images"
    assert len(results(page)) == 24
    seen_on_map(page, "30 images in view")
    until(lambda: page.evaluate(LOADED.format(".card img"))[0])
    assert page.locator(".card .less").count() == 0
    assert page.is_hidden("#min")
    page.locator(".card .picture").first.click()
    assert page.inner_text("#view-rank") == "Result 1 of 24"
    assert page.is_hidden("#view-less")
    page.keyboard.press("Escape")
    page.locator(".card .picture").first.focus()
    page.keyboard.press("-")  # does nothing without a query
    first = results(page)[0]
    page.keyboard.press("+")
    searched(page, "24 results like 1 example")
    assert parameters(page) == {"more": [first]}
    page.click("#undo")
    assert searched(page, "images") == "24 of 30 images"


def test_conditions_without_a_query(page: Any) -> None:
    searched(page, "images")
    until(lambda: page.is_visible("#filters"))
    page.click("#filters summary")
    page.click("#add-filter")
    page.select_option(".condition .value", LABELS[2])
    assert searched(page, "9 images") == "9 images"
    page.reload()
    assert searched(page, "9 images") == "9 images"
    page.locator("#chips button").first.click()
    searched(page, "24 of 30 images")
    page.select_option("#k", "12")
    searched(page, "12 of 30 images")


def test_a_group_on_the_map_limits_to_its_place(page: Any) -> None:
    seen_on_map(page, "30 images in view")
    page.mouse.click(*on_map(page, *PLACE))
    until(lambda: "within" in parameters(page))
    assert parameters(page)["within"] == [f"{PLACE[0]:g},{PLACE[1]:g},{PLACE[0]:g},{PLACE[1]:g}"]
    searched(page, "1 image")
    page.click("#clear")
    searched(page, "24 of 30 images")


def test_nothing_is_found(browser: Any, address: str) -> None:
    with opened(browser, address, "?within=0,0,0.1,0.1") as page:
        searched(page, "No images: the store is empty, or no row matches the filters.")
        assert page.is_visible("#map")


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_the_start_is_accessible(browser: Any, address: str, theme: str, size: str) -> None:
    with opened(browser, address, viewport=SIZES[size]) as page:
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        seen_on_map(page, "30 images in view")
        assert serious_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
