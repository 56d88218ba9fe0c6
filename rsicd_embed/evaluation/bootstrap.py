"""How far a metric may be off because the images are a sample: the bootstrap over images.

Efron 1979: draw as many images as there are, with replacement, and compute the metric again. An
image is drawn with all its captions, which are not independent of one another; the candidates that
are searched stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# From how often each image was drawn, float (resamples, n), to metrics, float (resamples,).
Statistic = Callable[[np.ndarray], Mapping[str, np.ndarray]]

_BLOCK = 1 << 20  # counts held at once, 8 MB


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: percentile intervals of `level`, the same for the same seed."""

    resamples: int = 2000
    seed: int = 0
    level: float = 0.95

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        return {
            "resamples": self.resamples,
            "seed": self.seed,
            "level": self.level,
            "interval": "percentile",
            "unit": "image",
        }


def point(statistic: Statistic, n: int) -> dict[str, float]:
    """The metrics of all `n` images, each once."""
    return {name: float(values[0]) for name, values in statistic(np.ones((1, n))).items()}


def intervals(statistic: Statistic, n: int, bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
    """Low and high end of each metric's interval.

    Example:
        >>> hits = np.array([1, 1, 0, 1, 0, 1, 1, 1])
        >>> mean = lambda drawn: {"mean": drawn @ hits / drawn.sum(axis=1)}
        >>> point(mean, 8), intervals(mean, 8, Bootstrap())
        ({'mean': 0.75}, {'mean': (0.375, 1.0)})
    """
    random = np.random.default_rng(bootstrap.seed)
    found: dict[str, list[np.ndarray]] = {}
    left = bootstrap.resamples
    while left:
        some = min(left, max(1, _BLOCK // n))
        for name, values in statistic(_drawn(random, some, n)).items():
            found.setdefault(name, []).append(values)
        left -= some
    ends = ((1 - bootstrap.level) / 2, (1 + bootstrap.level) / 2)
    quantiles = {name: np.quantile(np.concatenate(some), ends) for name, some in found.items()}
    return {name: (float(low), float(high)) for name, (low, high) in quantiles.items()}


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`np.median` of values that occur several times.

    Args:
        values: real (n,).
        weights: float (resamples, n) of whole numbers, how often each value occurs.

    Returns:
        float (resamples,).

    Example:
        >>> weighted_median(np.array([5, 1, 9]), np.array([[1, 1, 1], [0, 1, 1], [3, 0, 1]]))
        array([5., 5., 5.])
    """
    order = np.argsort(values)
    ordered = values[order]
    reached = np.cumsum(weights[:, order], axis=1)
    half = reached[:, -1:] / 2
    lower = ordered[np.argmax(reached >= half, axis=1)]
    upper = ordered[np.argmax(reached > half, axis=1)]
    return np.asarray((lower + upper) / 2)


def _drawn(random: np.random.Generator, resamples: int, n: int) -> np.ndarray:
    """float (resamples, n): how often each of n images is drawn in n draws."""
    places = random.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    drawn = np.bincount(places.ravel(), minlength=resamples * n)
    return drawn.reshape(resamples, n).astype(np.float64)
