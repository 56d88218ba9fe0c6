"""Bootstrap intervals: width, coverage, and reproducibility."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed.evaluation import metrics as module
from rsicd_embed.evaluation.metrics import Bootstrap, Statistic, intervals, point, weighted_median


def mean_of(values: np.ndarray) -> Statistic:
    def of(drawn: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"mean": drawn @ values / drawn.sum(axis=1)}

    return of


def test_an_accuracy_has_the_width_of_its_binomial() -> None:
    hits = np.arange(1000) < 300
    low, high = intervals(mean_of(hits), 1000, Bootstrap())["mean"]
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.004)
    narrow = intervals(mean_of(hits), 1000, Bootstrap(level=0.5))["mean"]
    assert low < narrow[0] < 0.3 < narrow[1] < high


def test_the_interval_has_the_stated_coverage() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        low, high = intervals(mean_of(rng.random(60) < 0.4), 60, Bootstrap(resamples=200))["mean"]
        covered += low <= 0.4 <= high
    assert 0.9 <= covered / 200 <= 0.99


def test_the_interval_of_identical_images_has_no_width() -> None:
    assert intervals(mean_of(np.ones(9)), 9, Bootstrap())["mean"] == (1, 1)
    assert intervals(mean_of(np.zeros(1)), 1, Bootstrap())["mean"] == (0, 0)


def test_the_same_seed_gives_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    statistic = mean_of(np.random.default_rng(0).random(50))
    result = intervals(statistic, 50, Bootstrap(resamples=333))
    assert result == intervals(statistic, 50, Bootstrap(resamples=333))
    assert result != intervals(statistic, 50, Bootstrap(resamples=333, seed=1))
    monkeypatch.setattr(module, "_BLOCK", 120)  # two resamples at once
    in_blocks = intervals(statistic, 50, Bootstrap(resamples=333))
    assert in_blocks["mean"] == pytest.approx(result["mean"], rel=1e-12)


def test_the_point_estimate_uses_each_image_once() -> None:
    values = np.array([1.0, 2.0, 6.0])
    assert point(mean_of(values), 3) == {"mean": 3.0}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 2**31))
def test_weighted_median_is_the_median_of_repeated_values(values: list[int], seed: int) -> None:
    weights = np.random.default_rng(seed).integers(0, 4, (5, len(values)))
    weights[:, 0] += 1
    wanted = [np.median(np.repeat(values, row)) for row in weights]
    result = weighted_median(np.array(values), weights.astype(np.float64))
    np.testing.assert_array_equal(result, wanted)
