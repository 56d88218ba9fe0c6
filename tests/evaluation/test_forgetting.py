"""Two models on the same images: differences, and paired intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsicd_embed.datasets.base import Example
from rsicd_embed.datasets.classes import PROMPT
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation.dataset import EvalSet, open_set
from rsicd_embed.evaluation.embedding import embed_examples, embed_texts
from rsicd_embed.evaluation.forgetting import ModelRanks, Tasks, model_ranks, report, tasks
from rsicd_embed.evaluation.metrics import Bootstrap
from tests.evaldata import Colours, captioned, class_folder


def ranks_of(supported: Tasks, embedder: Colours) -> ModelRanks:
    images = embed_examples(embedder, supported.examples).vectors
    texts = embed_texts(embedder, supported.captioned[1].distinct) if supported.captioned else None
    return model_ranks(supported, embedder, images, texts, [PROMPT])


def test_a_model_that_forgot_a_class(tmp_path: Path) -> None:
    supported = tasks(open_set(captioned(tmp_path, images=4)), None)
    assert (supported.split, len(supported.examples), supported.left_out) == ("test", 12, ())
    whole, forgetful = (ranks_of(supported, Colours(blind)) for blind in ((), ("sea",)))
    changes = report(supported, forgetful, whole, Bootstrap())
    top1 = changes["zeroshot_top1"]
    assert (top1["baseline"], top1["model"]) == (1, pytest.approx(2 / 3))
    assert top1["difference"] == pytest.approx(-1 / 3)
    assert top1["interval"][0] < -1 / 3 < top1["interval"][1] < 0
    assert changes["mr"]["difference"] < 0
    back = report(supported, whole, forgetful, Bootstrap())
    assert back["zeroshot_top1"]["difference"] == pytest.approx(1 / 3)


def test_the_same_model_differs_nowhere(tmp_path: Path) -> None:
    supported = tasks(open_set(captioned(tmp_path)), None)
    same = ranks_of(supported, Colours())
    for change in report(supported, same, same, Bootstrap()).values():
        assert (change["difference"], change["interval"]) == (0, (0, 0))


def test_paired_intervals_are_narrow() -> None:
    """Two models with nearly the same errors have a small but certain difference."""
    rng = np.random.default_rng(0)
    baseline = np.where(rng.random(1000) < 0.5, 1, 2)
    model = baseline.copy()
    model[:30] = 2
    supported = Tasks("test", (), None, None)
    changes = report(supported, ModelRanks(model, None), ModelRanks(baseline, None), Bootstrap())
    low, high = changes["zeroshot_top1"]["interval"]
    assert low < changes["zeroshot_top1"]["difference"] < high < 0
    assert high - low < 0.02  # 0.09 if unpaired


def test_each_dataset_is_evaluated_as_far_as_possible(tmp_path: Path) -> None:
    folders = tasks(open_set(class_folder(tmp_path, images=2)), None)
    changes = report(folders, *[ranks_of(folders, Colours())] * 2, Bootstrap())
    assert set(changes) == {f"zeroshot_top{k}" for k in (1, 3, 5, 10)}
    assert "expected captions" in folders.left_out[0]
    unlabelled = [Example(f"{i}", str(tmp_path), {"captions": [f"{i}"]}) for i in range(3)]
    words = tasks(EvalSet("words", tuple(unlabelled), False), None)
    assert words.labelled is None
    assert "no labels" in words.left_out[0]
    with pytest.raises(DatasetError, match=r"found no labels.*expected captions, found none"):
        tasks(EvalSet("nothing", (Example("a", str(tmp_path)),), False), None)
