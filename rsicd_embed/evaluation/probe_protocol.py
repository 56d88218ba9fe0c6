"""The probes of one model on one data set: which images are fitted, chosen on and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import BenchError, DatasetError
from rsicd_embed.evaluation import probe
from rsicd_embed.evaluation.bootstrap import Bootstrap, intervals, point
from rsicd_embed.evaluation.dataset import ALL, EvalSet, labelled
from rsicd_embed.evaluation.metrics import class_ranks
from rsicd_embed.evaluation.probe import Features, Fitted, hold_out

HELD_OUT = f"{probe.HELD_OUT:.0%} of each class of the images to fit"
STEPS = len(probe.CS) + 1  # fits that are told to `progress`

_VALIDATION = ("val", "valid", "validation", "dev")


@dataclass(frozen=True)
class ProbePlan:
    """Which images are what.

    Attributes:
        classes: as the data set writes them.
        train, choose, test: labelled images; `choose` is None where it is held out of `train`.
        labels: int, place in `classes` of each image by id.
        names: of the three, for a record.
    """

    classes: tuple[str, ...]
    train: tuple[Example, ...]
    choose: tuple[Example, ...] | None
    test: tuple[Example, ...]
    labels: Mapping[str, int]
    names: Mapping[str, str]

    @property
    def examples(self) -> tuple[Example, ...]:
        """All of them, each once."""
        return (*self.train, *(self.choose or ()), *self.test)


def plan(evalset: EvalSet, split: str | None, train_split: str, seed: int) -> ProbePlan:
    """Fits on `train_split`, scores `split`, and chooses on val where that is neither.

    Where the data set has no splits, a part of each class is held out to be scored.

    Raises:
        DatasetError: no such splits, or no labels.
        BenchError: the splits are one.
    """
    name, test = evalset.split(split)
    if name == ALL:
        if split == ALL or any(example.split for example in evalset.examples):
            raise BenchError("expected a split to score that is not fitted, found all images")
        return _without_splits(evalset, seed)
    fitted_name, train = evalset.split(train_split)
    if fitted_name in (name, ALL):
        raise BenchError(
            f"expected another split to fit than the one to score, found {fitted_name!r} for "
            f"{name!r}; give --train-split and --split"
        )
    found = {example.split for example in evalset.examples}
    choose_name = next((v for v in _VALIDATION if v in found and v not in (name, fitted_name)), "")
    choose = evalset.split(choose_name)[1] if choose_name else None
    parts = {"train_split": train, "chosen_on": choose, "split": test}
    labels: dict[str, int] = {}
    kept: dict[str, tuple[Example, ...] | None] = {}
    classes: tuple[str, ...] = ()
    for part, examples in parts.items():
        if examples is None:
            kept[part] = None
            continue
        one = labelled(evalset, examples)
        classes = one.classes
        kept[part] = tuple(examples[row] for row in one.rows)
        labels |= dict(zip((e.id for e in kept[part] or ()), one.labels.tolist(), strict=True))
    names = {"split": name, "train_split": fitted_name, "chosen_on": choose_name or HELD_OUT}
    return ProbePlan(
        classes, kept["train_split"] or (), kept["chosen_on"], kept["split"] or (), labels, names
    )


def _without_splits(evalset: EvalSet, seed: int) -> ProbePlan:
    one = labelled(evalset, evalset.examples)
    train, test = hold_out(one.labels, seed)
    if not test.size:
        raise DatasetError(f"{evalset.name}: expected a class with two images, found none")
    examples = [evalset.examples[row] for row in one.rows]
    names = {
        "split": f"{probe.HELD_OUT:.0%} of each class",
        "train_split": "the rest",
        "chosen_on": HELD_OUT,
    }
    return ProbePlan(
        one.classes,
        tuple(examples[row] for row in train),
        None,
        tuple(examples[row] for row in test),
        {e.id: int(label) for e, label in zip(examples, one.labels, strict=True)},
        names,
    )


def report(
    plan: ProbePlan,
    vectors: Mapping[str, np.ndarray],
    bootstrap: Bootstrap,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """What a record says of one model on one data set, metrics as fractions.

    Args:
        plan: which images are what; an image without a vector is left out.
        vectors: float32 (dim,), unit, by id.
        bootstrap: how intervals are drawn; its seed also draws what is held out.
        progress: called `STEPS` times with 1.

    Raises:
        DatasetError: there is nothing to choose on, or not two classes to fit.
    """
    train, test = (_features(plan, part, vectors) for part in (plan.train, plan.test))
    fit, choose = train, train
    if plan.choose is not None:
        choose = _features(plan, plan.choose, vectors)
    else:
        kept, held = hold_out(train.labels, bootstrap.seed)
        fit, choose = train[kept], train[held]
    found = len(np.unique(fit.labels))
    if found < 2 or not len(choose.labels):
        raise DatasetError(
            f"expected images of at least two classes to fit ({plan.names['train_split']}) and "
            f"some to choose on ({plan.names['chosen_on']}), found {found} and "
            f"{len(choose.labels)}"
        )
    classes = len(plan.classes)
    linear = probe.linear(fit, choose, train, test.vectors, classes, progress)
    knn = probe.neighbours(fit, choose, train, test.vectors, classes)
    ranks = {"linear": class_ranks(linear.scores, test.labels)}
    ranks["knn"] = class_ranks(knn.scores, test.labels)
    hits = {
        "linear_top1": ranks["linear"] <= 1,
        "linear_top5": ranks["linear"] <= 5,
        "knn_top1": ranks["knn"] <= 1,
    }

    def metrics(drawn: np.ndarray) -> Mapping[str, np.ndarray]:
        return {name: drawn @ hit / drawn.sum(axis=1) for name, hit in hits.items()}

    n = len(test.labels)
    return {
        **plan.names,
        "n": n,
        "n_train": len(train.labels),
        "n_chosen_on": len(choose.labels),
        "classes": classes,
        "metrics": point(metrics, n),
        "intervals": intervals(metrics, n, bootstrap),
        "bootstrap": bootstrap.as_json(),
        "largest_class": float(np.bincount(test.labels).max() / n),
        "linear": _as_json(linear, "c"),
        "knn": _as_json(knn, "k"),
        "notes": _notes(plan, train, test, linear),
    }


def _features(
    plan: ProbePlan, examples: tuple[Example, ...], vectors: Mapping[str, np.ndarray]
) -> Features:
    ids = [example.id for example in examples if example.id in vectors]
    if not ids:
        raise DatasetError("expected images to fit, choose on and score, found none in one of them")
    return Features(
        np.stack([vectors[one] for one in ids]), np.array([plan.labels[i] for i in ids])
    )


def _as_json(fitted: Fitted, name: str) -> dict[str, Any]:
    tried = [{name: one.setting, "top1": one.top1} for one in fitted.tried]
    return {name: fitted.setting, "tried": tried, "converged": fitted.converged}


def _notes(plan: ProbePlan, train: Features, test: Features, linear: Fitted) -> list[str]:
    notes = []
    new = np.setdiff1d(test.labels, train.labels)
    if new.size:
        names = ", ".join(plan.classes[one] for one in new)
        notes.append(f"classes that were not fitted, and cannot be right: {names}")
    if not linear.converged:
        notes.append("the linear probe did not converge; its figure may be low")
    return notes
