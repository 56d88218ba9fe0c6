"""Captions made from class names, for images with and without a class."""

from __future__ import annotations

import itertools

import pytest

from rsicd_embed.datasets.base import Example
from rsicd_embed.train.input.caption_draws import Captions

from .captioned_images import Numbers


@pytest.mark.parametrize("label", [None, "", "  ", "_"])
def test_blank_class_is_ignored(label: str | None) -> None:
    examples = [
        Example("a", "a.png", {"captions": ["one", "two"], "label": label}),
        Example("b", "b.png", {"captions": ["three"], "label": "port"}),
    ]
    captions = Captions.of(examples, Numbers())
    assert captions.texts[:3] == ("one", "two", "three")
    assert all("port" in text for text in captions.texts[3:])
    of_first = captions.of_class.values[: captions.of_class.starts[1]]
    assert [captions.texts[text] for text in of_first] == ["one", "two"]


def test_synonyms_of_a_class_are_positives() -> None:
    examples = [
        Example("a", "a.png", {"captions": ["boats"], "label": "port"}),
        Example("b", "b.png", {"captions": ["yachts"], "label": "port"}),
        Example("c", "c.png", {"captions": ["sand"], "label": "beach"}),
        Example("d", "d.png", {"captions": ["grain"], "label": "Sorting Yard"}),
    ]
    plain, varied = (Captions.of(examples, Numbers(), synonyms=on) for on in (False, True))
    assert len(plain.texts) == 4 + 3 * 4
    ports, _, beaches, yards = (
        varied.of_class.values[start:end]
        for start, end in itertools.pairwise(varied.of_class.starts)
    )
    words = {varied.texts[text] for text in ports}
    assert {"port", "a seaport", "aerial view of docks"} <= words
    assert words >= {plain.texts[text] for text in plain.of_class.values[:4]}
    assert len(yards) == 4  # a class without synonyms
    for of_class in (ports, beaches, yards):
        assert len(set(varied.same[of_class])) == 1
    own = varied.same[varied.own.values]
    assert len({*own, varied.same[ports[0]], varied.same[beaches[0]]}) == 6
