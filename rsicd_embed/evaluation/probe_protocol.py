"""Protocol of the probes: training, validation and test images of a dataset, and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import BenchError, DatasetError
from rsicd_embed.evaluation.dataset import ALL, EvalSet, labelled
from rsicd_embed.evaluation.metrics import Bootstrap, class_ranks, intervals, point
from rsicd_embed.evaluation.probe import (
    CS,
    HELD_OUT,
    Features,
    Fitted,
    Progress,
    hold_out,
    linear,
    neighbours,
)
from rsicd_embed.reports.evaluation_types import FittedProbe, ProbeScores

HELD_OUT_OF_TRAIN = f"{HELD_OUT:.0%} of each class of the training images"
STEPS = len(CS) + 1  # fits reported to `progress`

_VALIDATION = ("val", "valid", "validation", "dev")


@dataclass(frozen=True)
class ProbePlan:
    """The training, validation and test images of a probe.

    Attributes:
        classes: class names as the dataset writes them.
        train, choose, test: labelled images; `choose` is None if it is held out of `train`.
        labels: position in `classes` of each image, by id.
        names: names of the three parts, for a record.
    """

    classes: tuple[str, ...]
    train: tuple[Example, ...]
    choose: tuple[Example, ...] | None
    test: tuple[Example, ...]
    labels: Mapping[str, int]
    names: Mapping[Literal["split", "train_split", "chosen_on"], str]

    @property
    def examples(self) -> tuple[Example, ...]:
        """All images."""
        return (*self.train, *(self.choose or ()), *self.test)


def plan(evalset: EvalSet, split: str | None, train_split: str, seed: int) -> ProbePlan:
    """Fits on `train_split`, scores `split`, and validates on val, if that is a third split.

    If the dataset has no splits, a fraction of each class is held out as the test images.

    Raises:
        DatasetError: a split is missing, or there are no labels.
        BenchError: the two splits are the same.
    """
    name, test = evalset.split(split)
    if name == ALL:
        if split == ALL or any(example.split for example in evalset.examples):
            raise BenchError("expected a split to score that is not fitted, found all images")
        return _without_splits(evalset, seed)
    train_name, train = evalset.split(train_split)
    if train_name in (name, ALL):
        raise BenchError(
            f"expected different splits to fit and to score, found {train_name!r} and {name!r}; "
            "give --train-split and --split"
        )
    splits = {example.split for example in evalset.examples}
    choose_name = next(
        (split for split in _VALIDATION if split in splits and split not in (name, train_name)), ""
    )
    labels: dict[str, int] = {}
    classes: tuple[str, ...] = ()
    parts = []
    for examples in (train, evalset.split(choose_name)[1] if choose_name else (), test):
        if examples:
            chosen = labelled(evalset, examples)
            classes = chosen.classes
            examples = tuple(examples[row] for row in chosen.rows)
            ids = (example.id for example in examples)
            labels |= dict(zip(ids, chosen.labels.tolist(), strict=True))
        parts.append(examples)
    train, choose, test = parts
    return ProbePlan(
        classes,
        train,
        choose if choose_name else None,
        test,
        labels,
        {
            "split": name,
            "train_split": train_name,
            "chosen_on": choose_name or HELD_OUT_OF_TRAIN,
        },
    )


def _without_splits(evalset: EvalSet, seed: int) -> ProbePlan:
    chosen = labelled(evalset, evalset.examples)
    train, test = hold_out(chosen.labels, seed)
    if not test.size:
        raise DatasetError(f"{evalset.name}: expected a class with two images, found none")
    examples = [evalset.examples[row] for row in chosen.rows]
    return ProbePlan(
        chosen.classes,
        tuple(examples[row] for row in train),
        None,
        tuple(examples[row] for row in test),
        {e.id: int(label) for e, label in zip(examples, chosen.labels, strict=True)},
        {
            "split": f"{HELD_OUT:.0%} of each class",
            "train_split": "the rest",
            "chosen_on": HELD_OUT_OF_TRAIN,
        },
    )


def report(
    plan: ProbePlan,
    vectors: Mapping[str, np.ndarray],
    bootstrap: Bootstrap,
    progress: Progress = lambda done: None,
) -> ProbeScores:
    """Fits both probes and scores them, metrics as fractions.

    Args:
        plan: the images; those without a vector are left out.
        vectors: float32 (dim,), unit vectors by image id.
        bootstrap: settings of the intervals; its seed also selects the held-out images.
        progress: called `STEPS` times with 1.

    Raises:
        DatasetError: there are no validation images, or fewer than two classes to fit.
    """
    train, test = (_features(plan, part, vectors) for part in (plan.train, plan.test))
    if plan.choose is not None:
        fit, choose = train, _features(plan, plan.choose, vectors)
    else:
        kept, held_out = hold_out(train.labels, bootstrap.seed)
        fit, choose = train[kept], train[held_out]
    fitted_classes = len(np.unique(fit.labels))
    if fitted_classes < 2 or not len(choose.labels):
        raise DatasetError(
            f"expected images of at least two classes to fit ({plan.names['train_split']}) and "
            f"some to choose on ({plan.names['chosen_on']}), found {fitted_classes} and "
            f"{len(choose.labels)}"
        )
    classes, n = len(plan.classes), len(test.labels)
    probe = linear(fit, choose, train, test.vectors, classes, progress)
    knn = neighbours(fit, choose, train, test.vectors, classes)
    linear_ranks = class_ranks(probe.scores, test.labels)
    hits = {
        "linear_top1": linear_ranks <= 1,
        "linear_top5": linear_ranks <= 5,
        "knn_top1": class_ranks(knn.scores, test.labels) <= 1,
    }

    def metrics(drawn: np.ndarray) -> Mapping[str, np.ndarray]:
        return {name: drawn @ hit / drawn.sum(axis=1) for name, hit in hits.items()}

    return {
        "split": plan.names["split"],
        "train_split": plan.names["train_split"],
        "chosen_on": plan.names["chosen_on"],
        "n": n,
        "n_train": len(train.labels),
        "n_chosen_on": len(choose.labels),
        "classes": classes,
        "metrics": point(metrics, n),
        "intervals": intervals(metrics, n, bootstrap),
        "bootstrap": bootstrap.as_json(),
        "largest_class": float(np.bincount(test.labels).max() / n),
        "linear": _as_json(probe, "c"),
        "knn": _as_json(knn, "k"),
        "notes": _notes(plan, train, test, probe),
    }


def _features(
    plan: ProbePlan, examples: tuple[Example, ...], vectors: Mapping[str, np.ndarray]
) -> Features:
    ids = [example.id for example in examples if example.id in vectors]
    if not ids:
        raise DatasetError(
            "expected training, validation and test images, found none for one of them"
        )
    labels = np.array([plan.labels[id_] for id_ in ids])
    return Features(np.stack([vectors[id_] for id_ in ids]), labels)


def _as_json(fitted: Fitted, name: Literal["c", "k"]) -> FittedProbe:
    probe: FittedProbe = {
        "tried": [{name: tried.setting, "top1": tried.top1} for tried in fitted.tried],
        "converged": fitted.converged,
    }
    probe[name] = fitted.setting
    return probe


def _notes(plan: ProbePlan, train: Features, test: Features, probe: Fitted) -> list[str]:
    notes = []
    unfitted = np.setdiff1d(test.labels, train.labels)
    if unfitted.size:
        names = ", ".join(plan.classes[label] for label in unfitted)
        notes.append(f"classes without training images, which are never predicted: {names}")
    if not probe.converged:
        notes.append("the linear probe did not converge; its accuracy may be too low")
    return notes
