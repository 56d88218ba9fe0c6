"""Selection of paraphrases for images, without models."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed.train.backtranslation.paraphrase import Translate, distinct, fill, same_text


class Trip:
    """A round trip that looks texts up in a table and records the requests."""

    def __init__(self, table: dict[str, str]) -> None:
        self.table = table
        self.requests: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> list[str]:
        self.requests.append(list(texts))
        return [self.table[text] for text in texts]


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        ("Many planes.", "many  planes .", True),
        ("two boats , in a port", "Two boats, in a port.", True),
        ("STRASSE", "straße", True),
        ("", " .", True),
        ("a bareland", "a bare land", False),
        ("a 1.5 km road", "a 15 km road", False),
        ("many planes", "many aircraft", False),
    ],
)
def test_same_text(text: str, other: str, same: bool) -> None:
    assert (same_text(text) == same_text(other)) is same


def test_distinct_keeps_the_first_of_equal_captions() -> None:
    assert distinct(["A port .", "a port", "a beach", "a port."]) == ["A port .", "a beach"]


def test_languages_are_used_until_images_have_enough_captions() -> None:
    french = Trip({"a": "a1", "b": "b1", "c": "c1"})
    spanish = Trip({"a": "a2", "b": "b2"})
    italian = Trip({})
    captions = {
        "one": ["a", "a"],
        "two": ["a", "b"],
        "three": ["b", "c"],
        "enough": ["x", "y", "z"],
    }
    filled = fill(captions, {"fr": french, "es": spanish, "it": italian}, 3)
    assert filled.captions == {
        "one": ("a", "a1", "a2"),
        "two": ("a", "b", "a1"),
        "three": ("b", "c", "b1"),
        "enough": ("x", "y", "z"),
    }
    assert filled.added == {"fr": 3, "es": 1, "it": 0}
    assert (filled.dropped, filled.short) == (0, 0)
    # Shared captions are translated once, those of images with enough captions never.
    assert french.requests == [["a", "b", "c"]]
    assert spanish.requests == [["a"]]
    assert italian.requests == []


def test_duplicate_paraphrases_are_dropped() -> None:
    table = {"Many boats .": "many boats", "a port": "", "a pier": "MANY  boats ."}
    other = {"Many boats .": "a lot of boats", "a port": "a lot of boats .", "a pier": "a quay"}
    filled = fill(
        {"x": ["Many boats .", "a port", "a pier"]}, {"fr": Trip(table), "es": Trip(other)}, 6
    )
    assert filled.captions["x"] == ("Many boats .", "a port", "a pier", "a lot of boats", "a quay")
    assert (filled.dropped, filled.short) == (4, 1)
    assert filled.added == {"fr": 0, "es": 2}


def test_surplus_captions_are_kept() -> None:
    assert fill({"x": ["a", "b", "c"]}, {}, 2).captions == {"x": ("a", "b", "c")}


def test_a_round_trip_that_loses_a_caption_fails() -> None:
    with pytest.raises(ValueError, match="shorter"):
        fill({"x": ["a", "b"]}, {"fr": lambda texts: list(texts)[1:]}, 5)


words = st.sampled_from(["a port", "A port .", "a beach", "two boats", "two  boats.", "a road"])


@given(
    captions=st.dictionaries(st.text("ij", min_size=1), st.lists(words, min_size=1, max_size=6)),
    tables=st.lists(st.dictionaries(words, words | st.just("")), max_size=4),
    count=st.integers(1, 6),
)
def test_originals_come_first_and_all_are_distinct(
    captions: dict[str, list[str]], tables: list[dict[str, str]], count: int
) -> None:
    def trip(table: dict[str, str]) -> Translate:
        return lambda texts: [table.get(text, text + " too") for text in texts]

    filled = fill(captions, {str(i): trip(table) for i, table in enumerate(tables)}, count)
    assert list(filled.captions) == list(captions)
    for image, own in captions.items():
        texts, originals = filled.captions[image], distinct(own)
        assert list(texts[: len(originals)]) == originals
        assert len({same_text(text) for text in texts}) == len(texts)
        assert len(texts) <= max(count, len(originals))
        assert all(same_text(text) for text in texts)
    assert filled.short == sum(len(own) < count for own in filled.captions.values())
    added = sum(len(filled.captions[image]) - len(distinct(own)) for image, own in captions.items())
    assert sum(filled.added.values()) == added
