"""Areas of the page's map: drawn, typed, or the visible part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import picture
from tests.helpers import until

from .browsing import (
    map_bounds,
    on_map,
    parameters,
    patient_page,
    search,
    searched,
    seen_on_map,
)
from .conftest import Archive
from .map_tiles import CENTRE, COLUMNS, TILE, WEST


@pytest.fixture
def page(map_page: Any) -> Any:
    """The page of a server for the tiles."""
    return map_page


def test_a_drawn_box_limits_results(page: Any) -> None:
    search(page, "x")
    page.click("#draw-box")
    (x1, y1), (x2, y2) = on_map(page, 10.3, 51.9), on_map(page, 10.7, 51.5)
    page.mouse.move(x1, y1)
    page.mouse.down()
    page.mouse.move((x1 + x2) / 2, y2)
    page.mouse.move(x2, y2)
    with page.expect_request("**/api/search") as sent:
        page.mouse.up()
    within = json.loads(sent.value.post_data)["within"]
    assert within == pytest.approx([10.3, 51.5, 10.7, 51.9], abs=0.02)
    assert parameters(page)["within"] == [",".join(f"{x:g}" for x in within)]
    assert page.get_attribute("#draw-box", "aria-pressed") == "false"
    searched(page, "9 results")  # three columns and rows of tiles intersect it
    page.reload()
    searched(page, "9 results")
    page.locator("#chips button").last.click()
    until(lambda: "within" not in parameters(page))
    searched(page, "24 results")


def test_a_drawn_polygon_limits_results(page: Any) -> None:
    search(page, "x")
    page.click("#draw-polygon")
    assert page.inner_text("#draw-help").startswith("Choose the corners")
    corners = [(10.05, 51.95), (11.55, 51.95), (10.05, 51.05)]
    for corner in corners:
        page.mouse.click(*on_map(page, *corner))
    assert page.is_visible("#close-polygon")
    with page.expect_request("**/api/search") as sent:
        page.mouse.click(*on_map(page, *corners[0]))
    shape = json.loads(sent.value.post_data)["within"]
    assert shape["type"] == "Polygon"
    assert np.allclose(shape["coordinates"][0], [*corners, corners[0]], atol=0.02)
    searched(page, "24 results")
    page.select_option("#k", "48")
    # Tiles of the upper left half, and those on the diagonal.
    words = searched(page, "results")
    assert 20 < int(words.split()[0]) < 40
    assert page.locator("#chips button").last.inner_text().startswith("in a polygon of 3 corners")
    page.reload()
    assert searched(page, "results").split()[0] == words.split()[0]


def test_a_polygon_is_drawn_with_the_keyboard(page: Any) -> None:
    page.focus("#draw-polygon")
    page.keyboard.press("Enter")
    page.focus("#map-canvas")
    page.keyboard.press("Enter")
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
        page.keyboard.press("Enter")
    page.keyboard.press("Backspace")
    assert page.is_visible("#close-polygon")
    page.focus("#close-polygon")
    page.keyboard.press("Enter")
    until(lambda: "within" in parameters(page))
    assert len(parameters(page)["within"][0].split(",")) == 6


def test_a_polygon_that_crosses_itself_is_refused(browser: Any, map_address: str) -> None:
    with patient_page(browser) as page:  # the refusal is an error on the console
        page.goto(map_address)
        seen_on_map(page, "40 images in view")
        page.fill("#area", "0, 0, 10, 10, 10, 0, 0, 5")
        page.keyboard.press("Enter")
        until(lambda: "a polygon crosses itself" in page.inner_text("#error"))


def test_escape_ends_drawing(page: Any) -> None:
    for tool in ("#draw-box", "#draw-polygon"):
        page.focus(tool)
        page.keyboard.press("Enter")
        assert page.get_attribute(tool, "aria-pressed") == "true"
        page.mouse.click(*on_map(page, *CENTRE))
        page.keyboard.press("Escape")
        assert page.get_attribute(tool, "aria-pressed") == "false"
        assert page.inner_text("#draw-help") == ""
    assert parameters(page) == {}


def test_the_view_limits_results(page: Any) -> None:
    page.click("#zoom-in")
    page.click("#limit-to-view")
    until(lambda: "within" in parameters(page))
    west, south, east, north = map(float, parameters(page)["within"][0].split(","))
    assert WEST - 1 < west < east < WEST + COLUMNS * TILE + 1
    assert 50 < south < north < 53


def test_a_typed_area_limits_results(page: Any) -> None:
    search(page, "a port")
    page.fill("#area", "170, -20, -170, 20")  # across the antimeridian
    page.keyboard.press("Enter")
    until(lambda: parameters(page).get("within") == ["170,-20,-170,20"])
    searched(page, "No results")
    until(lambda: map_bounds(page)[2] > 180 or map_bounds(page)[0] < -180)
    for wrong in ("1, 2, 3", "a, b, c, d", "0, 50, 10, 40", "0, 0, 999, 10", "0, 0, 9, 9, 9, 99"):
        page.fill("#area", wrong)
        page.keyboard.press("Enter")
        until(lambda: page.inner_text("#error").startswith("Expected west, south, east, north"))
        assert parameters(page)["within"] == ["170,-20,-170,20"]
    page.fill("#area", "")
    page.keyboard.press("Enter")
    until(lambda: "within" not in parameters(page))


def test_an_image_is_searched_in_a_polygon(page: Any, tmp_path: Path) -> None:
    picture(7, (67, 50)).save(tmp_path / "mine.png")
    page.click("#tab-picture")
    page.set_input_files("#file-picture", tmp_path / "mine.png")
    searched(page, "like mine.png")
    page.fill("#area", "10.01, 51.99, 10.19, 51.99, 10.01, 51.81")
    page.keyboard.press("Enter")
    searched(page, "1 result")
    assert page.locator(".card .name").all_inner_texts() == ["tile0"]


@pytest.mark.parametrize("within", [[10.01, 51.81, 10.19, 51.99], "box", "polygon"])
def test_areas_of_the_api(tiles: Archive, serve: Callable[[Archive], Any], within: Any) -> None:
    client = serve(tiles)
    ring = [[10.01, 51.99], [10.01, 51.81], [10.19, 51.99], [10.01, 51.99]]
    texts = {
        "box": "10.01,51.81,10.19,51.99",
        "polygon": json.dumps({"type": "Polygon", "coordinates": [ring]}),
    }
    if isinstance(within, str):
        got = client.get("/api/search", params={"text": "x", "within": texts[within]})
    else:
        got = client.post("/api/search", json={"text": "x", "within": within})
    assert [hit["id"] for hit in got.json()["hits"]] == ["tile0"]
    bad = client.get("/api/search", params={"text": "x", "within": "{"})
    assert bad.status_code == 422
    assert bad.json()["error"] == "within: expected GeoJSON, found something else"


def test_polygons_across_the_antimeridian_are_split(page: Any) -> None:
    code = 'text => import("/static/map_area.js").then(area => area.toRequest(text))'
    whole = page.evaluate(code, "170,10,190,10,190,-10,170,-10")
    assert whole["type"] == "MultiPolygon"
    west, east = ({tuple(place) for place in ring[0]} for ring in whole["coordinates"])
    assert west == {(170, 10), (180, 10), (180, -10), (170, -10)}
    assert east == {(-180, 10), (-170, 10), (-170, -10), (-180, -10)}
    shifted = page.evaluate(code, "-190,10,-170,10,-170,-10,-190,-10")
    assert shifted == whole
    plain = page.evaluate(code, "0,0,1,0,1,1")
    assert plain == {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
