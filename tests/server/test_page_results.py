"""Results on the page: minimum score, order, and further results."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.testing.stores import batch

from .browsing import (
    LOOKS,
    SCREENS,
    SIZES,
    opened_without_images,
    parameters,
    results,
    search,
    searched,
    seen_on_map,
    serious_violations,
    served,
    until,
)

COUNT = 1300
PLACED = 1250  # rows with coordinates
TAKEN = dt.datetime(2020, 1, 1)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    """A store of many rows without image files."""
    uri = f"exact:{tmp_path_factory.mktemp('results') / 'store'}"
    embedder = load_for_a_query(tiny_model)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(COUNT, embedder.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    no_place = [None] * (COUNT - PLACED)
    rows = batch(
        [f"row{i:04}" for i in range(COUNT)],
        vectors,
        taken=pa.array([TAKEN + dt.timedelta(days=i * 7 % COUNT) for i in range(COUNT)]),
        lon=pa.array([*np.linspace(-179, 179, PLACED), *no_place], pa.float64()),
        lat=pa.array([*np.linspace(-80, 80, PLACED), *no_place], pa.float64()),
    )
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        store.upsert([rows])
    return uri


@pytest.fixture(scope="module")
def address(uri: str) -> Iterator[str]:
    """The address of a server for that store."""
    with served(uri, "--backend", "numpy") as address:
        yield address


@pytest.fixture(params=SCREENS)
def page(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    """The page of that server, on a phone and on a desktop."""
    with opened_without_images(browser, address, "", SIZES[request.param]) as page:
        until(lambda: page.is_visible("#map"))  # the columns are loaded
        yield page


def scores(page: Any) -> list[float]:
    return [float(text) for text in page.locator(".card .score").all_text_contents()]


def set_range(page: Any, value: float) -> None:
    """Moves the slider as a pointer does."""
    page.locator("#min").evaluate(
        "(slider, value) => { slider.value = value;"
        " for (const name of ['input', 'change']) slider.dispatchEvent(new Event(name)); }",
        value,
    )


# --- the minimum score -----------------------------------------------------------------------


def test_minimum_score(page: Any) -> None:
    search(page, "a port")
    least = 0.2
    set_range(page, least)
    until(lambda: parameters(page).get("min") == ["0.2"])
    count = int(searched(page, "for “a port”").split()[0])
    assert count > 0
    until(lambda: min(scores(page)) >= least)
    assert page.inner_text("#min-value") == "0.20"
    assert page.locator("#chips button").last.inner_text().startswith("score ≥ 0.20")
    page.reload()
    until(lambda: page.input_value("#min") == "0.2")
    set_range(page, 1)
    searched(page, "No results: no row that matches the filters has such a score")
    page.locator("#chips button").last.click()
    searched(page, "24 results")
    assert page.inner_text("#min-value") == "any"


def test_slider_by_keyboard_is_one_change(page: Any) -> None:
    search(page, "a port")
    page.focus("#min")
    for step in range(1, 4):
        page.keyboard.press("ArrowRight")
        until(lambda step=step: parameters(page).get("min") == [f"0.0{step}"])
    page.click("#undo")
    until(lambda: "min" not in parameters(page))
    searched(page, "24 results")


# --- order -----------------------------------------------------------------------------------


def test_orders(page: Any) -> None:
    assert page.locator("#sort option").all_inner_texts() == [
        "score",
        "newest first (taken)",
        "oldest first (taken)",
        "west to east",
        "north to south",
        "nearest to the best",
    ]
    search(page, "a port")
    best = results(page)[0]
    page.select_option("#sort", "newest")
    status = searched(page, "newest first (taken)")
    assert status.startswith(
        "24 results for “a port”, newest first (taken) (of the best 1,000), in"
    )
    hits = page.request.get(f"{page.url.split('?')[0]}api/search?text=a+port&k=200").json()["hits"]
    for offset in range(200, 1000, 200):
        url = f"{page.url.split('?')[0]}api/search?text=a+port&k=200&offset={offset}"
        hits += page.request.get(url).json()["hits"]
    newest = [hit["id"] for hit in sorted(hits, key=lambda hit: hit["taken"], reverse=True)]
    assert results(page) == newest[:24]
    page.click("#more")  # scrolling to it may load some too
    until(lambda: page.locator(".card").count() >= 48)
    assert results(page) == newest[: page.locator(".card").count()]
    page.select_option("#sort", "west")
    searched(page, "west to east")
    placed = sorted((hit for hit in hits if hit["lon"] is not None), key=lambda hit: hit["lon"])
    assert results(page)[:24] == [hit["id"] for hit in placed[:24]]
    page.select_option("#sort", "nearest")
    searched(page, "nearest to the best")
    first = next(hit["id"] for hit in hits if hit["lon"] is not None)
    assert results(page)[0] == first
    assert best in (first, *(hit["id"] for hit in hits if hit["lon"] is None))
    wanted = results(page)[:24]
    page.reload()
    searched(page, "nearest to the best")
    assert results(page)[:24] == wanted
    assert page.input_value("#sort") == "nearest"


# --- further results -------------------------------------------------------------------------


def test_scrolling_loads_further_results(page: Any) -> None:
    search(page, "a port")
    first = results(page)
    page.locator("#more").scroll_into_view_if_needed()
    until(lambda: page.locator(".card").count() >= 48)
    count = len(set(results(page)))
    assert count == page.locator(".card").count()
    assert results(page)[:24] == first
    searched(page, f"{count} results")
    assert scores(page) == sorted(scores(page), reverse=True)
    page.locator(".card .picture").nth(30).click()
    assert page.inner_text("#view-rank").startswith("Result 31 of ")
    page.keyboard.press("Escape")
    page.locator(".card .more").nth(40).click()  # the query starts again, and so does the page
    searched(page, "24 results for “a port”, like 1 example")
    top = "document.getElementById('status').getBoundingClientRect().top"
    assert 0 <= page.evaluate(top) < 10
    assert page.evaluate("document.activeElement.closest('.card').previousElementSibling") is None


def test_more_results_by_keyboard(page: Any) -> None:
    search(page, "a port")
    page.focus("#more")
    page.keyboard.press("Enter")
    name = "document.activeElement.getAttribute('aria-label')"
    until(lambda: str(page.evaluate(name)).startswith(("Result 25, ", "Result 49, ")))


def test_thousands_of_results_stay_fast(browser: Any, address: str) -> None:
    with opened_without_images(browser, address, "?text=x&k=200", SIZES["desktop"]) as page:
        searched(page, "200 results")
        while page.is_visible("#more"):
            page.evaluate("document.querySelector('#more').click()")
        searched(page, f"{COUNT:,} results")
        assert len(set(results(page))) == COUNT
        assert page.inner_text("#map-count") == f"({PLACED} of {COUNT} results have coordinates)"
        seen_on_map(page, f"{PLACED:,} results in view")
        # Cards outside the window are not laid out.
        style = "getComputedStyle(document.querySelector('.card:nth-child(60)')).contentVisibility"
        assert page.evaluate(style) == "auto"


@pytest.mark.parametrize("query", ["?text=x&min=7&within=1,2&sort=size", "?text=x&min=a&within="])
def test_invalid_parameters_are_ignored(browser: Any, address: str, query: str) -> None:
    with opened_without_images(browser, address, query, SIZES["desktop"]) as page:
        searched(page, "24 results for “x”, in")


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_results_are_accessible(browser: Any, address: str, theme: str, size: str) -> None:
    query = "?text=x&min=0.01&within=-100,-60,100,60&sort=north"
    with opened_without_images(browser, address, query, SIZES[size]) as page:
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        searched(page, "north to south")
        assert serious_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
