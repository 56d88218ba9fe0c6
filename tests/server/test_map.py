"""The map of the page: moving it by mouse, touch and keyboard, footprints, and drawn areas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.geography.footprints import Georeference, footprints
from rsicd_embed.testing.stores import batch

from .browsing import (
    SIZES,
    map_bounds,
    map_colour,
    on_map,
    opened_without_images,
    parameters,
    patient_page,
    search,
    searched,
    seen_on_map,
    serious_violations,
    served,
    until,
)

SIDE = 200  # of a tile in pixels
COLUMNS, ROWS = 8, 5
TILE = 0.2  # degrees
WEST, NORTH = 10.0, 52.0
CENTRE = (WEST + 2.5 * TILE, NORTH - 1.5 * TILE)  # of a tile
LINE = "[...document.querySelectorAll('.card')].map(card => card.classList.contains('marked'))"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[str]:
    """The address of a server for a store of 8 by 5 tiles of a scene, with footprints."""
    uri = f"exact:{tmp_path_factory.mktemp('map') / 'store'}"
    embedder = load_for_a_query(tiny_model)
    columns, rows = (axis.ravel() * SIDE for axis in np.meshgrid(range(COLUMNS), range(ROWS)))
    degree = TILE / SIDE
    places = footprints(
        Georeference("EPSG:4326", (degree, 0, WEST, 0, -degree, NORTH)),
        np.stack([columns, rows, columns + SIDE, rows + SIDE], axis=1),
    )
    count = COLUMNS * ROWS
    vectors = np.random.default_rng(0).normal(size=(count, embedder.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tiles = batch(
        [f"tile{i}" for i in range(count)],
        vectors,
        lon=places.lon,
        lat=places.lat,
        geometry=places.geometry,
    )
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        store.upsert([tiles])
    with served(uri, "--backend", "numpy") as address:
        yield address


@pytest.fixture(params=["desktop", pytest.param("phone", marks=pytest.mark.slow)])
def page(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    """The page of that server, on a phone and on a desktop."""
    with opened_without_images(browser, address, "", SIZES[request.param]) as page:
        seen_on_map(page, "40 images in view")
        yield page


def find_all(page: Any) -> None:
    """Searches for all tiles."""
    page.select_option("#k", "48")
    search(page, "x")
    seen_on_map(page, "40 results in view")


# --- moving ----------------------------------------------------------------------------------


def test_the_map_shows_all_places(page: Any) -> None:
    west, south, east, north = map_bounds(page)
    assert west < WEST < WEST + COLUMNS * TILE < east < 30
    assert 40 < south < NORTH - ROWS * TILE < NORTH < north
    # Shapes look as they do on the ground.
    box = page.locator("#map-canvas").bounding_box()
    narrow = (box["width"] / (east - west)) / (box["height"] / (north - south))
    assert narrow == pytest.approx(np.cos(np.radians((south + north) / 2)), rel=0.05)


def test_the_mouse_moves_the_map(page: Any) -> None:
    place = CENTRE
    x, y = on_map(page, *place)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y - 30)
    page.mouse.move(x + 40, y - 20)
    page.mouse.up()
    until(lambda: np.allclose(on_map(page, *place), (x + 40, y - 20), atol=1))
    assert parameters(page) == {}  # a drag chooses nothing


def test_the_wheel_zooms_where_it_points_after_a_click(page: Any) -> None:
    before = map_bounds(page)
    x, y = on_map(page, 9.95, 52.05)  # no tile
    page.mouse.move(x, y)
    page.mouse.wheel(0, -100)
    until(lambda: page.is_visible("#map-hint"))
    assert map_bounds(page) == before
    x, y = on_map(page, 9.95, 52.05)
    page.mouse.click(x, y)
    page.mouse.wheel(0, -500)
    until(lambda: map_bounds(page)[2] - map_bounds(page)[0] < (before[2] - before[0]) / 3)
    # Events of the wheel have whole pixels.
    assert on_map(page, 9.95, 52.05) == pytest.approx((x, y), abs=6)


def test_buttons_zoom(page: Any) -> None:
    def width() -> float:
        west, _, east, _ = map_bounds(page)
        return east - west

    first = width()
    page.click("#zoom-in")
    until(lambda: width() == pytest.approx(first / 2, rel=0.02))
    page.click("#zoom-out")
    page.click("#zoom-earth")
    until(lambda: width() == pytest.approx(360, abs=15) or width() > 200)
    page.locator("#map-canvas").focus()
    for _ in range(40):
        page.keyboard.press("-")
    until(lambda: map_bounds(page)[1] <= -85)
    for _ in range(40):
        page.keyboard.press("+")
    until(lambda: 0 < width() < 0.01)
    page.click("#zoom-places")
    until(lambda: width() == pytest.approx(first, rel=0.01))


def test_the_keyboard_moves_the_map_and_chooses(page: Any) -> None:
    find_all(page)
    west, south, east, north = map_bounds(page)
    page.locator("#map-canvas").focus()
    help_ = page.locator("#map-help")
    until(lambda: help_.evaluate("item => getComputedStyle(item).opacity") == "1")
    page.keyboard.press("ArrowRight")
    until(lambda: map_bounds(page)[0] == pytest.approx(west + (east - west) / 5, rel=1e-3))
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    until(lambda: map_bounds(page)[1] == pytest.approx(south + (north - south) / 5, rel=1e-3))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("=")
    until(lambda: map_bounds(page)[0] > west + 0.1)
    page.keyboard.press("Enter")  # the middle is a tile
    until(lambda: sum(page.evaluate(LINE)) == 1)


def test_the_map_goes_round_the_earth(page: Any) -> None:
    page.click("#zoom-earth")
    page.locator("#map-canvas").focus()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    until(lambda: map_bounds(page)[0] > -180)
    west, _, east, _ = map_bounds(page)
    assert -180 <= (west + east) / 2 <= 180
    seen_on_map(page, "images in view")


@pytest.mark.parametrize("focused", [False, True])
def test_two_fingers_zoom(browser: Any, address: str, focused: bool) -> None:
    context = browser.new_context(viewport=SIZES["phone"], has_touch=True)
    with opened_without_images(context.browser, address, "", SIZES["phone"]) as page:
        seen_on_map(page, "40 images in view")
        west, _, east, _ = map_bounds(page)
        if focused:
            page.locator("#map-canvas").focus()
        x, y = on_map(page, *CENTRE)
        touch = page.context.new_cdp_session(page)
        for kind, apart in [("touchStart", 20), ("touchMove", 30), ("touchMove", 40)]:
            points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        until(lambda: map_bounds(page)[2] - map_bounds(page)[0] < (east - west) / 1.8)
        assert on_map(page, *CENTRE) == pytest.approx((x, y), abs=2)
    context.close()


# --- places ----------------------------------------------------------------------------------


def test_footprints_are_painted_and_chosen(page: Any) -> None:
    until(lambda: map_colour(page, 9.95, 52.05)[3])  # land
    empty = map_colour(page, 9.95, 52.05)
    find_all(page)
    corner = (CENTRE[0] - 0.4 * TILE, CENTRE[1] + 0.4 * TILE)  # far from a dot in the centre
    until(lambda: map_colour(page, *corner) != empty)
    page.mouse.move(*on_map(page, *corner))
    until(lambda: (page.get_attribute("#map-canvas", "title") or "").endswith(". tile10"))
    until(lambda: sum(page.evaluate(LINE)) == 1)
    page.mouse.click(*on_map(page, *corner))
    marked = page.locator(".card.marked .name")
    assert marked.inner_text() == "tile10"
    before = map_colour(page, *corner)
    page.locator(".card").filter(has_text="tile11").last.locator(".picture").focus()
    until(lambda: map_colour(page, *corner) != before)
    assert "geometry" not in page.inner_text("#results")


def test_groups_become_smaller_as_the_map_zooms(
    browser: Any, tmp_path: Path, tiny_model: Path
) -> None:
    uri, count = f"exact:{tmp_path / 'many'}", 30_000
    embedder = load_for_a_query(tiny_model)
    rng = np.random.default_rng(0)
    rows = batch(
        [str(i) for i in range(count)],
        np.tile(np.eye(1, embedder.dim, dtype=np.float32), (count, 1)),
        lon=pa.array(rng.uniform(-180, 180, count)),
        lat=pa.array(rng.uniform(-80, 80, count)),
    )
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        store.upsert([rows])
    with (
        served(uri, "--backend", "numpy") as address,
        opened_without_images(browser, address, "", SIZES["desktop"]) as page,
    ):
        seen_on_map(page, "30,000 images in view")
        page.locator("#map-canvas").focus()
        with page.expect_response("**/api/overview") as response:
            for _ in range(3):
                page.keyboard.press("+")
        box = json.loads(response.value.request.post_data)["view"]
        assert box == pytest.approx(map_bounds(page), abs=0.1)
        answer = response.value.json()
        assert max(group["count"] for group in answer["places"]) < 12
        seen_on_map(page, f"{answer['rows']} images in view")
        page.click("#zoom-earth")
        seen_on_map(page, "30,000 images in view")
    area = "?within=0,-40,90,40"
    with (
        served(uri, "--backend", "numpy") as address,
        opened_without_images(browser, address, area, SIZES["desktop"]) as page,
    ):
        seen_on_map(page, "images in view")
        page.locator("#map-canvas").focus()
        with page.expect_response(
            lambda answer: "view" in (answer.request.post_data or "")
        ) as seen:
            page.keyboard.press("+")
        body = json.loads(seen.value.request.post_data)
        assert body["within"] == [0, -40, 90, 40]
        west, south, east, north = body["view"]
        lon, lat = rows["lon"].to_numpy(), rows["lat"].to_numpy()
        inside = (lon >= max(west, 0)) & (lon <= min(east, 90))
        inside &= (lat >= max(south, -40)) & (lat <= min(north, 40))
        assert seen.value.json()["rows"] == inside.sum() > 0


# --- areas -----------------------------------------------------------------------------------


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


def test_a_polygon_that_crosses_itself_is_refused(browser: Any, address: str) -> None:
    with patient_page(browser) as page:  # the refusal is an error on the console
        page.goto(address)
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
    from tests.conftest import picture

    picture(7, (67, 50)).save(tmp_path / "mine.png")
    page.click("#tab-picture")
    page.set_input_files("#file-picture", tmp_path / "mine.png")
    searched(page, "like mine.png")
    page.fill("#area", "10.01, 51.99, 10.19, 51.99, 10.01, 51.81")
    page.keyboard.press("Enter")
    searched(page, "1 result")
    assert page.locator(".card .name").all_inner_texts() == ["tile0"]


@pytest.mark.parametrize("within", [[10.01, 51.81, 10.19, 51.99], "box", "polygon"])
def test_areas_of_the_api(page: Any, address: str, within: Any) -> None:
    ring = [[10.01, 51.99], [10.01, 51.81], [10.19, 51.99], [10.01, 51.99]]
    texts = {
        "box": "10.01,51.81,10.19,51.99",
        "polygon": json.dumps({"type": "Polygon", "coordinates": [ring]}),
    }
    if isinstance(within, str):
        got = page.request.get(
            f"{address}api/search", params={"text": "x", "within": texts[within]}
        )
    else:
        got = page.request.post(f"{address}api/search", data={"text": "x", "within": within})
    assert [hit["id"] for hit in got.json()["hits"]] == ["tile0"]
    bad = page.request.get(f"{address}api/search", params={"text": "x", "within": "{"})
    assert bad.status == 422
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


def test_extents(page: Any) -> None:
    code = 'boxes => import("/static/map_view.js").then(view => view.extent(boxes))'
    assert page.evaluate(code, []) is None
    assert page.evaluate(code, [[5, 1, 6, 2]]) == [5, 1, 6, 2]
    assert page.evaluate(code, [[-179, 0, -178, 1], [177, -1, 178, 0]]) == [177, -1, 182, 1]
    assert page.evaluate(code, [[170, 0, -170, 1]]) == [170, 0, 190, 1]
    places = [[lon, 0, lon, 0] for lon in range(-180, 180, 10)]
    west, _, east, _ = page.evaluate(code, places)
    assert east - west == 350


# --- for everyone ----------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_the_map_is_accessible(browser: Any, address: str, theme: str, width: int) -> None:
    size = {"width": width, "height": 844}
    query = "?text=x&within=10.01,51.99,11.3,51.99,10.01,51.2"
    with opened_without_images(browser, address, query, size) as page:
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        seen_on_map(page, "results in view")
        page.click("#draw-polygon")
        for corner in [(10.1, 51.9), (10.5, 51.9), (10.1, 51.5)]:
            page.mouse.click(*on_map(page, *corner))
        assert page.is_visible("#close-polygon")
        page.focus("#map-canvas")
        assert serious_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for item in page.locator("#map button:visible, #area, #map-canvas").all():
            box = item.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


def test_the_theme_colours_the_map(page: Any) -> None:
    until(lambda: map_colour(page, 9.95, 52.05)[3])  # land
    land = map_colour(page, 9.95, 52.05)
    page.click("#theme")
    until(lambda: map_colour(page, 9.95, 52.05) != land)
