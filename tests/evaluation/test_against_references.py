"""The metrics agree with torchmetrics and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rsicd_embed.bench.ann import ground_truth
from rsicd_embed.evaluation.metrics import (
    class_ranks,
    confusion_matrix,
    hit_rates,
    rank_of_right,
    topk_accuracy,
)
from rsicd_embed.evaluation.retrieval import CaptionPairs, rank
from rsicd_embed.testing.stores import unit

KS = pytest.mark.parametrize("k", [1, 3, 5])


@pytest.fixture(scope="module")
def torch_() -> Any:
    """PyTorch, with the fix for torchvision, which torchmetrics imports."""
    pytest.importorskip("torch")
    from tests import reference

    pytest.importorskip("torchmetrics")
    return reference.torch


def hit_rate(torch_: Any, similarities: np.ndarray, right: np.ndarray, k: int) -> float:
    """Mean of torchmetrics' RetrievalHitRate over queries."""
    from torchmetrics.functional.retrieval import retrieval_hit_rate

    rows = zip(torch_.tensor(similarities), torch_.tensor(right), strict=True)
    return float(np.mean([float(retrieval_hit_rate(*row, top_k=k)) for row in rows]))


@KS
def test_hit_rates(torch_: Any, k: int) -> None:
    """With several right candidates per query."""
    rng = np.random.default_rng(k)
    similarities = rng.random((40, 12), np.float32)
    right = rng.random((40, 12)) < 0.2
    right[np.arange(40), rng.integers(0, 12, 40)] = True
    ours = hit_rates(rank_of_right(similarities, right), (k,), "r")[f"r{k}"]
    assert ours == pytest.approx(hit_rate(torch_, similarities, right, k))


@KS
def test_topk_accuracy(torch_: Any, k: int) -> None:
    from torchmetrics.functional.classification import multiclass_accuracy

    rng = np.random.default_rng(k)
    similarities, labels = rng.random((40, 12), np.float32), rng.integers(0, 12, 40)
    accuracy = multiclass_accuracy(
        torch_.tensor(similarities), torch_.tensor(labels), 12, top_k=k, average="micro"
    )
    assert topk_accuracy(similarities, labels, (k,))[f"top{k}"] == pytest.approx(float(accuracy))
    assert np.mean(class_ranks(similarities, labels) <= k) == pytest.approx(float(accuracy))


@KS
def test_retrieval_of_images_with_several_captions(torch_: Any, k: int) -> None:
    """With one to five captions per image, all different, so that there are no ties."""
    image = np.repeat(np.arange(20), 1 + np.arange(20) % 5)
    texts = tuple(str(i) for i in range(len(image)))
    captions = CaptionPairs(20, texts, np.arange(len(image)), image)
    images, vectors = unit(20, dim=16), unit(len(image), dim=16, seed=1)
    results = rank(images, vectors, captions)
    right = image == np.arange(20)[:, None]
    for ranks, queries in (
        (results.i2t, (images @ vectors.T, right)),
        (results.t2i, (vectors @ images.T, right.T)),
    ):
        assert np.mean(ranks <= k) == pytest.approx(hit_rate(torch_, *queries, k))


@KS
def test_ann_recalls(torch_: Any, k: int) -> None:
    """With searches that return some of the nearest rows, without ties."""
    from torchmetrics.functional.retrieval import retrieval_recall

    rng = np.random.default_rng(k)
    base, queries = unit(60, dim=8), unit(15, dim=8, seed=1)
    cosines = queries @ base.T
    results = [np.argsort(-(row + rng.normal(0, 0.2, 60)))[:k] for row in cosines]
    theirs = []
    for row, rows in zip(cosines, results, strict=True):
        given, best = np.zeros(60, np.float32), np.zeros(60, bool)
        given[rows], best[np.argsort(-row)[:k]] = 1, True
        theirs.append(float(retrieval_recall(torch_.tensor(given), torch_.tensor(best), top_k=k)))
    ours = ground_truth.ann_recalls(
        results, base, queries, ground_truth.kth_best(base, queries, k), k
    )
    assert 0 < np.mean(ours) < 1
    np.testing.assert_allclose(ours, theirs)


def test_confusion() -> None:
    theirs = pytest.importorskip("sklearn.metrics").confusion_matrix
    labels, predicted = np.random.default_rng(0).integers(0, 7, (2, 200))
    np.testing.assert_array_equal(
        confusion_matrix(labels, predicted, 9), theirs(labels, predicted, labels=range(9))
    )
