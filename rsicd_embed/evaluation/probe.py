"""Probes of frozen features: a linear probe, and k nearest neighbours.

The linear probe is CLIP's (Radford et al. 2021, arXiv:2103.00020, A.3): logistic regression with
L2 regularisation, whose strength is chosen on images that are neither fitted nor scored. Neighbours
vote with their cosine similarity, as in Wu et al. 2018 (arXiv:1805.01978).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rsicd_embed.errors import BenchError
from rsicd_embed.evaluation.metrics import class_ranks
from rsicd_embed.parallel import ordered_map

# Inverse regularisation strengths; large ones, since features are unit vectors.
CS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
KS = (1, 3, 5, 10, 20, 50)
HELD_OUT = 0.2

_ITERATIONS = 1000
_BLOCK = 1024

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Features:
    """Unit vectors float32 (n, dim) and their classes int (n,)."""

    vectors: np.ndarray
    labels: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Features:
        return Features(self.vectors[rows], self.labels[rows])


@dataclass(frozen=True)
class Tried:
    """A setting and its accuracy on the validation images."""

    setting: float
    top1: float


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier.

    Attributes:
        setting: C of the linear probe, k of the neighbours.
        tried: all settings with their accuracy on the validation images.
        scores: float (n, classes) of the test images; -inf for classes that were not fitted.
        converged: whether the final fit converged.
    """

    setting: float
    tried: tuple[Tried, ...]
    scores: np.ndarray
    converged: bool = True


def require_sklearn() -> None:
    """Checks, before any work, that probes can be fitted.

    Raises:
        BenchError: scikit-learn is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise BenchError(
            "the linear probe needs scikit-learn, which is not installed: "
            "pip install 'rsicd-embed[eval]'"
        ) from error


def hold_out(labels: np.ndarray, seed: int, share: float = HELD_OUT) -> tuple[np.ndarray, ...]:
    """Random rows to keep and rows to hold out, the same fraction of every class.

    At least one image of every class is kept.

    Example:
        >>> kept, held_out = hold_out(np.array([0] * 10 + [1] * 5 + [2]), seed=0)
        >>> len(kept), len(held_out)
        (13, 3)
    """
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        held_out[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def linear(
    fit: Features,
    choose: Features,
    refit: Features,
    test: np.ndarray,
    classes: int,
    progress: Progress = lambda done: None,
) -> Fitted:
    """Fits with each C, keeps the best (the smallest of equals), and fits the final model.

    Args:
        fit: training images while C is chosen.
        choose: validation images that C is chosen on.
        refit: training images of the final model; may be `fit` itself.
        test: float32 (n, dim), the images to score.
        classes: number of classes.
        progress: called with 1 after each fit.
    """
    tried = []
    with _one_thread_each():
        for c, model in zip(CS, ordered_map(partial(_fit, fit), CS, ahead=len(CS)), strict=True):
            scores = _log_odds(model, choose.vectors, classes)
            tried.append(Tried(c, _accuracy(scores, choose.labels)))
            progress(1)
        best = max(tried, key=lambda candidate: (candidate.top1, -candidate.setting)).setting
        model = _fit(refit, best)
    progress(1)
    converged = bool(np.max(model.n_iter_) < _ITERATIONS)
    return Fitted(best, tuple(tried), _log_odds(model, test, classes), converged)


def neighbours(
    fit: Features, choose: Features, refit: Features, test: np.ndarray, classes: int
) -> Fitted:
    """Chooses k as `linear` chooses C, the smallest of equals."""
    ks = [k for k in KS if k <= len(fit.labels)]
    votes = knn_votes(fit, choose.vectors, classes, ks)
    tried = [Tried(k, _accuracy(votes[k], choose.labels)) for k in ks]
    best = max(tried, key=lambda candidate: (candidate.top1, -candidate.setting))
    k = int(best.setting)
    return Fitted(k, tuple(tried), knn_votes(refit, test, classes, [k])[k])


def knn_votes(
    fit: Features, queries: np.ndarray, classes: int, ks: Sequence[int]
) -> dict[int, np.ndarray]:
    """The sum of similarities of each class among the k nearest neighbours, by k.

    Similarities are cosines shifted to [0, 2], so that no neighbour votes against its class. Among
    equally near neighbours, the first in `fit` counts.

    Returns:
        float64 (queries, classes) for each k.
    """
    most = max(ks)
    votes = {k: np.zeros((len(queries), classes)) for k in ks}
    for start in range(0, len(queries), _BLOCK):
        similarities = queries[start : start + _BLOCK] @ fit.vectors.T
        nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :most]
        weights = 1.0 + np.take_along_axis(similarities, nearest, axis=1)
        rows = np.arange(start, start + len(similarities))
        for place in range(most):
            for k in (k for k in ks if place < k):
                votes[k][rows, fit.labels[nearest[:, place]]] += weights[:, place]
    return votes


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Limits each of the concurrent fits to one thread: their products are too small for more."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the scores have a note instead
        yield


def _fit(features: Features, c: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=_ITERATIONS).fit(features.vectors, features.labels)


def _log_odds(model: Any, vectors: np.ndarray, classes: int) -> np.ndarray:
    """float64 (n, classes) of a scikit-learn classifier, which knows only the fitted classes."""
    decisions = model.decision_function(vectors)
    if decisions.ndim == 1:  # two classes share one decision value
        decisions = np.stack([-decisions, decisions], axis=1)
    scores = np.full((len(vectors), classes), -np.inf)
    scores[:, model.classes_] = decisions
    return scores


def _accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(class_ranks(scores, labels) == 1))
