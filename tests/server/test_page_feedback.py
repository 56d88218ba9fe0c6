"""Relevance feedback on the page: examples, chips, undo, and the address, by mouse and keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rsicd_embed
from rsicd_embed import Part, Query
from rsicd_embed.embedder.loading import load_for_a_query
from tests.conftest import picture

from .browsing import (
    SCREENS,
    SIZES,
    address_query,
    opened,
    parameters,
    patient_page,
    results,
    search,
    searched,
    serious_violations,
    served,
    until,
)
from .conftest import Archive, make_archive


@pytest.fixture(scope="module")
def pictures_archive(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Archive:
    """An archive of 30 images."""
    return make_archive(tmp_path_factory.mktemp("feedback"), tiny_model, count=30)


@pytest.fixture(scope="module")
def address(pictures_archive: Archive) -> Iterator[str]:
    """The address of a server for that archive."""
    with served(pictures_archive.uri, "--backend", "numpy") as address:
        yield address


@pytest.fixture(params=SCREENS)
def page(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    """The page of that server, on a phone and on a desktop."""
    with opened(browser, address, viewport=SIZES[request.param]) as page:
        yield page


def chips(page: Any) -> list[str]:
    """The accessible names of the chips."""
    buttons = page.locator("#chips button").all()
    return [button.get_attribute("aria-label").removeprefix("Remove the ") for button in buttons]


def expected(archive: Archive, *parts: Part) -> list[str]:
    """The ids of the hits of the Python API."""
    with rsicd_embed.open_store(archive.uri) as store:
        hits = rsicd_embed.search(Query(parts, k=24), store, load_for_a_query(archive.model))
    return [str(id_) for id_ in hits["id"].to_pylist()]


def thumb(page: Any, role: str, index: int) -> None:
    page.locator(f".card .{role}").nth(index).click()


def test_thumbs_search_again(page: Any, pictures_archive: Archive) -> None:
    search(page, "a port")
    liked, _, disliked = results(page)[:3]
    thumb(page, "more", 0)
    searched(page, "for “a port”, like 1 example, in")
    assert results(page) == expected(pictures_archive, Part("a port"), Part(id=liked))
    page.get_by_label(f"Less like {disliked}", exact=True).click()
    searched(page, "for “a port”, like 1 example, unlike 1 example, in")
    parts = [Part("a port"), Part(id=liked), Part(id=disliked, weight=-0.25)]
    assert results(page) == expected(pictures_archive, *parts)
    assert parameters(page) == {"text": ["a port"], "more": [liked], "less": [disliked]}
    assert chips(page) == [
        "text “a port”",
        f"example of what to look for {liked}",
        f"example of what to avoid {disliked}",
    ]
    # A second example halves the weight of each.
    second = results(page)[0]
    thumb(page, "more", 0)
    searched(page, "like 2 examples")
    parts = [Part("a port"), Part(id=disliked, weight=-0.25)]
    parts += [Part(id=id_, weight=0.5) for id_ in (liked, second)]
    assert results(page) == expected(pictures_archive, *parts)


def test_texts_refine_the_query(page: Any, pictures_archive: Archive) -> None:
    search(page, "a port")
    page.fill("#refinement", "boats")
    page.keyboard.press("Enter")
    searched(page, "for “a port”, not “boats”, in")
    page.select_option("#role", "also")
    page.fill("#refinement", "a river")
    page.click("#refine button")
    searched(page, "for “a port” and “a river”, not “boats”, in")
    parts = [Part("a port"), Part("a river"), Part("boats", weight=-0.5)]
    assert results(page) == expected(pictures_archive, *parts)
    assert chips(page) == ["text “a port”", "text “a river”", "text to avoid “boats”"]
    assert parameters(page) == {"text": ["a port"], "also": ["a river"], "not": ["boats"]}


def test_the_address_restores_the_query(browser: Any, address: str, page: Any) -> None:
    search(page, "a port")
    thumb(page, "more", 2)
    searched(page, "like 1 example")
    page.fill("#refinement", "boats")
    page.keyboard.press("Enter")
    status = searched(page, "not “boats”").partition(", in")[0]
    wanted, names = results(page), chips(page)
    page.reload()
    searched(page, status)
    assert (results(page), chips(page)) == (wanted, names)
    with opened(browser, address, address_query(page)) as other:
        searched(other, status)
        assert (results(other), chips(other)) == (wanted, names)
        assert other.is_disabled("#undo")  # nothing was changed here


def test_chips_remove_parts(page: Any) -> None:
    search(page, "a port")
    thumb(page, "more", 0)
    searched(page, "like 1 example")
    thumb(page, "less", 0)
    searched(page, "unlike 1 example")
    page.locator("#chips button").nth(1).click()
    searched(page, "for “a port”, unlike 1 example, in")
    page.locator("#chips button").first.click()
    until(lambda: "Add a text, an image or an example" in page.inner_text("#notices"))
    assert (page.input_value("#text"), len(chips(page))) == ("", 1)
    page.click("#clear")
    until(lambda: chips(page) == [])
    assert parameters(page) == {}


def test_undo_and_redo(page: Any) -> None:
    assert page.is_hidden("#query")
    search(page, "a port")
    plain = results(page)
    thumb(page, "less", 0)
    searched(page, "unlike 1 example")
    refined = results(page)
    assert refined != plain
    page.click("#undo")
    searched(page, "for “a port”, in")
    assert results(page) == plain
    page.go_forward()
    searched(page, "unlike 1 example")
    assert results(page) == refined
    page.locator("h1").click()
    page.keyboard.press("Control+z")
    searched(page, "for “a port”, in")
    page.keyboard.press("Control+Shift+Z")
    searched(page, "unlike 1 example")
    page.click("#undo")
    searched(page, "for “a port”, in")
    page.click("#undo")
    until(lambda: page.is_hidden("#query"))
    assert address_query(page) == ""


def test_a_new_text_drops_the_examples(page: Any) -> None:
    search(page, "a port")
    thumb(page, "more", 0)
    searched(page, "like 1 example")
    search(page, "a river")
    assert parameters(page) == {"text": ["a river"]}
    page.go_back()
    searched(page, "for “a port”, like 1 example")


def test_feedback_by_keyboard(page: Any) -> None:
    search(page, "a port")
    first = results(page)[0]
    page.locator(".card .picture").first.focus()
    page.keyboard.press("+")
    searched(page, "like 1 example")
    # The focus stays in the first card, so that the next key judges the new first result.
    focused = "document.activeElement.closest('.card')?.querySelector('.name').textContent"
    assert page.evaluate(focused) == results(page)[0] != first
    page.keyboard.press("-")
    searched(page, "unlike 1 example")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "quiet more"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    searched(page, "like 2 examples")
    assert page.evaluate("document.activeElement.className") == "quiet more"
    page.locator("#chips button").last.focus()
    page.keyboard.press("Enter")
    searched(page, "for “a port”, like 2 examples, in")
    assert page.evaluate("document.activeElement.closest('#chips') !== null")


def test_feedback_in_the_larger_view(page: Any) -> None:
    search(page, "a port")
    second = results(page)[1]
    page.locator(".card .picture").nth(1).click()
    page.click("#view-more")
    searched(page, "like 1 example")
    assert parameters(page)["more"] == [second]
    page.locator(".card .picture").first.click()
    page.keyboard.press("-")
    searched(page, "unlike 1 example")
    assert not page.evaluate("document.querySelector('#viewer').open")


def test_examples_refine_an_own_image(page: Any, tmp_path: Path) -> None:
    picture(7, (67, 50)).save(tmp_path / "mine.png")
    page.click("#tab-picture")
    page.set_input_files("#file-picture", tmp_path / "mine.png")
    searched(page, "like mine.png")
    thumb(page, "less", 3)
    searched(page, "like mine.png, unlike 1 example")
    assert chips(page)[0] == "image mine.png"
    thumb(page, "more", 0)
    searched(page, "like mine.png, like 1 example, unlike 1 example")
    page.click("#undo")
    searched(page, "like mine.png, unlike 1 example")


def test_too_many_parts_are_refused(browser: Any, address: str) -> None:
    many = "&".join(f"also={i}" for i in range(63))
    with opened(browser, address, f"?text=a&{many}") as page:
        searched(page, "24 results")
        thumb(page, "more", 0)
        until(lambda: "at most 64" in page.inner_text("#error"))
        assert "more" not in parameters(page)


def test_unknown_examples_are_reported(browser: Any, address: str) -> None:
    with patient_page(browser) as page:  # not `opened`: the console reports the refusal
        page.goto(f"{address}?text=a&more=gone.png")
        until(lambda: page.inner_text("#error") == "no row with the id 'gone.png' in the store")
        page.locator("#chips button").last.click()
        searched(page, "24 results for “a”")
        assert not page.is_visible("#error")


def test_requests_contain_the_parts(page: Any) -> None:
    search(page, "a port")
    with page.expect_request("**/api/search") as sent:
        thumb(page, "more", 0)
    body = json.loads(sent.value.post_data)
    assert [part.get("weight") for part in body["parts"]] == [None, 1]


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_feedback_is_accessible(browser: Any, address: str, theme: str) -> None:
    for size in SIZES.values():
        options = {"viewport": size, "color_scheme": theme}
        with opened(browser, address, "?text=a+port&not=boats", **options) as page:
            searched(page, "not “boats”")
            thumb(page, "more", 0)
            searched(page, "like 1 example")
            thumb(page, "less", 0)
            searched(page, "unlike 1 example")
            assert serious_violations(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            page.locator(".card .picture").first.click()
            assert serious_violations(page) == []
