"""Whole runs of a tiny model: learning, resuming, and errors."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from filelock import FileLock

from rsicd_embed.datasets import captioned
from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder import training_words
from rsicd_embed.embedder.loading import load_clip, load_embedder
from rsicd_embed.errors import DatasetError, RsicdEmbedError, TrainError
from rsicd_embed.evaluation.evaluator import Evaluator
from rsicd_embed.train.checkpoint import has_checkpoints
from rsicd_embed.train.config import (
    ModelConfig,
    OptimizerConfig,
    StepConfig,
    TrainConfig,
    parse,
)
from rsicd_embed.train.input.training_data import TrainingData
from rsicd_embed.train.journal import Journal, StepLog
from rsicd_embed.train.loop import train
from rsicd_embed.train.observers import Observer
from rsicd_embed.train.run_folder import open_run

# The first epochs of a tiny model may be worse than chance on a dozen images.
pytestmark = pytest.mark.filterwarnings(
    "ignore:epoch .* is worse on val", "ignore:no epoch is as good on val"
)

CONFIG = TrainConfig(
    ModelConfig(shape="tiny"),
    optimizer=OptimizerConfig(learning_rate=3e-3),
    step=StepConfig(keep_patches=0.5, unmasked=0.25),
    epochs=4,
    batch_size=12,
    eval_every=2,
)
# Without random views, which take long to compile.
ONCE = parse.replaced(CONFIG, {"epochs": 1, "augment.engine": "none"})


@pytest.fixture(scope="module")
def source(captioned_folder: Path) -> Any:
    return captioned.load(captioned_folder)


def test_a_run_learns_and_exports_the_model_it_measured(source: Any, tmp_path: Path) -> None:
    config = parse.replaced(ONCE, {"epochs": 16, "eval_every": 8})
    evaluate = Evaluator(source.split("val"))
    rows: list[dict[str, Any]] = []
    best = train(config, training(source), tmp_path, evaluate, [Watch(rows.append)])
    assert rows[-1]["loss"] < rows[1]["loss"] - 0.3
    assert best["zeroshot_top1"] > 0.6  # chance is a third
    assert {"epoch": 0, "step": 0}.items() <= rows[0].items()  # before training
    assert "loss" not in rows[0]
    assert rows[0].keys() >= {"zeroshot_top1", "mr"}
    exported = load_embedder(tmp_path / "best")  # float16
    assert evaluate(exported)["zeroshot_top1"] == pytest.approx(best["zeroshot_top1"], abs=0.1)
    written = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == rows


class Watch(Observer):
    """Passes on the rows of epochs and, on request, of steps; records everything else."""

    def __init__(self, on_epoch: Any = lambda row: None, on_steps: Any = lambda rows: None) -> None:
        self.on_epoch, self.on_steps = on_epoch, on_steps  # type: ignore[method-assign]
        self.started: tuple[int, int] | None = None
        self.images = 0
        self.lines: list[str] = []

    def on_image(self, count: int) -> None:
        self.images += count

    def on_start(self, done: int, steps: int) -> None:
        self.started = done, steps

    def on_message(self, line: str) -> None:
        self.lines.append(line)


def training(source: Any) -> TrainingData:
    train = source.split("train")
    return TrainingData(train, (1.0,) * len(train), source.split("val"))


class StopHereError(Exception):
    """An interruption."""


@pytest.mark.slow
def test_a_resumed_run_is_exact(source: Any, tmp_path: Path) -> None:
    def stop_after_two(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise StopHereError

    evaluate, examples = Evaluator(source.split("val")), training(source)
    rows: dict[str, list[dict[str, Any]]] = {"whole": [], "stopped": []}
    config = parse.replaced(CONFIG, {"augment.engine": "none"})
    train(config, examples, tmp_path / "whole", evaluate, [Watch(rows["whole"].append)])
    with pytest.raises(StopHereError):
        train(config, examples, tmp_path / "stopped", evaluate, [Watch(stop_after_two)])
    train(config, examples, tmp_path / "stopped", evaluate, [Watch(rows["stopped"].append)])
    assert [row["epoch"] for row in rows["stopped"]] == [3, 4]
    for row, other in zip(rows["whole"][3:], rows["stopped"], strict=True):
        assert row["loss"] == other["loss"]
    whole, stopped = (tmp_path / name / "best" for name in ("whole", "stopped"))
    for path in whole.iterdir():
        assert path.read_bytes() == (stopped / path.name).read_bytes(), path.name


@pytest.fixture(scope="module")
def once(source: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "once"
    train(ONCE, training(source), folder, Evaluator(source.split("val")))
    return folder


@pytest.fixture
def finished(once: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of one epoch."""
    return Path(shutil.copytree(once, tmp_path / "run"))


def test_a_model_lists_its_training_words(
    source: Any, once: Path, tiny_model: Path, tmp_path: Path
) -> None:
    known = training_words.read(once / "best")
    assert known is not None
    templates = {"aerial", "an", "image", "of", "photograph", "satellite", "view"}
    everywhere = dict.fromkeys({"a", "is", "number", "there"} | templates, 24)
    assert known.images == everywhere | {"desert": 8, "forest": 8, "sea": 8}
    words = load_clip(once / "best").unfamiliar_words(["a marina"])
    assert [word.word for word in words] == ["marina"]
    start = shutil.copytree(tiny_model, tmp_path / "start")
    config = dataclasses.replace(ONCE, model=ModelConfig(str(start), shape="tiny"))
    with open_run(config, training(source), tmp_path / "unknown") as run:
        # The checkpoint may have been trained on other words before.
        assert run.words is None
    training_words.TrainingWords({"river": 3, "sea": 20}).write(start)
    with open_run(config, training(source), tmp_path / "known") as run:
        assert run.words is not None
        assert run.words.images == known.images | {"river": 3, "sea": 20}


def test_the_folder_of_another_run_is_refused(source: Any, finished: Path) -> None:
    evaluate, examples = Evaluator(source.split("val")), training(source)
    fewer = dataclasses.replace(examples, train=examples.train[1:], weights=examples.weights[1:])
    with pytest.raises(TrainError, match=r"with other settings \(epochs=1, not 4\)"):
        train(dataclasses.replace(ONCE, epochs=4), examples, finished, evaluate)
    with pytest.raises(TrainError, match="contains a run with other data"):
        train(ONCE, fewer, finished, evaluate)
    with (
        FileLock(finished / ".lock"),
        pytest.raises(TrainError, match="another process is training"),
    ):
        train(ONCE, examples, finished, evaluate)
    (finished / "best").rename(finished / "best.old")  # as if stopped between two renames
    log = (finished / "metrics.jsonl").read_text()
    (finished / "metrics.jsonl").unlink()
    with pytest.raises(TrainError, match="expected rows of 1 epochs, found 0"):
        train(ONCE, examples, finished, evaluate)
    (finished / "metrics.jsonl").write_text(log)
    (finished / "metrics.jsonl").write_text(log.splitlines(keepends=True)[1])
    # Earlier versions wrote no epoch 0.
    assert train(ONCE, examples, finished, evaluate) == json.loads(log.splitlines()[1])
    assert (finished / "best" / "model.safetensors").exists()


def test_errors_are_reported_before_images_are_read(source: Any, tmp_path: Path) -> None:
    evaluate, examples = Evaluator(source.split("val")), training(source)
    watch = Watch()

    def begin(**changes: Any) -> None:
        config = parse.replaced(ONCE, changes)
        train(config, examples, tmp_path, evaluate, [watch], load_embedder)

    for settings, complaint in (
        ({"batch_size": 1000}, "at most the 24 images"),
        ({"batch_size": 1}, "at least 2 images, found 1: .* softmax loss has nothing to learn"),
        ({"batch_size": 1, "step.loss": "sigmoid"}, "found 1: .* sigmoid loss only pulls all"),
        ({"step.chunk": 5}, r"expected step\.chunk to divide the 12 images"),
        ({"step.freeze": ["image:9"]}, "expected at most 2 blocks"),
        ({"teacher.model": "absent"}, "no such directory"),
    ):
        with pytest.raises(RsicdEmbedError, match=complaint):
            begin(**settings)
    assert not watch.images
    begin()  # a run without checkpoints does not block another one
    assert watch.images == 24


def test_parameters_that_are_not_finite_stop_the_run(source: Any, tmp_path: Path) -> None:
    config = parse.replaced(ONCE, {"optimizer.learning_rate": 1e30})
    with pytest.raises(TrainError, match=r"a parameter is not finite.* at step 2"):
        train(config, training(source), tmp_path, Evaluator(source.split("val")))
    # Although no metric of the last step shows it.
    assert not has_checkpoints(tmp_path / "checkpoints")
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_metrics_that_are_not_finite_stop_the_run(tmp_path: Path, name: str) -> None:
    rows: list[Any] = []
    log = StepLog(
        Journal(tmp_path, 0, 0), Watch(on_steps=rows.extend), epoch=0, done=0, batch_size=1
    )
    log.add({"loss": jnp.array(1.0), "grad_norm": jnp.array(2.0)})
    log.add({"loss": jnp.array(1.0), "grad_norm": jnp.array(2.0), name: jnp.array(jnp.nan)})
    with pytest.raises(TrainError, match=f"{name} is not finite at step 2"):
        log.fetch()
    assert [row["step"] for row in rows] == [1]


def test_a_foreign_folder_is_left_alone(source: Any, tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "thesis.txt").write_text("precious")
    with pytest.raises(TrainError, match=r"found best in .* and no run\.json; give another --out"):
        train(CONFIG, training(source), tmp_path, Evaluator(source.split("val")))
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (tmp_path / "best" / "thesis.txt").read_text() == "precious"


def test_val_is_read_before_the_first_step(source: Any, tmp_path: Path) -> None:
    examples, rubbish = training(source), tmp_path / "rubbish.png"
    rubbish.write_bytes(b"rubbish")
    broken = dataclasses.replace(examples.val[0], file=str(rubbish))
    steps: list[Any] = []
    with pytest.raises(TrainError, match=r"rubbish\.png: not an image"):
        train(
            CONFIG,
            dataclasses.replace(examples, val=(*examples.val, broken)),
            tmp_path / "out",
            Evaluator(examples.val),
            [Watch(on_steps=steps.append)],
        )
    assert not steps


def test_val_must_give_the_metric_to_choose_by(source: Any, tmp_path: Path) -> None:
    examples = training(source)
    config = parse.replaced(CONFIG, {"best_by": "zeroshot_top1", "epochs": 1})
    one_class = [e for e in examples.val if e.label == examples.val[0].label]
    with pytest.raises(TrainError, match=r"val images of several classes .* found 1"):
        few = dataclasses.replace(examples, val=tuple(one_class))
        train(config, few, tmp_path / "classes", Evaluator(one_class))
    with pytest.raises(TrainError, match="expected val to give zeroshot_top1, found mr"):
        train(config, examples, tmp_path / "figures", lambda embedder: {"mr": 0.5})


def test_settings_without_effect_on_results_may_change(
    source: Any, finished: Path, tmp_path: Path
) -> None:
    evaluate, examples = Evaluator(source.split("val")), training(source)
    again = parse.replaced(ONCE, {"keep_last": 5, "checkpoint_every": 1, "data.cache": "none"})
    best = train(again, examples, finished, evaluate)
    twice = dataclasses.replace(examples, weights=(2.0,) * len(examples.weights))
    fewer = dataclasses.replace(examples, val=examples.val[1:])
    for other in (twice, fewer):
        with pytest.raises(TrainError, match="contains a run with other data"):
            train(ONCE, other, finished, evaluate)
    image = Path(examples.train[0].file)
    replaced = tmp_path / image.name
    replaced.write_bytes(image.read_bytes()[:-1] + b"x")  # as long as before
    changed = dataclasses.replace(examples.train[0], file=str(replaced))
    other = dataclasses.replace(examples, train=(changed, *examples.train[1:]))
    with pytest.raises(TrainError, match="contains a run with other images"):
        train(ONCE, other, finished, evaluate)
    (finished / "best").rename(finished / "elsewhere")
    with pytest.raises(TrainError, match="expected the best model in"):
        train(ONCE, examples, finished, evaluate)
    (finished / "tokenizer.json").unlink()  # learnt again
    (finished / "elsewhere").rename(finished / "best")
    assert train(ONCE, examples, finished, evaluate) == best


@pytest.mark.parametrize("name", ["run.json", "tokenizer.json", "steps.jsonl"])
def test_damaged_files_are_named(source: Any, finished: Path, name: str) -> None:
    (finished / name).write_text("{rub\nbish")
    with pytest.raises(TrainError, match=rf"{name}: expected .*, found something else"):
        train(ONCE, training(source), finished, Evaluator(source.split("val")))


def test_val_without_classes_is_still_evaluated(
    source: Any, tmp_path: Path, tiny_model: Path
) -> None:
    unnamed = [
        Example(f"{i}", e.file, {"captions": e.captions}) for i, e in enumerate(source.split("val"))
    ]
    metrics = Evaluator(unnamed)(load_embedder(tiny_model))
    assert "mr" in metrics
    assert "zeroshot_top1" not in metrics


def test_unusable_val_is_reported_before_training(
    source: Any, tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(DatasetError, match="found none"):
        Evaluator([])
    path = source.examples[0].path
    with pytest.raises(DatasetError, match="expected a caption"):
        Evaluator([Example("mute", str(path))])
    broken = tmp_path / "broken.png"
    broken.write_text("rubbish")
    with pytest.raises(DatasetError, match=r"broken\.png: not an image"):
        Evaluator([Example("broken", str(broken), {"captions": ["a"]})])(load_embedder(tiny_model))
