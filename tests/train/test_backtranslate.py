"""Which images get paraphrases, and which; no model takes part."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed.train.backtranslation.paraphrase import Translate, distinct, fill, same_text


class Trip:
    """A round trip that answers from a table, and keeps what it was asked."""

    def __init__(self, table: dict[str, str]) -> None:
        self.table = table
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> list[str]:
        self.asked.append(list(texts))
        return [self.table[text] for text in texts]


@pytest.mark.parametrize(
    ("one", "other", "same"),
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
def test_what_is_the_same_text(one: str, other: str, same: bool) -> None:
    assert (same_text(one) == same_text(other)) is same


def test_the_first_of_equal_captions_is_kept() -> None:
    assert distinct(["A port .", "a port", "a beach", "a port."]) == ["A port .", "a beach"]


def test_languages_go_on_until_there_are_enough() -> None:
    french = Trip({"a": "a1", "b": "b1", "c": "c1"})
    spanish = Trip({"a": "a2", "b": "b2"})
    italian = Trip({})
    captions = {
        "one": ["a", "a"],
        "two": ["a", "b"],
        "three": ["b", "c"],
        "enough": ["x", "y", "z"],
    }
    found = fill(captions, {"fr": french, "es": spanish, "it": italian}, 3)
    assert found.captions == {
        "one": ("a", "a1", "a2"),
        "two": ("a", "b", "a1"),
        "three": ("b", "c", "b1"),
        "enough": ("x", "y", "z"),
    }
    assert found.added == {"fr": 3, "es": 1, "it": 0}
    assert (found.dropped, found.short) == (0, 0)
    # What several images share is asked once; of images that have enough, nothing.
    assert french.asked == [["a", "b", "c"]]
    assert spanish.asked == [["a"]]
    assert italian.asked == []


def test_a_paraphrase_that_is_nothing_new_is_dropped() -> None:
    table = {"Many boats .": "many boats", "a port": "", "a pier": "MANY  boats ."}
    other = {"Many boats .": "a lot of boats", "a port": "a lot of boats .", "a pier": "a quay"}
    found = fill(
        {"x": ["Many boats .", "a port", "a pier"]}, {"fr": Trip(table), "es": Trip(other)}, 6
    )
    assert found.captions["x"] == ("Many boats .", "a port", "a pier", "a lot of boats", "a quay")
    assert (found.dropped, found.short) == (4, 1)
    assert found.added == {"fr": 0, "es": 2}


def test_more_captions_than_asked_are_kept() -> None:
    assert fill({"x": ["a", "b", "c"]}, {}, 2).captions == {"x": ("a", "b", "c")}


def test_a_round_trip_that_loses_a_caption_is_no_success() -> None:
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

    found = fill(captions, {str(i): trip(table) for i, table in enumerate(tables)}, count)
    assert list(found.captions) == list(captions)
    for image, own in captions.items():
        filled, originals = found.captions[image], distinct(own)
        assert list(filled[: len(originals)]) == originals
        assert len({same_text(one) for one in filled}) == len(filled)
        assert len(filled) <= max(count, len(originals))
        assert all(same_text(one) for one in filled)
    assert found.short == sum(len(own) < count for own in found.captions.values())
    taken = sum(len(found.captions[image]) - len(distinct(own)) for image, own in captions.items())
    assert sum(found.added.values()) == taken
