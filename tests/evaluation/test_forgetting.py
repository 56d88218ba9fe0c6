"""Two models on the same images: differences, and intervals that know they are paired."""

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


def answers(asked: Tasks, embedder: Colours) -> ModelRanks:
    images = embed_examples(embedder, asked.examples).vectors
    texts = embed_texts(embedder, asked.captioned[1].distinct) if asked.captioned else None
    return model_ranks(asked, embedder, images, texts, [PROMPT])


def test_a_model_that_forgot_a_class(tmp_path: Path) -> None:
    asked = tasks(open_set(captioned(tmp_path, images=4)), None)
    assert (asked.split, len(asked.examples), asked.left_out) == ("test", 12, ())
    whole, forgetful = (answers(asked, Colours(blind)) for blind in ((), ("sea",)))
    told = report(asked, forgetful, whole, Bootstrap())
    top1 = told["zeroshot_top1"]
    assert (top1["baseline"], top1["model"]) == (1, pytest.approx(2 / 3))
    assert top1["difference"] == pytest.approx(-1 / 3)
    assert top1["interval"][0] < -1 / 3 < top1["interval"][1] < 0
    assert told["mr"]["difference"] < 0
    back = report(asked, whole, forgetful, Bootstrap())
    assert back["zeroshot_top1"]["difference"] == pytest.approx(1 / 3)


def test_the_same_model_differs_nowhere(tmp_path: Path) -> None:
    asked = tasks(open_set(captioned(tmp_path)), None)
    same = answers(asked, Colours())
    for one in report(asked, same, same, Bootstrap()).values():
        assert (one["difference"], one["interval"]) == (0, (0, 0))


def test_pairs_make_the_interval_narrow() -> None:
    """Two models that err on nearly the same images differ by a little, surely."""
    rng = np.random.default_rng(0)
    baseline = np.where(rng.random(1000) < 0.5, 1, 2)
    model = baseline.copy()
    model[:30] = 2
    asked = Tasks("test", (), None, None)
    told = report(asked, ModelRanks(model, None), ModelRanks(baseline, None), Bootstrap())
    low, high = told["zeroshot_top1"]["interval"]
    assert low < told["zeroshot_top1"]["difference"] < high < 0
    assert high - low < 0.02  # unpaired it would be 0.09


def test_each_set_is_asked_what_it_can_be(tmp_path: Path) -> None:
    folders = tasks(open_set(class_folder(tmp_path, images=2)), None)
    told = report(folders, *[answers(folders, Colours())] * 2, Bootstrap())
    assert set(told) == {f"zeroshot_top{k}" for k in (1, 3, 5, 10)}
    assert "expected captions" in folders.left_out[0]
    mute = [Example(f"{i}", str(tmp_path), {"captions": [f"{i}"]}) for i in range(3)]
    words = tasks(EvalSet("words", tuple(mute), False), None)
    assert words.labelled is None
    assert "no labels" in words.left_out[0]
    with pytest.raises(DatasetError, match=r"found no labels.*expected captions, found none"):
        tasks(EvalSet("nothing", (Example("a", str(tmp_path)),), False), None)
