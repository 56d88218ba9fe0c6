"""`train`, `train arms` and `train presets` from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import rsicd_embed
from rsicd_embed.cli import progress
from rsicd_embed.train import distributed, loop
from rsicd_embed.train.config import TrainConfig, parse
from rsicd_embed.train.journal import read

from ..conftest import COLOURS
from ..helpers import overridden, run

# The first epochs of a tiny model may be worse than chance on a dozen images.
pytestmark = pytest.mark.filterwarnings(
    "ignore:epoch .* is worse on val", "ignore:no epoch is as good on val"
)

# One epoch and one program to compile.
TINY = ("--shape", "tiny", "--epochs", "1", "--batch-size", "12", "--keep-patches", "1")
PLAIN = ("--set", "augment.engine=none")


@pytest.fixture(scope="module")
def augmented_folder(captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset with augmented captions."""
    folder = tmp_path_factory.mktemp("augmented") / "toy"
    shutil.copytree(captioned_folder, folder)
    rows = [
        {"filename": f"{label}_{i}.png", "captions": [f"one sees a {label}"] * 5}
        for label in COLOURS
        for i in range(4, 12)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "textaug_train_toy.jsonl").write_text(text)
    return folder


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--set", "epochs"], "expected NAME=VALUE, found 'epochs'"),
        (["--set", "optimizer.lerning_rate=1"], "a setting such as optimizer.learning_rate"),
        (["--set", "epochs=many"], "expected epochs to be an integer, found 'many'"),
        (["--set", "augment.engine=x"], "engine to be one of device, torchvision, none"),
        (["--config", "bs128x8-lr5e-6-adm"], "a preset such as bs128x8-lr5e-6-adam"),
        (["--config", "wrong.toml"], "expected epochs to be an integer, found 'many'"),
    ],
)
@pytest.mark.parametrize("command", ["train", "arms", "preview", "plan"])
def test_invalid_settings_are_usage_errors(
    command: str, options: list[str], complaint: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.toml").write_text('epochs = "many"\n')
    required = {
        "train": ["train", "--dataset", "x", "--out", "y"],
        "arms": ["train", "arms", "--dataset", "x", "--out", "y"],
        "preview": ["train", "preview", "--dataset", "x", "-o", "y.png"],
        "plan": ["train", "plan", "--topology", "v3-8"],
    }
    outcome = run(*required[command], *options)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert complaint in outcome.stderr
    assert not Path("y").exists()


def test_a_file_that_is_not_toml_is_not_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("epochs = ")
    error = run("train", "--dataset", "x", "--out", "y", "--config", tmp_path / "wrong.toml").error
    assert "cannot be read as TOML" in error


# ------------------------------------------------------------------ presets


# Top-1 and the epoch, counted from 0, of its checkpoint in CLIP-rsicd's table.
PUBLISHED = {
    "bs128x8-lr1e-4-augs": (0.819, 2),
    "bs128x8-lr1e-4-imgaugs": (0.812, 2),
    "bs128x8-lr1e-4-imgaugs-textaugs": (0.843, 4),
    "bs128x8-lr5e-5-imgaugs": (0.746, 4),
    "bs128x8-lr5e-5-imgaugs-textaugs": (0.831, 8),
    "bs128x8-lr5e-5-wd02": (0.820, 4),
    "bs128x8-lr5e-6-adam": (0.883, 1),
}


def test_every_preset_loads_and_is_listed_with_its_published_metrics() -> None:
    listed = run("train", "presets", "--json").document
    lines = run("train", "presets").stdout.splitlines()
    assert list(listed) == list(parse.presets())
    assert {name: preset["published"]["top1"] for name, preset in listed.items()} == {
        name: top1 for name, (top1, _) in PUBLISHED.items()
    }
    for line, (name, preset) in zip(lines, listed.items(), strict=True):
        config = parse.replaced(TrainConfig(), parse.read(name))
        assert config.batch_size == 1024
        assert config.epochs >= 5 * (PUBLISHED[name][1] + 1)  # one of their epochs is five of ours
        assert config.epochs % config.eval_every == 0
        figures = [preset["published"][f"top{k}"] for k in (1, 3, 5, 10)]
        assert figures == sorted(figures)
        assert line.startswith(name)
        assert [float(word) for word in line.split()[2::2]] == figures


# ------------------------------------------------------------------ train


@pytest.mark.slow
def test_training_with_a_teacher_shows_progress(
    captioned_folder: Path, other_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    arguments = ("train", "--dataset", captioned_folder, "--out", tmp_path / "run", *TINY)
    options = ("--teacher", other_model, "--set", "teacher.views=2", "--json")
    outcome = run(*overridden(arguments, "--batch-size", "10"), *PLAIN, *options)
    assert outcome.document["epoch"] == 1
    (steps,) = {frozenset(row) for row in read(tmp_path / "run" / "steps.jsonl")}
    assert {"contrastive", "affinity", "features"} <= steps
    assert f'"{other_model}"' in (tmp_path / "run" / "run.json").read_text()
    lines = outcome.stderr.splitlines()
    begun = ["reading images: 24/24", "embedding the teacher's views: 48/48", "epoch 1/1"]
    assert any(line.startswith("each epoch leaves out 4 of 24 images, ") for line in lines)
    assert any(line.startswith("before training: epoch 0  step 0  zeroshot_top1") for line in lines)
    places = [[line.startswith(text) for line in lines].index(True) for text in begun]
    assert places == sorted(places)
    assert not any("None" in line for line in lines)
    with Image.open(tmp_path / "run" / "curves.png") as curves:
        assert curves.format == "PNG"


def test_only_the_writing_process_reports(
    captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loop.is_writer()  # modules that imported the function keep the real one
    monkeypatch.setattr(distributed, "is_writer", lambda: False)
    arguments = ("train", "--dataset", captioned_folder, "--out", tmp_path / "run", *TINY)
    outcome = run(*arguments, *PLAIN)
    assert (outcome.status, outcome.stdout) == (0, ""), outcome.stderr
    assert not (tmp_path / "run" / "curves.png").exists()


@pytest.mark.parametrize("detect", [False, True])
def test_the_cluster_is_detected_only_on_request(
    detect: bool, captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopHereError(rsicd_embed.RsicdEmbedError):
        pass

    def connect(*, detect: bool) -> None:
        raise StopHereError(f"detect {detect}")

    monkeypatch.setattr(distributed, "connect", connect)
    arguments = ("train", "--dataset", captioned_folder, "--out", tmp_path / "run", *TINY)
    assert run(*arguments, *["--cluster"] * detect).error == f"error: detect {detect}"


# ------------------------------------------------------------------ arms


@pytest.mark.slow
def test_three_arms_in_one_plot(augmented_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "arms"
    best = run("train", "arms", "--dataset", augmented_folder, "--out", out, *TINY, "--json")
    assert list(best.document) == ["none", "images", "images-captions"]
    losses = {}
    for name, row in best.document.items():
        assert read(out / name / "metrics.jsonl")[1:] == [row]
        assert (out / name / "best" / "model.safetensors").exists()
        losses[name] = [step["loss"] for step in read(out / name / "steps.jsonl")]
    assert len({tuple(arm) for arm in losses.values()}) == 3
    with Image.open(out / "arms.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000


@pytest.mark.parametrize(
    "options", [["--set", "augment.engine=none"], ["--config", "bs128x8-lr5e-5-wd02"]]
)
def test_identical_arms_are_refused(
    augmented_folder: Path, tmp_path: Path, options: list[str]
) -> None:
    outcome = run(
        "train", "arms", "--dataset", augmented_folder, "--out", tmp_path / "arms", *options
    )
    assert outcome.status == 2
    assert "expected augment.engine to be device or torchvision" in outcome.stderr
    assert not (tmp_path / "arms").exists()


def test_missing_captions_are_reported_before_training(
    captioned_folder: Path, tmp_path: Path
) -> None:
    arguments = ("train", "arms", "--dataset", captioned_folder, "--out", tmp_path / "arms")
    assert "expected textaug_*.jsonl" in run(*arguments, *TINY).error
    assert not (tmp_path / "arms").exists()
