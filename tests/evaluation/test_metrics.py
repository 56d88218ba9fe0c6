"""Ranks and metrics of matrices with known results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed.evaluation.metrics import (
    confusion_matrix,
    rank_of_right,
    retrieval_metrics,
    topk_accuracy,
)


def test_the_best_of_several_right_candidates_counts() -> None:
    similarities = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]])
    right = np.array([[False, True, False, True], [True, True, False, False]])
    assert rank_of_right(similarities, right).tolist() == [2, 3]


def test_right_candidates_do_not_compete() -> None:
    """Thousands of images of RSICD have the same caption five times."""
    similarities = np.array([[0.9, 0.9, 0.9, 0.1]])
    right = np.array([[True, True, True, False]])
    assert rank_of_right(similarities, right).tolist() == [1]


def test_a_tie_counts_against() -> None:
    constant = np.zeros((3, 3))
    assert rank_of_right(constant, np.eye(3, dtype=bool)).tolist() == [3, 3, 3]
    assert topk_accuracy(constant, np.arange(3), ks=(1, 3)) == {"top1": 0, "top3": 1}


def test_a_broken_model_is_ranked_last() -> None:
    """Comparisons with NaN are false, which must not count as a better rank."""
    everywhere = np.full((1, 3), np.nan)
    right = np.array([[True, False, False]])
    assert rank_of_right(everywhere, right).tolist() == [3]
    assert rank_of_right(np.array([[np.nan, 0.1, 0.2]]), right).tolist() == [3]
    assert rank_of_right(np.array([[0.5, np.nan, 0.2]]), right).tolist() == [2]


def test_a_query_without_right_candidates_is_ranked_last() -> None:
    assert rank_of_right(np.ones((1, 3)), np.zeros((1, 3), bool)).tolist() == [4]


def test_zeroshot() -> None:
    similarities = np.array([[0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.3]])
    metrics = topk_accuracy(similarities, np.array([0, 1, 0]), ks=(1, 2, 3))
    assert metrics == pytest.approx({"top1": 1 / 3, "top2": 2 / 3, "top3": 1.0})


def test_a_cut_off_beyond_all_classes_gives_one() -> None:
    assert topk_accuracy(np.array([[0.1, 0.2, 0.3]]), np.array([0]), ks=(10,)) == {"top10": 1.0}


def test_mr_is_the_mean_of_all_rates() -> None:
    metrics = retrieval_metrics(np.array([1, 6]), np.array([1, 2, 11, 5]))
    assert metrics == pytest.approx(
        {"i2t_r1": 0.5, "i2t_r5": 0.5, "i2t_r10": 1, "t2i_r1": 0.25, "t2i_r5": 0.75}
        | {"t2i_r10": 0.75, "mr": (0.5 + 0.5 + 1 + 0.25 + 0.75 + 0.75) / 6}
    )


def test_confusion() -> None:
    confusion = confusion_matrix(np.array([0, 0, 2, 2, 2]), np.array([0, 2, 2, 2, 0]), 3)
    assert confusion.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 2]]


matrices = st.tuples(st.integers(1, 6), st.integers(2, 7), st.integers(0, 2**31))


@given(matrices)
def test_order_changes_nothing(shape: tuple[int, int, int]) -> None:
    queries, candidates, seed = shape
    rng = np.random.default_rng(seed)
    similarities = rng.integers(0, 4, (queries, candidates)).astype(np.float32)  # with ties
    right = rng.random((queries, candidates)) < 0.4
    rows, columns = rng.permutation(queries), rng.permutation(candidates)
    shuffled = rank_of_right(similarities[rows][:, columns], right[rows][:, columns])
    np.testing.assert_array_equal(shuffled, rank_of_right(similarities, right)[rows])


@given(matrices)
def test_agrees_with_sorting(shape: tuple[int, int, int]) -> None:
    queries, candidates, seed = shape
    rng = np.random.default_rng(seed)
    similarities = rng.normal(size=(queries, candidates))
    right = rng.random((queries, candidates)) < 0.4
    right[:, 0] = True
    best = np.argsort(-similarities, axis=1)
    wanted = [1 + int(np.argmax(right[i, best[i]])) for i in range(queries)]
    assert rank_of_right(similarities, right).tolist() == wanted
