"""The search page in a real browser, with a real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.embedder.training_words import TrainingWords
from tests.conftest import picture

from .browsing import LOADED, opened, parameters, results, search, searched, served, until
from .conftest import make_archive

COUNT = 30


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[str]:
    """The address of a server."""
    archive = make_archive(tmp_path_factory.mktemp("page"), tiny_model, count=COUNT)
    with served(archive.uri, "--backend", "numpy") as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page of that server."""
    with opened(browser, address) as page:
        yield page


def test_search_by_text_on_the_page(page: Any) -> None:
    page.fill("#text", "a harbour")
    page.keyboard.press("Enter")
    assert searched(page, "“a harbour”").startswith("24 results")
    assert len(results(page)) == 24
    widths = until(lambda: (w := page.evaluate(LOADED.format(".card img"))) and w[0] and w)
    assert widths[0] > 0
    page.select_option("#k", "12")
    assert searched(page, "12 results")
    assert len(results(page)) == 12
    assert parameters(page)["text"] == ["a harbour"]


def test_unknown_words_are_reported(browser: Any, tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    TrainingWords({"port": 30}).write(model)
    archive = make_archive(tmp_path, model, count=3)
    with (
        served(archive.uri, "--backend", "numpy") as address,
        opened(browser, address) as page,
    ):
        page.fill("#text", "a marina")
        page.keyboard.press("Enter")
        searched(page, "“a marina”")
        notice = page.locator("#notices")
        assert notice.get_attribute("role") == "status"
        assert notice.inner_text().startswith("'marina' never occurred in this model's training")
        page.fill("#text", "a port")
        page.keyboard.press("Enter")
        searched(page, "“a port”")
        assert notice.inner_text() == ""


def test_all_thumbnails_load(page: Any) -> None:
    page.locator("#examples button").first.click()
    searched(page, "24 results")
    for card in page.locator(".card").all():
        card.scroll_into_view_if_needed()
    until(lambda: all(page.evaluate(LOADED.format(".card img"))))


def test_like_this_searches_by_a_result(page: Any) -> None:
    search(page, "a river")
    first = results(page)[0]
    page.locator(".card .like").first.click()
    searched(page, f"like {first}")
    assert first not in results(page)
    assert page.evaluate("document.activeElement.id") == "tab-picture"
    assert page.get_attribute("#tab-picture", "aria-selected") == "true"
    until(lambda: all(page.evaluate(LOADED.format(".preview img"))))


def test_search_by_own_image(page: Any, tmp_path: Path) -> None:
    picture(7, (67, 50)).save(tmp_path / "mine.png")
    page.click("#tab-picture")
    page.set_input_files("#file-picture", tmp_path / "mine.png")
    searched(page, "like mine.png")
    assert results(page)[0] == "7.png"
    assert page.locator(".card .score").first.inner_text() == "1.000"


def test_find_in_image(page: Any, tmp_path: Path) -> None:
    picture(3, (200, 120)).save(tmp_path / "scene.png")
    page.click("#tab-find")
    page.set_input_files("#file-find", tmp_path / "scene.png")
    page.click("#form-find summary")
    page.fill("#patch", "50")
    page.fill("#against", "a meadow\n\nhouses\n")
    page.fill("#find-text", "boats")
    page.keyboard.press("Enter")
    assert searched(page, "“boats”").startswith("28 patches compared with")
    assert page.inner_text("#versus").endswith("a meadow, houses")
    until(lambda: all(page.evaluate(LOADED.format("#stage img"))))
    assert page.locator("#patches button").count() == 8
    assert page.locator("#boxes .marked").bounding_box()["width"] > 20
    page.locator("#patches button").nth(3).focus()
    assert page.locator("#patches .marked").inner_text().startswith("4.")


def test_find_in_result(page: Any) -> None:
    search(page, "a river")
    page.locator(".card .find").first.click()
    page.keyboard.type("sand")
    page.keyboard.press("Enter")
    searched(page, "“sand”")
    until(lambda: all(page.evaluate(LOADED.format("#stage img"))))


def test_filters_are_built_from_the_columns(page: Any) -> None:
    search(page, "x")
    page.click("#filters summary")
    page.click("#add-filter")
    names = page.locator(".condition select").first.locator("option").all_inner_texts()
    assert names == ["label", "year", "lon", "lat", "cloudy", "width", "height"]
    page.select_option(".condition .value", 'it\'s "odd"')
    assert searched(page, "10 results")
    assert all("odd" in text for text in page.locator(".attributes").all_inner_texts())
    page.click("#add-filter")
    row = page.locator(".condition").nth(1)
    row.locator("select").first.select_option("year")
    row.locator("select").nth(1).select_option(">=")
    row.locator(".value").fill("2020")
    row.locator(".value").blur()
    assert searched(page, "3 results")
    assert page.inner_text("#filter-count") == "(2)"
    page.locator(".condition button").first.click()
    assert searched(page, "10 results")


def test_keyboard_navigation(page: Any) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("/")  # moves the focus from a button to the text
    page.keyboard.type("a beach")
    page.keyboard.press("Enter")
    searched(page, "“a beach”")
    page.locator("#tab-words").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-picture"
    page.keyboard.press("ArrowLeft")
    searched(page, "“a beach”")  # again, with new cards
    page.locator(".card .picture").first.focus()
    page.keyboard.press("ArrowRight")
    name = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert name.startswith("Result 2,")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    searched(page, "like ")


def test_controls_have_accessible_names(page: Any) -> None:
    page.locator("#examples button").first.click()
    searched(page, "results")
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea")].filter(item =>
             !(item.getAttribute("aria-label") || item.labels?.length || item.textContent.trim()))
           .map(item => item.outerHTML)"""
    )
    assert nameless == []


def test_theme_switch(page: Any) -> None:
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
