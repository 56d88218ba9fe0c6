"""The probes: training, validation and test images, and scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsicd_embed.datasets.base import Example
from rsicd_embed.errors import BenchError, DatasetError
from rsicd_embed.evaluation import probe, probe_protocol
from rsicd_embed.evaluation.dataset import EvalSet, open_set
from rsicd_embed.evaluation.metrics import Bootstrap
from rsicd_embed.evaluation.probe import Features, hold_out, knn_votes, linear, neighbours
from tests.evaldata import captioned, class_folder

pytest.importorskip("sklearn")


def clusters(n: int, classes: int, noise: float, seed: int = 0, dim: int = 8) -> Features:
    """Unit vectors around one direction per class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    vectors = np.eye(dim)[labels] + rng.normal(0, noise, (n, dim))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Features(unit.astype(np.float32), labels)


def accuracy(scores: np.ndarray, test: Features) -> float:
    return float(np.mean(scores.argmax(axis=1) == test.labels))


def test_separable_classes_are_solved() -> None:
    train, test = clusters(90, 4, 0.1), clusters(40, 4, 0.1, seed=1)
    done: list[int] = []
    fitted = linear(train, test, train, test.vectors, 4, done.append)
    assert accuracy(fitted.scores, test) == 1
    assert fitted.converged
    assert sum(done) == probe_protocol.STEPS
    assert accuracy(neighbours(train, test, train, test.vectors, 4).scores, test) == 1


def test_random_labels_give_chance_accuracy() -> None:
    rng = np.random.default_rng(0)
    train, test = (
        Features(clusters(300, 4, 9, s).vectors, rng.integers(0, 4, 300)) for s in (1, 2)
    )
    assert accuracy(linear(train, test, train, test.vectors, 4).scores, test) < 0.4


def test_the_best_setting_is_kept_the_strongest_of_equals() -> None:
    train, choose = clusters(200, 5, 0.6), clusters(100, 5, 0.6, seed=1)
    fitted = linear(train, choose, train, choose.vectors, 5)
    assert [candidate.setting for candidate in fitted.tried] == list(probe.CS)
    best = max(candidate.top1 for candidate in fitted.tried)
    assert fitted.setting == min(
        candidate.setting for candidate in fitted.tried if candidate.top1 == best
    )
    assert accuracy(fitted.scores, choose) == best
    easy = clusters(60, 3, 0.01)
    assert neighbours(easy, easy, easy, easy.vectors, 3).setting == 1


def test_two_classes_and_a_class_that_was_not_fitted() -> None:
    train, test = clusters(60, 2, 0.1), clusters(60, 3, 0.1, seed=1)
    for fitted in (
        linear(train, train, train, test.vectors, 3),
        neighbours(train, train, train, test.vectors, 3),
    ):
        right = fitted.scores.argmax(axis=1) == test.labels
        assert right[test.labels < 2].all()
        assert not right[test.labels == 2].any()


def test_neighbours_agree_with_sklearn() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    train, test = clusters(300, 4, 0.7), clusters(100, 4, 0.7, seed=1)
    votes = knn_votes(train, test.vectors, 4, (1, 7))
    for k in (1, 7):
        reference = KNeighborsClassifier(k, metric="cosine", weights=lambda d: 2.0 - d)
        theirs = reference.fit(train.vectors, train.labels).predict(test.vectors)
        np.testing.assert_array_equal(votes[k].argmax(axis=1), theirs)


def test_votes_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = clusters(50, 3, 0.7), clusters(23, 3, 0.7, seed=1)
    whole = knn_votes(train, test.vectors, 3, (5,))[5]
    monkeypatch.setattr(probe, "_BLOCK", 4)
    np.testing.assert_allclose(knn_votes(train, test.vectors, 3, (5,))[5], whole, rtol=1e-6)


def test_hold_out_takes_the_same_share_of_every_class() -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 10, 2, 1])
    kept, held_out = hold_out(labels, seed=0)
    assert np.bincount(labels[held_out], minlength=4).tolist() == [20, 2, 1, 0]
    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    assert held_out.tolist() == hold_out(labels, seed=0)[1].tolist()
    assert held_out.tolist() != hold_out(labels, seed=1)[1].tolist()


def names_of(path: Path, split: str | None = None, train: str = "train") -> Any:
    return dict(probe_protocol.plan(open_set(path), split, train, seed=0).names)


def test_validation_images(tmp_path: Path) -> None:
    three = captioned(tmp_path / "three", splits=("train", "val", "test"))
    assert names_of(three) == {"split": "test", "train_split": "train", "chosen_on": "val"}
    # Test images are never used for validation.
    assert names_of(three, "val")["chosen_on"] == probe_protocol.HELD_OUT_OF_TRAIN
    two = class_folder(tmp_path / "two", splits=("train", "test"))
    assert names_of(two)["chosen_on"] == probe_protocol.HELD_OUT_OF_TRAIN
    none = class_folder(tmp_path / "none", images=5)
    plan = probe_protocol.plan(open_set(none), None, "train", seed=0)
    assert (len(plan.train), len(plan.test)) == (12, 3)
    assert not {e.id for e in plan.train} & {e.id for e in plan.test}
    for split, train in (("train", "train"), ("all", "train"), ("test", "all")):
        with pytest.raises(BenchError, match="expected"):
            names_of(three, split, train)
    with pytest.raises(DatasetError, match="expected a split 'train', found"):
        names_of(captioned(tmp_path / "odd", splits=("a", "b")), "a")


def test_report() -> None:
    train, val, test = (clusters(60, 3, 0.2, seed) for seed in (0, 1, 2))
    parts = {"train": train, "val": val, "test": test}
    examples, vectors = [], {}
    for split, part in parts.items():
        for i, (vector, label) in enumerate(zip(part.vectors, part.labels, strict=True)):
            examples.append(Example(f"{split}{i}", "x", {"split": split, "label": f"c{label}"}))
            vectors[f"{split}{i}"] = vector
    del vectors["test0"]  # unreadable
    plan = probe_protocol.plan(EvalSet("toy", tuple(examples), False), None, "train", 0)
    scored = probe_protocol.report(plan, vectors, Bootstrap())
    assert (scored["n"], scored["n_train"], scored["n_chosen_on"]) == (59, 60, 60)
    assert set(scored["metrics"]) == {"linear_top1", "linear_top5", "knn_top1"}
    assert scored["metrics"]["linear_top1"] > 0.9
    assert scored["metrics"]["linear_top5"] == 1
    for name, (low, high) in scored["intervals"].items():
        assert low <= scored["metrics"][name] <= high
    assert scored["linear"]["c"] in probe.CS
    assert scored["notes"] == []
    for name in [id_ for id_ in vectors if id_.startswith("test")]:
        del vectors[name]
    with pytest.raises(DatasetError, match="found none for one of them"):
        probe_protocol.report(plan, vectors, Bootstrap())


def test_a_single_image_of_a_class_cannot_be_held_out(tmp_path: Path) -> None:
    opened = open_set(class_folder(tmp_path / "few", images=1, splits=("train", "test")))
    plan = probe_protocol.plan(opened, None, "train", 0)
    vectors = {e.id: np.eye(3, dtype=np.float32)[plan.labels[e.id]] for e in plan.examples}
    with pytest.raises(DatasetError, match="found 3 and 0"):
        probe_protocol.report(plan, vectors, Bootstrap())
    with pytest.raises(DatasetError, match="expected a class with two images"):
        names_of(class_folder(tmp_path / "one", images=1))


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(BenchError, match=r"pip install 'rsicd-embed\[eval\]'"):
        probe.require_sklearn()
