"""Prompts, class names, ranks and scores."""

from __future__ import annotations

import numpy as np
import pytest

from rsicd_embed.datasets.classes import PROMPT
from rsicd_embed.errors import BenchError
from rsicd_embed.evaluation.metrics import Bootstrap
from rsicd_embed.evaluation.zeroshot import (
    ZeroShotOutcome,
    class_names,
    class_vectors,
    classify,
    report,
    require_prompts,
)
from tests.evaldata import COLOURS, Colours

NAMES = sorted(COLOURS)


def test_a_class_vector_is_the_vector_of_its_prompt() -> None:
    vectors = class_vectors(Colours(), NAMES, [PROMPT])
    np.testing.assert_array_equal(vectors, Colours().embed_texts(NAMES))


def test_several_prompts_are_averaged_and_normalised() -> None:
    class Words(Colours):
        """A text is the sum of the axes of its letters x, y and z."""

        def embed_texts(self, texts: object) -> np.ndarray:
            counts = np.array([[text.count(c) for c in "xyz"] for text in texts], float)  # type: ignore[attr-defined]
            return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)

    vectors = class_vectors(
        Words(), ["x", "y"], ["xxxx {category}{category}{category}", "{category}"]
    )
    # x: twice (1, 0, 0). y: (4, 3, 0)/5 and (0, 1, 0), whose mean is (.4, .8, 0).
    wanted = np.array([[1, 0, 0], [0.4, 0.8, 0] / np.sqrt(0.8)])
    np.testing.assert_allclose(vectors, wanted, atol=1e-6)
    assert vectors.dtype == np.float32


def test_other_braces_are_kept() -> None:
    seen: list[str] = []

    class Listening(Colours):
        def embed_texts(self, texts: object) -> np.ndarray:
            seen.extend(texts)  # type: ignore[call-overload]
            return super().embed_texts(list(texts))  # type: ignore[call-overload]

    class_vectors(Listening(), ["sea", "forest"], ["{a} {0} {category}, {category}", "{category}"])
    assert seen == ["{a} {0} sea, sea", "{a} {0} forest, forest", "sea", "forest"]


def test_classes_with_the_same_prompt_are_reported() -> None:
    with pytest.warns(UserWarning, match=r"'Golf Course', 'golf_course' have the same prompt"):
        names = class_names(["Golf Course", "golf_course", "sea"])
    assert names == ["golf course", "golf course", "sea"]
    assert class_names(["Golf Course", "golf_course"], raw=True) == ["Golf Course", "golf_course"]


def test_a_prompt_without_a_place_for_the_class() -> None:
    with pytest.raises(BenchError, match=r"expected \{category\} in the prompt.*'a \{class\}'"):
        require_prompts([PROMPT, "a {class}"])


def test_names() -> None:
    classes = ("denseresidential", "GolfCourse", "port")
    assert class_names(classes) == ["dense residential area", "golf course", "port"]
    assert class_names(classes, raw=True) == list(classes)


def test_report() -> None:
    images = np.eye(3, dtype=np.float32)[[0, 0, 1, 1]]
    vectors = np.array([[1, 0, 0], [0.5, 0.8, 0], [0, 0.9, 0]], np.float32)
    outcome = classify(images, vectors, np.array([0, 1, 1, 1]), ["a", "b", "c"])
    assert outcome.ranks.tolist() == [1, 2, 2, 2]
    assert outcome.predicted.tolist() == [0, 0, 2, 2]
    scores = report(outcome, Bootstrap())
    assert scores["metrics"] == {"top1": 0.25, "top3": 1, "top5": 1, "top10": 1}
    assert scores["confusion"] == [[1, 0, 0], [1, 0, 2], [0, 0, 0]]
    first, second, third = scores["per_class"]
    assert (first["n"], first["top1"], first["most_mistaken_for"]) == (1, 1, None)
    assert (second["n"], second["top1"], second["top3"]) == (3, 0, 1)
    assert (second["most_mistaken_for"], second["mistaken"]) == ("c", 2)
    assert (third["n"], third["top1"]) == (0, None)
    low, high = scores["intervals"]["top1"]
    assert low <= 0.25 <= high
    assert scores["bootstrap"]["resamples"] == 2000
    assert scores["notes"] == [
        *(f"top{k} of 3 classes is 1 for any model" for k in (3, 5, 10)),
        "classes without images: c",
    ]


def test_a_tie_counts_against() -> None:
    same = np.ones((2, 3), np.float32)
    outcome = classify(same, same, np.array([0, 1]), ["a", "b"])
    assert outcome.ranks.tolist() == [2, 2]


def test_only_the_given_ks() -> None:
    outcome = ZeroShotOutcome(("a", "b"), np.array([0]), np.array([1]), np.array([0]))
    assert report(outcome, Bootstrap(), (1,))["metrics"] == {"top1": 1}
