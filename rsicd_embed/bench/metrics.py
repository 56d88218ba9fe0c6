"""Retrieval and zero-shot metrics: pure functions of similarity matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RETRIEVAL_KS = (1, 5, 10)
ZEROSHOT_KS = (1, 3, 5, 10)


def topk_accuracy(
    similarities: np.ndarray, labels: np.ndarray, ks: Sequence[int] = ZEROSHOT_KS
) -> dict[str, float]:
    """How often the right class is among the k best, as fractions; a tie counts against.

    Args:
        similarities: float (n, c), of each image to each class.
        labels: int (n,), the right class of each image.
        ks: cut-offs.

    Example:
        >>> topk_accuracy(np.array([[.9, .1], [.8, .2]]), np.array([0, 1]), (1, 2))
        {'top1': 0.5, 'top2': 1.0}
    """
    right = similarities[np.arange(len(labels)), labels]
    rank = (similarities >= right[:, None]).sum(axis=1)
    return {f"top{k}": float(np.mean(rank <= k)) for k in ks}


def retrieval_recall(
    similarities: np.ndarray, image_of_text: np.ndarray, ks: Sequence[int] = RETRIEVAL_KS
) -> dict[str, float]:
    """Retrieval R@k both ways and their mean mR, as fractions; a tie counts against.

    Image→text asks for the best of the image's own captions, text→image for the caption's image,
    as in Karpathy & Fei-Fei 2015 (arXiv:1412.2306). A caption that several images share belongs,
    for each query, only to the image it stands with.

    Args:
        similarities: float (images, texts).
        image_of_text: int (texts,), the image of each caption; every image has at least one.
        ks: cut-offs.
    """
    images, texts = similarities.shape
    own = image_of_text[None, :] == np.arange(images)[:, None]
    best_own = np.where(own, similarities, -np.inf).max(axis=1)
    i2t_rank = 1 + (~own & (similarities >= best_own[:, None])).sum(axis=1)
    right = similarities[image_of_text, np.arange(texts)]
    t2i_rank = (similarities >= right[None, :]).sum(axis=0)
    metrics = {f"i2t_r{k}": float(np.mean(i2t_rank <= k)) for k in ks}
    metrics |= {f"t2i_r{k}": float(np.mean(t2i_rank <= k)) for k in ks}
    return metrics | {"mr": float(np.mean(list(metrics.values())))}
