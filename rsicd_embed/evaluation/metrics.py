"""Retrieval and zero-shot metrics: pure functions of similarities, and of ranks.

Everything counts ranks. A rank is the place of the best right candidate of a query, from 1; the
metrics are the share of ranks up to k, under the names that papers use.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsicd_embed.arguments import require_items

RETRIEVAL_KS = (1, 5, 10)
ZEROSHOT_KS = (1, 3, 5, 10)


def rank_of_right(similarities: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Where the best right candidate of each query stands, from 1; a tie counts against.

    A wrong candidate that is as similar as the best right one stands before it, so that a model
    that gives every candidate one score is ranked last, not first. So does one whose similarity is
    NaN; a query with nothing right is ranked behind all candidates.

    Args:
        similarities: float (queries, candidates).
        right: bool (queries, candidates).

    Returns:
        int (queries,).

    Example:
        >>> rank_of_right(np.array([[.9, .5, .5]]), np.array([[False, True, False]]))
        array([3])
    """
    best = np.where(right, similarities, -np.inf).max(axis=1, keepdims=True)
    ranks: np.ndarray = 1 + (~right & ~(similarities < best)).sum(axis=1)
    return ranks


def hit_rates(ranks: np.ndarray, ks: Sequence[int], prefix: str) -> dict[str, float]:
    """The share of ranks that are at most k, by `prefix` and k.

    Example:
        >>> hit_rates(np.array([1, 2, 7, 3]), (1, 3), "top")
        {'top1': 0.25, 'top3': 0.75}
    """
    require_items(ks, "cut-offs", (int, np.integer))
    return {f"{prefix}{k}": float(np.mean(ranks <= k)) for k in ks}


def class_ranks(similarities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`rank_of_right` of float (n, classes), where `labels`, int (n,), are the right classes."""
    return rank_of_right(similarities, labels[:, None] == np.arange(similarities.shape[1]))


def topk_accuracy(
    similarities: np.ndarray, labels: np.ndarray, ks: Sequence[int] = ZEROSHOT_KS
) -> dict[str, float]:
    """How often the right class is among the k best, as fractions; a tie counts against.

    Args:
        similarities: float (n, c), of each image to each class.
        labels: int (n,), the right class of each image.
        ks: cut-offs; one of at least c gives 1.0.

    Example:
        >>> topk_accuracy(np.array([[.9, .1], [.8, .2]]), np.array([0, 1]), (1, 2))
        {'top1': 0.5, 'top2': 1.0}
    """
    return hit_rates(class_ranks(similarities, labels), ks, "top")


def retrieval_metrics(
    i2t_ranks: np.ndarray, t2i_ranks: np.ndarray, ks: Sequence[int] = RETRIEVAL_KS
) -> dict[str, float]:
    """Retrieval R@k both ways and mR, their mean, as fractions.

    Karpathy & Fei-Fei 2015 (arXiv:1412.2306) for R@k; mR as in Yuan et al. 2022 (arXiv:2204.09868).

    Args:
        i2t_ranks: int (images,), of the best of each image's captions among all captions.
        t2i_ranks: int (captions,), of each caption's image among all images.
        ks: cut-offs.

    Example:
        >>> retrieval_metrics(np.array([1, 4]), np.array([2, 1]), (1,))
        {'i2t_r1': 0.5, 't2i_r1': 0.5, 'mr': 0.5}
    """
    metrics = hit_rates(i2t_ranks, ks, "i2t_r") | hit_rates(t2i_ranks, ks, "t2i_r")
    return metrics | {"mr": float(np.mean(list(metrics.values())))}


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int (classes, classes): how many images of each class (row) were called each class (column).

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
        array([[1, 1],
               [0, 1]])
    """
    flat = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def contrastive_loss(similarities: np.ndarray, scale: float, captions: np.ndarray) -> float:
    """CLIP's loss (arXiv:2103.00020, figure 3) of pairs on the diagonal, in nats.

    Pairs of one caption share the target's probability equally, as in training.

    Args:
        similarities: float (b, b), of images (rows) to their captions (columns).
        scale: what they are multiplied by, exp(logit_scale).
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
