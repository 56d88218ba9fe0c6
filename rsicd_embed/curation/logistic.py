"""Multinomial logistic regression on unit vectors, cross-validated and calibrated.

The objective is scikit-learn's: C times the summed cross-entropy, plus half the squared weights;
the intercepts are not regularised. Temperature scaling (Guo et al. 2017, arXiv:1706.04599) on
held-out predictions calibrates the probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar

CS = (1.0, 10.0, 100.0, 1000.0)
FOLDS = 5
_ITERATIONS = 200
_BINS = 10


@dataclass(frozen=True)
class Classifier:
    """A fitted model.

    Attributes:
        weights: float64 (dim, classes).
        intercepts: float64 (classes,).
        temperature: divides the logits.
    """

    weights: np.ndarray
    intercepts: np.ndarray
    temperature: float = 1.0

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """float32 (n, dim) → float32 (n, classes), each row of sum 1."""
        logits = vectors @ self.weights.astype(np.float32) + self.intercepts.astype(np.float32)
        return softmax(logits / np.float32(self.temperature))


@dataclass(frozen=True)
class Validated:
    """A classifier fitted on all examples, and its cross-validated accuracy and calibration.

    Attributes:
        classifier: the classifier.
        accuracy: share of held-out examples that are predicted correctly.
        calibration_error: expected calibration error of held-out examples, in ten bins.
        c: the inverse regularisation strength.
        folds: number of folds.
    """

    classifier: Classifier
    accuracy: float
    calibration_error: float
    c: float
    folds: int


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def fit(vectors: np.ndarray, labels: np.ndarray, classes: int, c: float) -> Classifier:
    """Fits a classifier.

    Args:
        vectors: (n, dim).
        labels: int (n,) in [0, classes).
        classes: number of classes.
        c: inverse regularisation strength.
    """
    # The weights are a combination of the examples, so fewer examples need fewer coordinates.
    basis, _ = np.linalg.qr(vectors.T.astype(np.float64))
    x = vectors @ basis
    n, dim = x.shape
    truth = np.zeros((n, classes))
    truth[np.arange(n), labels] = 1

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercepts = flat[:-classes].reshape(dim, classes), flat[-classes:]
        logits = x @ weights + intercepts
        top = logits.max(axis=1, keepdims=True)
        log_sums = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
        entropy = log_sums.sum() - (logits * truth).sum()
        residual = c * (np.exp(logits - log_sums[:, None]) - truth)
        gradient = np.concatenate([(x.T @ residual + weights).ravel(), residual.sum(axis=0)])
        return c * entropy + 0.5 * float(np.vdot(weights, weights)), gradient

    start = np.zeros(dim * classes + classes)
    options = {"maxiter": _ITERATIONS, "gtol": 1e-4 * max(1.0, c), "ftol": 1e-9}
    flat = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return Classifier(basis @ flat[:-classes].reshape(dim, classes), flat[-classes:])


def cross_validate(vectors: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> Validated:
    """Fits a classifier on all examples, and measures its accuracy by cross-validation.

    In each of at most five stratified folds, the strength is the one that is best in the other
    folds, and so is the temperature: no example influences its own prediction.

    Args:
        vectors: float32 (n, dim), unit vectors.
        labels: int (n,) in [0, classes), each class at least twice.
        classes: number of classes, at least two.
        seed: random seed of the folds.
    """
    fold = _folds(labels, seed)
    folds = int(fold.max()) + 1
    logits = {c: np.zeros((len(labels), classes)) for c in CS}
    for held_out in range(folds):
        rest, test = fold != held_out, fold == held_out
        for c in CS:
            model = fit(vectors[rest], labels[rest], classes, c)
            logits[c][test] = vectors[test] @ model.weights + model.intercepts
    held_out_probabilities = np.zeros((len(labels), classes))
    for held_out in range(folds):
        rest, test = fold != held_out, fold == held_out
        c = _best(logits, labels, rest)
        temperature = _temperature(logits[c][rest], labels[rest])
        held_out_probabilities[test] = softmax(logits[c][test] / temperature)
    c = _best(logits, labels, np.ones(len(labels), bool))
    model = fit(vectors, labels, classes, c)
    temperature = _temperature(logits[c], labels)
    correct = held_out_probabilities.argmax(axis=1) == labels
    return Validated(
        Classifier(model.weights, model.intercepts, temperature),
        float(correct.mean()),
        calibration_error(held_out_probabilities.max(axis=1), correct),
        c,
        folds,
    )


def calibration_error(confidences: np.ndarray, correct: np.ndarray) -> float:
    """Mean distance between confidence and accuracy over ten bins, weighted by their size.

    Example:
        >>> calibration_error(np.array([0.9, 0.9]), np.array([True, False]))
        0.4
    """
    bins = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    gaps = (
        abs(float(confidences[bins == place].mean()) - float(correct[bins == place].mean()))
        * float((bins == place).mean())
        for place in np.unique(bins)
    )
    return round(sum(gaps), 12)


def _folds(labels: np.ndarray, seed: int) -> np.ndarray:
    """int (n,): the fold of each example; classes are spread evenly."""
    random = np.random.default_rng(seed)
    folds = max(2, min(FOLDS, int(np.bincount(labels)[np.unique(labels)].min())))
    fold = np.zeros(len(labels), int)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        fold[rows] = (np.arange(len(rows)) + label) % folds
    return fold


def _best(logits: dict[float, np.ndarray], labels: np.ndarray, rows: np.ndarray) -> float:
    """The strength with the highest accuracy on some rows; the smallest of equals."""
    return max(
        CS, key=lambda c: (float((logits[c][rows].argmax(axis=1) == labels[rows]).mean()), -c)
    )


def _temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the lowest cross-entropy, from e⁻³ to e³."""

    def entropy(logarithm: float) -> float:
        probabilities = softmax(logits / np.exp(logarithm))
        right = probabilities[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    return float(np.exp(minimize_scalar(entropy, bounds=(-3, 3), method="bounded").x))
