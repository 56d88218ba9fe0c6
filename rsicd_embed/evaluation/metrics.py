"""Retrieval and zero-shot metrics, as pure functions, and bootstrap intervals over the images.

All metrics are computed from ranks. A rank is the position, from 1, of the best correct candidate
of a query; a metric is the fraction of ranks up to k, under the name that papers use.

The bootstrap (Efron 1979) draws as many images as there are, with replacement, and computes the
metric again. An image is drawn with all its captions, which are not independent of one another; the
candidates that are searched stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rsicd_embed.arguments import require_items
from rsicd_embed.reports.evaluation_types import BootstrapSettings

RETRIEVAL_KS = (1, 5, 10)
ZEROSHOT_KS = (1, 3, 5, 10)
# float (resamples, n), the number of times each image was drawn → metrics, float (resamples,).
Statistic = Callable[[np.ndarray], Mapping[str, np.ndarray]]

_BLOCK = 1 << 20  # counts in memory at once, 8 MB


def rank_of_right(
    similarities: np.ndarray, right: np.ndarray, *, in_order: bool = False
) -> np.ndarray:
    """Rank of the best correct candidate of each query, from 1; ties count against it.

    An incorrect candidate with the same similarity ranks above it, so that a model that gives every
    candidate the same score is ranked last, not first. So does one whose similarity is NaN. A query
    without a correct candidate is ranked behind all candidates.

    Args:
        similarities: float (queries, candidates).
        right: bool (queries, candidates).
        in_order: candidates with the same similarity rank in their order instead, as in papers that
            sort with a stable `argsort`.

    Returns:
        int (queries,).

    Example:
        >>> rank_of_right(np.array([[.9, .5, .5]]), np.array([[False, True, False]]))
        array([3])
        >>> rank_of_right(np.array([[.9, .5, .5]]), np.array([[0, 1, 0]], bool), in_order=True)
        array([2])
    """
    best = np.where(right, similarities, -np.inf).max(axis=1, keepdims=True)
    if in_order:
        first = (right & (similarities == best)).argmax(axis=1)[:, None]
        later = np.arange(similarities.shape[1]) > first
        similarities = np.where(later & (similarities == best), -np.inf, similarities)
    ranks: np.ndarray = 1 + (~right & ~(similarities < best)).sum(axis=1)
    return ranks


def hit_rates(ranks: np.ndarray, ks: Sequence[int], prefix: str) -> dict[str, float]:
    """Fraction of ranks that are at most k, by `prefix` and k.

    Example:
        >>> hit_rates(np.array([1, 2, 7, 3]), (1, 3), "top")
        {'top1': 0.25, 'top3': 0.75}
    """
    require_items(ks, "cut-offs", (int, np.integer))
    return {f"{prefix}{k}": float(np.mean(ranks <= k)) for k in ks}


def class_ranks(similarities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`rank_of_right` of float (n, classes); `labels`, int (n,), are the correct classes."""
    return rank_of_right(similarities, labels[:, None] == np.arange(similarities.shape[1]))


def topk_accuracy(
    similarities: np.ndarray, labels: np.ndarray, ks: Sequence[int] = ZEROSHOT_KS
) -> dict[str, float]:
    """Top-k accuracy as fractions; ties count against the correct class.

    Args:
        similarities: float (n, c), of each image to each class.
        labels: int (n,), the correct class of each image.
        ks: cut-offs; a k of at least c gives 1.0.

    Example:
        >>> topk_accuracy(np.array([[.9, .1], [.8, .2]]), np.array([0, 1]), (1, 2))
        {'top1': 0.5, 'top2': 1.0}
    """
    return hit_rates(class_ranks(similarities, labels), ks, "top")


def retrieval_metrics(
    i2t_ranks: np.ndarray, t2i_ranks: np.ndarray, ks: Sequence[int] = RETRIEVAL_KS
) -> dict[str, float]:
    """Retrieval R@k in both directions, and their mean mR, as fractions.

    R@k as in Karpathy & Fei-Fei 2015 (arXiv:1412.2306), mR as in Yuan et al. 2022
    (arXiv:2204.09868).

    Args:
        i2t_ranks: int (images,), the best rank of an image's captions among all captions.
        t2i_ranks: int (captions,), the rank of a caption's image among all images.
        ks: cut-offs.

    Example:
        >>> retrieval_metrics(np.array([1, 4]), np.array([2, 1]), (1,))
        {'i2t_r1': 0.5, 't2i_r1': 0.5, 'mr': 0.5}
    """
    metrics = hit_rates(i2t_ranks, ks, "i2t_r") | hit_rates(t2i_ranks, ks, "t2i_r")
    return metrics | {"mr": float(np.mean(list(metrics.values())))}


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int (classes, classes): number of images by correct class (row) and predicted class (column).

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
        array([[1, 1],
               [0, 1]])
    """
    flat = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def contrastive_loss(similarities: np.ndarray, scale: float, captions: np.ndarray) -> float:
    """CLIP's loss (arXiv:2103.00020, figure 3) of the pairs on the diagonal, in nats.

    Items that share a caption are all positives of each other, as in training.

    Args:
        similarities: float (b, b), of images (rows) to their captions (columns).
        scale: factor of the similarities, exp(logit_scale).
        captions: int (b,); equal for equal captions.

    Example:
        >>> round(contrastive_loss(np.zeros((4, 4)), 100.0, np.arange(4)), 4)  # log 4
        1.3863
    """
    logits = similarities.astype(np.float64) * scale
    same = captions[:, None] == captions[None, :]
    target = np.where(same, logits, 0.0)

    def cross_entropy(axis: int) -> np.ndarray:
        highest = logits.max(axis=axis, keepdims=True)
        total = np.log(np.exp(logits - highest).sum(axis=axis)) + highest.squeeze(axis)
        return np.asarray(total - target.sum(axis=axis) / same.sum(axis=axis))

    return float((cross_entropy(1) + cross_entropy(0)).mean() / 2)


@dataclass(frozen=True)
class Bootstrap:
    """Settings of percentile intervals.

    Attributes:
        resamples: number of resamples.
        seed: random seed.
        level: confidence level.
    """

    resamples: int = 2000
    seed: int = 0
    level: float = 0.95

    def as_json(self) -> BootstrapSettings:
        """The settings for a record."""
        return {
            "resamples": self.resamples,
            "seed": self.seed,
            "level": self.level,
            "interval": "percentile",
            "unit": "image",
        }


def point(statistic: Statistic, n: int) -> dict[str, float]:
    """The metrics of all `n` images, each drawn once."""
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
    blocks: dict[str, list[np.ndarray]] = {}
    left = bootstrap.resamples
    while left:
        resamples = min(left, max(1, _BLOCK // n))
        for name, values in statistic(_draw(random, resamples, n)).items():
            blocks.setdefault(name, []).append(values)
        left -= resamples
    ends = ((1 - bootstrap.level) / 2, (1 + bootstrap.level) / 2)
    quantiles = {name: np.quantile(np.concatenate(own), ends) for name, own in blocks.items()}
    return {name: (float(low), float(high)) for name, (low, high) in quantiles.items()}


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`np.median` of values that occur several times.

    Args:
        values: real (n,).
        weights: float (resamples, n), whole numbers: how often each value occurs.

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


def _draw(random: np.random.Generator, resamples: int, n: int) -> np.ndarray:
    """float (resamples, n): how often each of n images is drawn in n draws."""
    places = random.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=resamples * n)
    return counts.reshape(resamples, n).astype(np.float64)
