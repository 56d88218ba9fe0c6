"""Whole runs of a tiny model: it learns, it resumes, and it says what is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from rsicd_embed.bench.evaluate import Evaluator
from rsicd_embed.closing import Closing
from rsicd_embed.datasets import captioned
from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.errors import DatasetError, TrainError
from rsicd_embed.train.config import (
    ModelConfig,
    OptimizerConfig,
    StepConfig,
    TrainConfig,
    parse,
)
from rsicd_embed.train.loop import train
from rsicd_embed.train.sources import TrainingData

CONFIG = TrainConfig(
    ModelConfig(shape="tiny"),
    optimizer=OptimizerConfig(learning_rate=3e-3),
    step=StepConfig(keep_patches=0.5, unmasked=0.25),
    epochs=4,
    batch_size=12,
    eval_every=2,
)


@pytest.fixture(scope="module")
def source(captioned_folder: Path) -> Any:
    return captioned.load(captioned_folder)


def test_it_learns_and_what_it_exports_is_what_it_measured(source: Any, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=16, eval_every=8)
    evaluate = Evaluator(source.split("val"))
    rows: list[dict[str, Any]] = []
    best = train(config, training(source), tmp_path, evaluate, [Watch(rows.append)])
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3
    assert best["zeroshot_top1"] > 0.6  # chance is a third
    exported = load_embedder(tmp_path / "best")  # float16
    assert evaluate(exported)["zeroshot_top1"] == pytest.approx(best["zeroshot_top1"], abs=0.1)
    written = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == rows


class Watch(Closing):
    """An observer that hands on the rows of epochs, and of steps if asked."""

    def __init__(self, on_epoch: Any = lambda row: None, on_steps: Any = lambda rows: None) -> None:
        self.on_epoch, self.on_steps = on_epoch, on_steps
        self.started: tuple[int, int] | None = None

    def on_start(self, done: int, steps: int) -> None:
        self.started = done, steps


def training(source: Any) -> TrainingData:
    train = source.split("train")
    return TrainingData(train, (1.0,) * len(train), source.split("val"))


class StopHereError(Exception):
    """An interruption."""


def test_a_stopped_run_goes_on_as_if_it_had_not_been(source: Any, tmp_path: Path) -> None:
    def stop_after_two(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise StopHereError

    evaluate, examples = Evaluator(source.split("val")), training(source)
    rows: dict[str, list[dict[str, Any]]] = {"whole": [], "stopped": []}
    train(CONFIG, examples, tmp_path / "whole", evaluate, [Watch(rows["whole"].append)])
    with pytest.raises(StopHereError):
        train(CONFIG, examples, tmp_path / "stopped", evaluate, [Watch(stop_after_two)])
    train(CONFIG, examples, tmp_path / "stopped", evaluate, [Watch(rows["stopped"].append)])
    assert [row["epoch"] for row in rows["stopped"]] == [3, 4]
    for one, other in zip(rows["whole"][2:], rows["stopped"], strict=True):
        assert one["loss"] == other["loss"]
    whole, stopped = (tmp_path / name / "best" for name in ("whole", "stopped"))
    for path in whole.iterdir():
        assert path.read_bytes() == (stopped / path.name).read_bytes(), path.name


def test_a_folder_of_another_run_is_refused(source: Any, tmp_path: Path) -> None:
    evaluate, examples = Evaluator(source.split("val")), training(source)
    once = dataclasses.replace(CONFIG, epochs=1)
    fewer = dataclasses.replace(examples, train=examples.train[1:], weights=examples.weights[1:])
    train(once, examples, tmp_path, evaluate)
    with pytest.raises(TrainError, match="holds a run with other settings"):
        train(CONFIG, examples, tmp_path, evaluate)
    with pytest.raises(TrainError, match="holds a run with other data"):
        train(once, fewer, tmp_path, evaluate)
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(TrainError, match="another process is training"),
    ):
        train(once, examples, tmp_path, evaluate)
    (tmp_path / "best").rename(tmp_path / "best.old")  # as if stopped between two renames
    log = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(TrainError, match="expected rows of 1 epochs, found 0"):
        train(once, examples, tmp_path, evaluate)
    (tmp_path / "metrics.jsonl").write_text(log)
    assert train(once, examples, tmp_path, evaluate) == json.loads(log)
    assert (tmp_path / "best" / "model.safetensors").exists()


def test_a_batch_larger_than_the_data(source: Any, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, batch_size=1000)
    with pytest.raises(TrainError, match="at most the 24 images"):
        train(config, training(source), tmp_path, Evaluator(source.split("val")))


def test_a_loss_that_is_not_finite_stops_the_run(source: Any, tmp_path: Path) -> None:
    config = parse.replaced(CONFIG, {"optimizer.learning_rate": 1e30})
    with pytest.raises(TrainError, match="not finite at step"):
        train(config, training(source), tmp_path, Evaluator(source.split("val")))


def test_val_without_classes_is_still_evaluated(
    source: Any, tmp_path: Path, tiny_model: Path
) -> None:
    unnamed = [
        Example(f"{i}", e.file, {"captions": e.captions}) for i, e in enumerate(source.split("val"))
    ]
    metrics = Evaluator(unnamed)(load_embedder(tiny_model))
    assert "mr" in metrics
    assert "zeroshot_top1" not in metrics


def test_val_that_cannot_be_evaluated_is_told_before_training(
    source: Any, tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(DatasetError, match="found none"):
        Evaluator([])
    path = source.examples[0].path
    with pytest.raises(DatasetError, match="expected a caption"):
        Evaluator([Example("mute", str(path))])
    broken = tmp_path / "broken.png"
    broken.write_text("rubbish")
    with pytest.raises(DatasetError, match=r"broken\.png: not a picture"):
        Evaluator([Example("broken", str(broken), {"captions": ["a"]})])(load_embedder(tiny_model))
