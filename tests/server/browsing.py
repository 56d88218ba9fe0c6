"""Helpers for tests of the page in a browser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.helpers import PATIENCE_S, until

# A phone and a desktop, in pixels.
SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 800}}
# Names of sizes to test with: the phone's tests are slow, because the desktop's cover most of them.
SCREENS = ["desktop", pytest.param("phone", marks=pytest.mark.slow)]
# Colour themes with sizes: two of the four combinations cover all themes and sizes.
LOOKS = [
    ("light", "phone"),
    ("dark", "desktop"),
    pytest.param("light", "desktop", marks=pytest.mark.slow),
    pytest.param("dark", "phone", marks=pytest.mark.slow),
]
# JavaScript that tests whether each image of a selector is loaded.
LOADED = "[...document.querySelectorAll('{}')].map(image => image.complete && image.naturalWidth)"


@contextmanager
def served(uri: str, *words: str) -> Iterator[str]:
    """Runs `rsicd-embed serve` on a free port and yields its address."""
    command = [sys.executable, "-c", "from rsicd_embed.cli import main; main()"]
    command += ["serve", "--store", uri, "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("serving ")
        try:
            yield line.split()[-1]
        finally:  # otherwise leaving the block would wait for the server for ever
            server.terminate()
        assert server.wait(PATIENCE_S) == 0


@contextmanager
def patient_page(browser: Any, **options: Any) -> Iterator[Any]:
    """A page whose actions may take long."""
    page = browser.new_page(**options)
    page.set_default_timeout(1000 * PATIENCE_S)
    try:
        yield page
    finally:
        page.close()


@contextmanager
def opened(browser: Any, address: str, query: str = "", **options: Any) -> Iterator[Any]:
    """Opens the page; fails on console messages, errors and requests to other servers."""
    problems: list[str] = []
    own = (address, "blob:", "data:")

    def check(request: Any) -> None:
        if not request.url.startswith(own):
            problems.append(request.url)

    with patient_page(browser, **options) as page:
        page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", check)
        page.goto(address + query)
        yield page
    assert problems == [], problems


def opened_without_images(browser: Any, address: str, query: str, size: dict[str, int]) -> Any:
    """Opens the page with a picture for each row, as the rows have no files."""
    context = browser.new_context(viewport=size)
    dot = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'
    context.route(
        "**/api/pictures*", lambda route: route.fulfill(body=dot, content_type="image/svg+xml")
    )
    return opened(context, address, query)


def address_query(page: Any) -> str:
    """The query of the page's address; `page.url` may be that of a moment ago."""
    return str(page.evaluate("location.search"))


def parameters(page: Any) -> dict[str, list[str]]:
    """The parameters of the page's address."""
    return parse_qs(address_query(page).removeprefix("?"))


def map_bounds(page: Any) -> tuple[float, float, float, float]:
    """West, south, east and north of the visible part of the map."""
    text = until(lambda: page.get_attribute("#map-canvas", "data-view"))
    west, south, east, north = map(float, text.split(","))
    return west, south, east, north


def on_map(page: Any, lon: float, lat: float) -> tuple[float, float]:
    """The pixel of the window where the map shows a place."""
    page.locator("#map-canvas").scroll_into_view_if_needed()
    west, south, east, north = map_bounds(page)
    box = page.locator("#map-canvas").bounding_box()
    width, height = box["width"] - 2, box["height"] - 2  # without the border
    x = box["x"] + 1 + (lon - west) / (east - west) * width
    return x, box["y"] + 1 + (north - lat) / (north - south) * height


def seen_on_map(page: Any, words: str) -> str:
    """Waits until the line below the map contains `words`, and returns it."""

    def look() -> str:
        text = str(page.locator("#map-status").inner_text())
        return text if words in text else ""

    return str(until(look))


def map_colour(page: Any, lon: float, lat: float) -> tuple[int, int, int, int]:
    """Red, green, blue and opacity of the map at a place; the sea is transparent."""
    west, south, east, north = map_bounds(page)
    share = ((lon - west) / (east - west), (north - lat) / (north - south))
    red, green, blue, alpha = page.evaluate(
        """([x, y]) => {
             const canvas = document.querySelector("#map-canvas");
             const [left, top] = [x * canvas.width, y * canvas.height].map(Math.floor);
             const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
             copy.drawImage(canvas, -left, -top);
             return [...copy.getImageData(0, 0, 1, 1).data];
           }""",
        share,
    )
    return red, green, blue, alpha


def results(page: Any) -> list[str]:
    """Returns the ids of the results."""
    return [str(name) for name in page.locator(".card .name").all_text_contents()]


def search(page: Any, text: str) -> str:
    """Searches by text and returns the status line."""
    page.fill("#text", text)
    page.keyboard.press("Enter")
    return searched(page, f"“{text}”")


def searched(page: Any, words: str) -> str:
    """Waits until the status line contains `words`, and returns it."""

    def look() -> str:
        text = str(page.locator("#status").inner_text())
        return text if words in text else ""

    return str(until(look))


def serious_violations(page: Any) -> list[str]:
    """Runs axe in the page and returns its serious and critical findings."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{item['id']}: {node['html']}: {node['failureSummary']}"
        for item in found
        if item["impact"] in ("serious", "critical")
        for node in item["nodes"]
    ]
