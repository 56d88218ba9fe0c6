"""The map of the page: moving it by mouse, touch and keyboard, and footprints."""

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
from rsicd_embed.testing.stores import batch
from tests.helpers import until

from .browsing import (
    SIZES,
    map_bounds,
    map_colour,
    on_map,
    opened_without_images,
    parameters,
    search,
    seen_on_map,
    serious_violations,
    served,
)
from .map_tiles import CENTRE, COLUMNS, NORTH, ROWS, TILE, WEST

LINE = "[...document.querySelectorAll('.card')].map(card => card.classList.contains('marked'))"


@pytest.fixture
def page(map_page: Any) -> Any:
    """The page of a server for the tiles."""
    return map_page


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
def test_two_fingers_zoom(browser: Any, map_address: str, focused: bool) -> None:
    context = browser.new_context(viewport=SIZES["phone"], has_touch=True)
    with opened_without_images(context.browser, map_address, "", SIZES["phone"]) as page:
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


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[tuple[Any, str]]:
    """Rows at random places, and the address of a server for them."""
    uri, count = f"exact:{tmp_path_factory.mktemp('many') / 'store'}", 30_000
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
    with served(uri, "--backend", "numpy") as address:
        yield rows, address


def test_groups_become_smaller_as_the_map_zooms(browser: Any, many: tuple[Any, str]) -> None:
    _, address = many
    with opened_without_images(browser, address, "", SIZES["desktop"]) as page:
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


def test_groups_within_an_area_become_smaller(browser: Any, many: tuple[Any, str]) -> None:
    rows, address = many
    area = "?within=0,-40,90,40"
    with opened_without_images(browser, address, area, SIZES["desktop"]) as page:
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


@pytest.mark.parametrize(
    ("theme", "width"),
    [
        ("light", 320),
        ("dark", 1280),
        pytest.param("dark", 320, marks=pytest.mark.slow),
        pytest.param("light", 1280, marks=pytest.mark.slow),
    ],
)
def test_the_map_is_accessible(browser: Any, map_address: str, theme: str, width: int) -> None:
    size = {"width": width, "height": 844}
    query = "?text=x&within=10.01,51.99,11.3,51.99,10.01,51.2"
    with opened_without_images(browser, map_address, query, size) as page:
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
