"""Caption metrics against recorded values of pycocoevalcap, and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation.caption_metrics import CaptionScores, score_captions, tokenise
from rsicd_embed.evaluation.metrics import Bootstrap, intervals, point

SETS = json.loads(Path(__file__).with_name("caption_metrics.json").read_text())["sets"]


def scored(recorded: dict) -> CaptionScores:
    images = recorded["images"]
    return score_captions(
        [image["caption"] for image in images], [image["references"] for image in images]
    )


@pytest.mark.parametrize("recorded", SETS, ids=["all", "one image", "three images"])
def test_metrics_equal_the_reference_implementation(recorded: dict) -> None:
    scores = scored(recorded)
    assert point(scores.statistic, len(recorded["images"])) == pytest.approx(
        recorded["metrics"], abs=1e-6
    )
    np.testing.assert_allclose(scores.rouge_l, recorded["rouge_l"], atol=1e-6)
    np.testing.assert_allclose(scores.cider_d, recorded["cider_d"], atol=1e-6)


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("Many  planes, on an airport .", "many planes on an airport"),
        ("There isn't a river; it's dry!", "there is n't a river it 's dry"),
        ("don’t cannot", "do n't can not"),
        ("a U-shaped, half-built building", "a u-shaped half-built building"),
        ("two (2) boats", "two -lrb- 2 -rrb- boats"),
        ("about 1,000 cars at 3.5 km", "about 1,000 cars at 3.5 km"),
        ("été à Paris", "été à paris"),
        ("... - ' \"", ""),
        ("", ""),
    ],
)
def test_tokens(caption: str, tokens: str) -> None:
    assert tokenise(caption) == tokens.split()


def test_a_copied_reference_is_perfect() -> None:
    references = [["a red boat on the sea"], ["green trees beside a long road"]]
    metrics = point(score_captions([own[0] for own in references], references).statistic, 2)
    assert metrics == pytest.approx(
        {"bleu1": 1, "bleu2": 1, "bleu3": 1, "bleu4": 1, "rouge_l": 1, "cider_d": 10}, abs=1e-6
    )


def test_an_empty_caption_scores_zero() -> None:
    metrics = point(score_captions(["", "..."], [["a boat"], ["a road"]]).statistic, 2)
    assert metrics == pytest.approx(dict.fromkeys(metrics, 0.0), abs=1e-3)


def test_resamples_are_the_metrics_of_the_drawn_images() -> None:
    scores = scored(SETS[0])
    drawn = [0, 0, 2, 5]
    counts = np.bincount(drawn, minlength=len(SETS[0]["images"]))[None].astype(float)
    images = [SETS[0]["images"][place] for place in drawn]
    again = scored({"images": images})
    resampled = {name: values[0] for name, values in scores.statistic(counts).items()}
    expected = point(again.statistic, len(drawn))
    # Document frequencies of CIDEr-D stay those of all images.
    expected["cider_d"] = scores.cider_d[drawn].mean()
    assert resampled == pytest.approx(expected)


def test_intervals_contain_the_point() -> None:
    scores = scored(SETS[0])
    n = len(SETS[0]["images"])
    ends = intervals(scores.statistic, n, Bootstrap(resamples=200))
    for name, value in point(scores.statistic, n).items():
        low, high = ends[name]
        assert low <= value <= high
        assert low < high


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ([], [], "found 0 captions of 0 images"),
        (["a boat"], [["a boat"], ["a road"]], "found 1 captions of 2 images"),
        (["a boat", "a road"], [["a boat"], []], "found none for 1 of 2"),
    ],
)
def test_refused(captions: list[str], references: list[list[str]], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        score_captions(captions, references)
