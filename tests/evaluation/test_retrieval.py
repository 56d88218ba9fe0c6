"""The retrieval protocol: known results, shared captions, and the ceiling of a perfect model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed.datasets import captioned
from rsicd_embed.datasets.base import Example
from rsicd_embed.evaluation import retrieval
from rsicd_embed.evaluation.metrics import (
    Bootstrap,
    intervals,
    point,
    rank_of_right,
    retrieval_metrics,
)
from rsicd_embed.evaluation.retrieval import CaptionPairs, Ranks, ceiling, rank, report, statistic


def captions_of(*of_images: str) -> CaptionPairs:
    """Each letter is a caption: "ab" is an image with the captions a and b."""
    examples = [
        Example(str(i), f"{i}.png", {"captions": list(captions)})
        for i, captions in enumerate(of_images)
    ]
    return CaptionPairs.of(examples)


def ranks(
    similarities: list[list[float]], captions: CaptionPairs, *, credit: bool = False
) -> Ranks:
    """Ranks from similarities of images to distinct captions, in the order of their first use."""
    images = np.array(similarities, np.float32)
    return rank(
        images, np.eye(images.shape[1], dtype=np.float32), captions, credit_duplicates=credit
    )


def as_lists(ranked: Ranks) -> tuple[list[int], list[int]]:
    return ranked.i2t.tolist(), ranked.t2i.tolist()


def test_two_images_with_two_captions_each() -> None:
    captions = captions_of("ab", "cd")
    ranked = ranks([[0.9, 0.1, 0.8, 0.2], [0.3, 0.7, 0.6, 0.5]], captions)
    # Image 0 finds its caption a first; image 1 finds b of image 0 first, then its own c.
    # Captions a and d find their images first; b finds image 1, and c image 0.
    assert as_lists(ranked) == ([1, 2], [1, 2, 2, 1])


def test_images_with_different_numbers_of_captions() -> None:
    captions = captions_of("abc", "d")
    ranked = ranks([[0.1, 0.2, 0.3, 0.4], [0.5, 0.1, 0.1, 0.2]], captions)
    assert as_lists(ranked) == ([2, 2], [2, 1, 1, 2])
    # Each caption is a query: image 0 weighs three times what image 1 does.
    assert point(statistic(ranked, captions), 2)["t2i_r1"] == 0.5


def test_a_constant_model_reaches_nothing() -> None:
    captions = captions_of("a", "b", "c")
    assert as_lists(ranks([[0.0] * 3] * 3, captions)) == ([3, 3, 3], [3, 3, 3])


def test_a_shared_caption_is_right_only_for_its_image() -> None:
    captions = captions_of("aa", "ab")
    ranked = ranks([[0.9, 0.1], [0.8, 0.2]], captions)
    # a is twice a caption of image 0, and once of image 1, whose copy ties for image 0.
    assert as_lists(ranked) == ([2, 3], [1, 1, 2, 1])
    credited = ranks([[0.9, 0.1], [0.8, 0.2]], captions, credit=True)
    assert as_lists(credited) == ([1, 1], [1, 1, 1, 1])


def test_credit_does_not_change_wrong_pairs() -> None:
    captions = captions_of("a", "a", "b")
    similarities = [[0.1, 0.9], [0.3, 0.2], [0.5, 0.4]]
    credited = ranks(similarities, captions, credit=True)
    # Image 0 prefers b; caption a finds image 2 before images 1 and 0.
    assert as_lists(credited) == ([2, 1, 3], [2, 2, 2])


def test_ceiling_by_hand() -> None:
    # a is queried three times, twice for image 0: at most two of the three can be first.
    best = ceiling(captions_of("aa", "ab"))
    assert best["t2i_r1"] == 3 / 4
    assert best["t2i_r5"] == 1
    # All captions of image 0 tie with a copy of image 1; b belongs to image 1 alone.
    assert best["i2t_r1"] == 1 / 2
    assert set(ceiling(captions_of("aa", "ab"), credit_duplicates=True).values()) == {1.0}
    assert set(ceiling(captions_of("ab", "c")).values()) == {1.0}


sets = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=2, max_size=6)


@given(sets, st.integers(0, 2**31))
def test_no_model_is_better_than_the_ceiling(of_images: list[str], seed: int) -> None:
    captions = captions_of(*of_images)
    shape = captions.images, len(captions.distinct)
    best = ceiling(captions)
    for similarities in (np.random.default_rng(seed).random(shape), perfect(captions)):
        ranked = ranks(similarities.tolist(), captions)
        metrics = retrieval_metrics(ranked.i2t, ranked.t2i)
        assert all(metrics[name] <= best[name] + 1e-12 for name in metrics)


@given(sets)
def test_the_ceiling_is_reached(of_images: list[str]) -> None:
    captions = captions_of(*of_images)
    best = ceiling(captions)
    ranked = ranks(perfect(captions).tolist(), captions)
    metrics = retrieval_metrics(ranked.i2t, ranked.t2i)
    assert {n: v for n, v in metrics.items() if n.startswith("t2i")} == pytest.approx(
        {n: v for n, v in best.items() if n.startswith("t2i")}
    )
    rarest = ranks(perfect(captions, rarest=True).tolist(), captions)
    metrics = retrieval_metrics(rarest.i2t, rarest.t2i)
    assert metrics["i2t_r1"] == pytest.approx(best["i2t_r1"])


def perfect(captions: CaptionPairs, *, rarest: bool = False) -> np.ndarray:
    """Similarities of a perfect model that prefers a text's most frequent image, or the rarest."""
    similarities = np.zeros((captions.images, len(captions.distinct)))
    totals = np.bincount(captions.text)
    for (text, image), count in captions.copies.items():
        similarities[image, text] = 1 + (count - totals[text] if rarest else count) / 100
        similarities[image, text] -= image / 10_000  # all different
    return similarities


@given(sets, st.integers(0, 2**31), st.booleans())
def test_order_changes_nothing(of_images: list[str], seed: int, credit: bool) -> None:
    rng = np.random.default_rng(seed)
    captions = captions_of(*of_images)
    similarities = rng.integers(0, 4, (captions.images, len(captions.distinct))) / 4
    order = rng.permutation(captions.images)
    shuffled = captions_of(*(of_images[i] for i in order))
    columns = [captions.distinct.index(text) for text in shuffled.distinct]
    original = ranks(similarities.tolist(), captions, credit=credit)
    shuffled_ranks = ranks(similarities[order][:, columns].tolist(), shuffled, credit=credit)
    np.testing.assert_array_equal(shuffled_ranks.i2t, original.i2t[order])
    assert retrieval_metrics(shuffled_ranks.i2t, shuffled_ranks.t2i) == pytest.approx(
        retrieval_metrics(original.i2t, original.t2i)
    )


@pytest.mark.parametrize("credit", [False, True])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, credit: bool) -> None:
    rng = np.random.default_rng(3)
    captions = captions_of(*("".join(rng.choice(list("abcdefgh"), 3)) for _ in range(9)))
    similarities = rng.random((9, len(captions.distinct))).tolist()
    whole = as_lists(ranks(similarities, captions, credit=credit))
    monkeypatch.setattr(retrieval, "_BLOCK", 60)
    assert as_lists(ranks(similarities, captions, credit=credit)) == whole


def test_the_point_estimate_lies_in_its_interval() -> None:
    rng = np.random.default_rng(1)
    captions = captions_of(*("".join(rng.choice(list("abcdefghij"), 2)) for _ in range(30)))
    ranked = ranks(rng.random((30, len(captions.distinct))).tolist(), captions)
    scores = report(ranked, ranked, captions, Bootstrap(), credit_duplicates=False)
    metrics = dict(scores["metrics"])
    assert metrics.pop("i2t_median_rank") == np.median(ranked.i2t)
    assert metrics.pop("t2i_median_rank") == np.median(ranked.t2i)
    assert metrics == pytest.approx(retrieval_metrics(ranked.i2t, ranked.t2i))
    for name, (low, high) in scores["intervals"].items():
        assert low <= scores["metrics"][name] <= high
    assert (scores["n"], scores["captions"], scores["distinct_captions"]) == (30, 60, 10)


def test_captions_of_an_image_are_drawn_together() -> None:
    """Five captions of an image are one observation, not five."""
    hits = np.arange(200) % 2 + 1
    together = captions_of(*["abcde"] * 200)
    alone = captions_of(*["a"] * 1000)
    wide = interval(Ranks(hits, np.repeat(hits, 5)), together)
    narrow = interval(Ranks(np.repeat(hits, 5), np.repeat(hits, 5)), alone)
    assert wide == pytest.approx(np.sqrt(5) * narrow, rel=0.15)


def interval(ranked: Ranks, captions: CaptionPairs) -> float:
    low, high = intervals(statistic(ranked, captions), captions.images, Bootstrap())["t2i_r1"]
    return high - low


def test_the_ceiling_of_rsicd(rsicd: Path) -> None:
    captions = CaptionPairs.of(captioned.load(rsicd).split("test"))
    assert (captions.images, len(captions.text), captions.shared) == (1093, 5465, 150)
    best = ceiling(captions)
    assert [round(best[f"t2i_r{k}"], 3) for k in (1, 5, 10)] == [0.931, 0.992, 0.998]


def test_ties_in_order_are_those_of_a_stable_argsort() -> None:
    rng = np.random.default_rng(2)
    similarities = rng.integers(0, 4, (50, 12)).astype(np.float32)  # with many ties
    right = rng.random((50, 12)) < 0.2
    right[:, 3] |= ~right.any(axis=1)
    order = np.argsort(-similarities, axis=1, kind="stable")
    expected = 1 + np.take_along_axis(right, order, axis=1).argmax(axis=1)
    assert np.array_equal(rank_of_right(similarities, right, in_order=True), expected)
    assert (rank_of_right(similarities, right) >= expected).all()
