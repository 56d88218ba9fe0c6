"""The page in a browser: its address, formatted attributes, the larger view, small screens."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.testing.stores import batch
from tests.conftest import picture

from .browsing import (
    LOADED,
    address_query,
    opened,
    parameters,
    patient_page,
    results,
    search,
    searched,
    served,
    until,
)

COUNT = 14
LABELS = ("denseresidential", "port", "GolfCourse")
SENSOR = pa.struct([("sensor", pa.string()), ("gsd", pa.float64())])
TAKEN = [dt.datetime(2020, 1, 1, 18) + dt.timedelta(hours=3 * i) for i in range(COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the images."""
    folder = tmp_path_factory.mktemp("details")
    for i in range(COUNT):
        picture(i, (60 + i, 50)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def uri(folder: Path, tiny_model: Path) -> str:
    """A store of these images, with attributes of many types."""
    uri = f"exact:{folder / 'store'}"
    embedder = load_for_a_query(tiny_model)
    files = [folder / f"{i}.png" for i in range(COUNT)]
    vectors = embedder.embed_images([picture(i, (60 + i, 50)) for i in range(COUNT)])
    rows = batch(
        [file.name for file in files],
        vectors,
        uri=[str(file) for file in files],
        sha256=[hashlib.sha256(file.read_bytes()).hexdigest() for file in files],
        width=pa.array([60 + i for i in range(COUNT)], pa.int32()),
        height=pa.array([50] * COUNT, pa.int32()),
        label=[LABELS[i % 3] for i in range(COUNT)],
        taken=pa.array(TAKEN, pa.timestamp("us", "+05:30")),
        day=pa.array([moment.date() for moment in TAKEN], pa.date32()),
        lon=[2.2945 + i / 100 for i in range(COUNT)],
        lat=[-48.8583702] * COUNT,
        cloud=pa.array([None, *(0.1 + 0.2 + i for i in range(1, COUNT))]),
        easting=[448251.75] * COUNT,
        captions=[["a port .", "many boats ."], *[[]] * (COUNT - 1)],
        box=[[0.5, 1.0 / 3]] * COUNT,
        geo=pa.array([{"sensor": "S2A"}] * COUNT, SENSOR),
        cloudy=[i % 2 == 0 for i in range(COUNT)],
    )
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        store.upsert([rows])
    return uri


@pytest.fixture(scope="module")
def address(uri: str) -> Iterator[str]:
    """The address of a server for that store."""
    with served(uri, "--backend", "numpy") as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page of that server."""
    with opened(browser, address) as page:
        yield page


def view(page: Any, id_: str) -> dict[str, list[str]]:
    """Opens the larger view of a result and returns its attributes."""
    page.locator(".card", has=page.get_by_text(id_, exact=True)).locator(".picture").click()
    terms: dict[str, list[str]] = {}
    for element in page.locator("#view-details > *").all():
        text = element.inner_text()
        if element.evaluate("element => element.tagName") == "DT":
            last = terms.setdefault(text, [])
        else:
            last.append(text)
    return terms


# --- the address --------------------------------------------------------------------------------


def test_address_restores_the_query(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        search(page, "a port")
        page.click("#filters summary")
        page.click("#add-filter")
        page.select_option(".condition .value", "denseresidential")
        searched(page, "5 results")
        page.select_option("#k", "12")
        page.click("#add-filter")
        row = page.locator(".condition").nth(1)
        row.locator("select").first.select_option("taken")
        row.locator("select").nth(1).select_option(">=")
        row.locator(".value").fill("2020-01-02T05:30:00+05:30")
        row.locator(".value").blur()
        searched(page, "4 results for “a port”")
        wanted = results(page)
        assert parameters(page) == {
            "text": ["a port"],
            "k": ["12"],
            "filter": [
                '["label","=","denseresidential"]',
                '["taken",">=","2020-01-02T05:30:00+05:30"]',
            ],
        }
        shared = address_query(page)
    with opened(browser, address, shared) as page:
        searched(page, "4 results for “a port”")
        assert results(page) == wanted
        assert page.input_value("#text") == "a port"
        assert page.input_value("#k") == "12"
        until(lambda: page.inner_text("#filter-count") == "(2)")
        rows = page.locator(".condition")
        assert rows.nth(0).locator(".value").input_value() == "denseresidential"
        assert rows.nth(1).locator(".value").input_value() == "2020-01-02T05:30:00+05:30"


def test_address_restores_like_this(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        search(page, "a port")
        first = results(page)[0]
        page.locator(".card .like").first.click()
        searched(page, f"like {first}")
        assert parameters(page) == {"tab": ["picture"], "text": ["a port"], "like": [first]}
        wanted, shared = results(page), address_query(page)
    with opened(browser, address, shared) as page:
        searched(page, f"like {first}")
        assert results(page) == wanted
        assert page.get_attribute("#tab-picture", "aria-selected") == "true"
        until(lambda: all(page.evaluate(LOADED.format(".preview img"))))


def test_back_and_forward(page: Any, tmp_path: Path) -> None:
    search(page, "a port")
    search(page, "a river")
    page.select_option("#k", "12")
    searched(page, "12 results for “a river”")
    first = results(page)[0]
    page.locator(".card .like").first.click()
    searched(page, f"like {first}")
    picture(7, (67, 50)).save(tmp_path / "mine.png")
    page.set_input_files("#file-picture", tmp_path / "mine.png")
    searched(page, "like mine.png")
    page.click("#tab-words")
    steps = ["like mine.png", f"like {first}", "12 results for “a river”"]
    steps += ["14 results for “a river”", "14 results for “a port”"]
    for status in steps:
        page.go_back()
        searched(page, status)
    assert page.input_value("#k") == "24"
    page.go_back()
    searched(page, "14 images")
    assert (page.input_value("#text"), len(results(page))) == ("", 14)
    for status in reversed(steps):
        page.go_forward()
        searched(page, status)


def test_address_restores_find(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        search(page, "a port")
        id_ = results(page)[0]
        page.locator(".card .find").first.click()
        page.keyboard.type("sand")
        page.keyboard.press("Enter")
        status = searched(page, "“sand”").partition(", in")[0]
        assert parameters(page) == {
            "tab": ["find"], "text": ["a port"], "in": [id_], "find": ["sand"],
        }  # fmt: skip
        shared = address_query(page)
    with opened(browser, address, shared) as page:
        searched(page, status)


@pytest.mark.parametrize(
    "query",
    [
        "?tab=nowhere&k=many&filter=x&filter=[1]&filter=%7B%7D&text=a",
        "?k=0&text=a",
        "?k=1e9&text=a",
    ],
)
def test_invalid_address_parameters_are_ignored(browser: Any, address: str, query: str) -> None:
    with opened(browser, address, query) as page:
        searched(page, "14 results for “a”")


# --- formatted attributes ------------------------------------------------------------------------


def test_class_names_are_readable_and_filters_send_stored_values(page: Any) -> None:
    page.click("#filters summary")
    page.click("#add-filter")
    options = page.locator(".condition .value option")
    assert options.all_inner_texts() == [
        "choose …",
        "dense residential area",
        "port",
        "golf course",
    ]
    search(page, "x")
    with page.expect_request("**/api/search") as sent:
        page.select_option(".condition .value", label="dense residential area")
    condition = {"column": "label", "operator": "=", "value": "denseresidential"}
    assert json.loads(sent.value.post_data)["filters"] == [condition]
    searched(page, "5 results")
    texts = page.locator(".attributes").all_inner_texts()  # after the columns are loaded
    assert all("label: dense residential area" in text for text in texts)
    page.click("#clear")
    page.locator("#examples button", has_text="golf course").click()
    searched(page, "“golf course”")


def test_attributes_are_formatted(page: Any) -> None:
    until(lambda: "14 images" in page.inner_text("#about"))  # the columns are loaded
    search(page, "x")
    texts = dict(zip(results(page), page.locator(".attributes").all_inner_texts(), strict=True))
    assert texts["0.png"] == (
        "label: dense residential area · taken: 1 Jan 2020, 23:30 +05:30 · day: 1 Jan 2020 · "
        "easting: 448251.75 · captions: a port . (+1) · box: 0.5, 0.333333 · geo: sensor S2A · "
        "cloudy: yes · 48.85837° S, 2.2945° E"
    )
    assert "cloud: 1.3 · " in texts["1.png"]
    assert "captions" not in texts["1.png"]
    details = view(page, "0.png")
    assert details | {"path": []} == {
        "path": [],
        "size": ["60 × 50 pixels"],
        "label": ["dense residential area"],
        "taken": ["1 Jan 2020, 23:30 +05:30"],
        "day": ["1 Jan 2020"],
        "cloud": ["none"],
        "easting": ["448251.75"],
        "captions": ["a port .", "many boats ."],
        "box": ["0.5, 0.333333"],
        "geo.sensor": ["S2A"],
        "geo.gsd": ["none"],
        "cloudy": ["yes"],
        "place": ["48.85837° S, 2.2945° E"],
    }


# --- the larger view ----------------------------------------------------------------------------


def test_larger_view_by_keyboard(page: Any, folder: Path) -> None:
    search(page, "x")
    ids = results(page)
    page.locator(".card .picture").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('#viewer').open")
    assert page.inner_text("#view-title") == ids[1]
    assert page.inner_text("#view-rank").startswith("Result 2 of 14, score ")
    assert page.locator("#view-details dd").first.inner_text() == str(folder / ids[1])
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#view-title") == ids[2]
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert page.inner_text("#view-title") == ids[0]
    assert page.is_disabled("#view-previous")
    for _ in range(12):  # the focus stays inside
        page.keyboard.press("Tab")
        inside = "document.querySelector('#viewer').contains(document.activeElement)"
        assert page.evaluate(f"document.activeElement === document.body || {inside}")
    page.keyboard.press("Escape")
    assert not page.evaluate("document.querySelector('#viewer').open")
    name = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert name == f"Result 2, {ids[1]}: larger view"


def test_download_is_the_original_file(page: Any, folder: Path) -> None:
    search(page, "x")
    view(page, "3.png")
    until(lambda: all(page.evaluate(LOADED.format("#view-picture"))))
    with page.expect_download() as download:
        page.click("#view-download")
    assert download.value.suggested_filename == "3.png"
    assert Path(download.value.path()).read_bytes() == (folder / "3.png").read_bytes()


def test_missing_image_shows_a_message(browser: Any, address: str) -> None:
    with patient_page(browser) as page:  # not `opened`: the console reports the missing image
        page.route("**/api/pictures?id=13.png*", lambda route: route.fulfill(status=404))
        page.goto(address)
        search(page, "x")
        view(page, "13.png")
        until(lambda: page.is_visible("#view-missing"))
        assert not page.is_visible("#view-download")
        page.keyboard.press("ArrowLeft")
        until(lambda: page.is_visible("#view-picture") and page.is_visible("#view-download"))


def test_larger_view_starts_searches(page: Any) -> None:
    search(page, "x")
    view(page, "3.png")
    page.click("#view-like")
    searched(page, "like 3.png")
    assert not page.evaluate("document.querySelector('#viewer').open")
    assert "3.png" not in results(page)
    view(page, "4.png")
    page.click("#view-find")
    assert page.evaluate("document.activeElement.id") == "find-text"
    assert parameters(page)["in"] == ["4.png"]


def test_hidden_paths_are_not_shown(browser: Any, uri: str, folder: Path) -> None:
    words = ("--backend", "numpy", "--hide-paths")
    with served(uri, *words) as address, opened(browser, address) as page:
        search(page, "x")
        assert "path" not in view(page, "3.png")
        assert str(folder) not in page.content()
        with page.expect_download() as download:
            page.click("#view-download")
        assert download.value.suggested_filename == "3.jpg"
        assert Path(download.value.path()).read_bytes().startswith(b"\xff\xd8")
        got = page.request.get(f"{address}api/pictures?id=3.png&original=true")
        assert got.status == 403


# --- small screens ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_clipped(browser: Any, address: str, width: int) -> None:
    size = {"width": width, "height": 844}
    with opened(browser, address, "?text=x", viewport=size) as page:
        searched(page, "14 results")
        page.click("#filters summary")
        page.click("#add-filter")

        def fits(selector: str) -> None:
            for element in page.locator(selector).all():
                box = element.bounding_box()
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width, selector

        fits("[role=tab]")
        fits(".condition > *")
        fits(".card .actions button")
        fits("#map-canvas, #map-zoom button, #map-tools button:visible, #area-form")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        whole = "tab => tab.scrollWidth <= tab.clientWidth"
        assert all(tab.evaluate(whole) for tab in page.locator("[role=tab]").all())
        view(page, results(page)[0])
        fits("#viewer, #viewer button, #view-download, #view-picture")
