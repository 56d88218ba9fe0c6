"""Computations of evaluations and of `bench ann`, at the size of RSICD's test split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rsicd_embed.bench.ann import ground_truth
from rsicd_embed.bench.ann.workload import Workload
from rsicd_embed.evaluation import retrieval
from rsicd_embed.evaluation.metrics import Bootstrap, class_ranks, intervals
from rsicd_embed.testing.stores import unit
from tests.benchmarks.conftest import DIM, K

IMAGES, CAPTIONS, CLASSES = 1093, 5, 30


@pytest.fixture(scope="module")
def captions() -> retrieval.CaptionPairs:
    """Five distinct captions per image."""
    texts = np.arange(IMAGES * CAPTIONS)
    distinct = tuple(map(str, texts))
    return retrieval.CaptionPairs(IMAGES, distinct, texts, texts // CAPTIONS)


@pytest.mark.benchmark(group="metrics")
def test_class_ranks(benchmark: Any) -> None:
    similarities = unit(IMAGES, CLASSES)
    assert len(benchmark(class_ranks, similarities, np.arange(IMAGES) % CLASSES)) == IMAGES


@pytest.mark.benchmark(group="metrics")
def test_retrieval_ranks(benchmark: Any, captions: retrieval.CaptionPairs) -> None:
    images, texts = unit(IMAGES, DIM), unit(IMAGES * CAPTIONS, DIM, seed=1)
    assert len(benchmark(retrieval.rank, images, texts, captions).t2i) == IMAGES * CAPTIONS


@pytest.mark.benchmark(group="metrics")
def test_bootstrap(benchmark: Any, captions: retrieval.CaptionPairs) -> None:
    draw = np.random.default_rng(0)
    ranks = retrieval.Ranks(*(draw.integers(1, 100, n) for n in (IMAGES, IMAGES * CAPTIONS)))
    statistic = retrieval.statistic(ranks, captions)
    assert "mr" in benchmark(intervals, statistic, IMAGES, Bootstrap(resamples=200))


@pytest.mark.benchmark(group="metrics")
def test_ground_truth(benchmark: Any, rows: Workload) -> None:
    assert len(benchmark(ground_truth.kth_best, rows.base, rows.queries, K)) == len(rows.queries)


@pytest.mark.benchmark(group="metrics")
def test_ann_recalls(benchmark: Any, rows: Workload) -> None:
    kth = ground_truth.kth_best(rows.base, rows.queries, K)
    nearest = list(np.argsort(-(rows.queries @ rows.base.T), axis=1)[:, :K])
    assert benchmark(ground_truth.ann_recalls, nearest, rows.base, rows.queries, kth, K).min() == 1
