"""Captions made from class names, of images that have a class and of those that have none."""

from __future__ import annotations

import pytest

from rsicd_embed.datasets.base import Example
from rsicd_embed.train.input.caption_draws import Captions

from .captioned_images import Numbers


@pytest.mark.parametrize("label", [None, "", "  ", "_"])
def test_a_blank_class_is_none(label: str | None) -> None:
    found = [
        Example("a", "a.png", {"captions": ["one", "two"], "label": label}),
        Example("b", "b.png", {"captions": ["three"], "label": "port"}),
    ]
    made = Captions.of(found, Numbers())
    assert made.texts[:3] == ("one", "two", "three")
    assert all("port" in text for text in made.texts[3:])
    of_first = made.of_class.values[: made.of_class.starts[1]]
    assert [made.texts[one] for one in of_first] == ["one", "two"]
