"""Settings: defaults, files, assignments, and errors."""

from __future__ import annotations

import math
from pathlib import Path

import click
import pytest

from rsicd_embed.cli.train.train_settings import read_config
from rsicd_embed.errors import SettingError, TrainError
from rsicd_embed.train.config import TrainConfig, defaults, parse


def test_settings_by_name() -> None:
    settings = {"epochs": 3, "optimizer.learning_rate": 1, "model.init": "some/model"}
    config = parse.replaced(TrainConfig(), settings)
    assert config.epochs == 3
    assert config.optimizer.learning_rate == 1.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.model.init == "some/model"
    assert config.optimizer.warmup == TrainConfig().optimizer.warmup
    assert parse.replaced(TrainConfig(), parse.flat(config)) == config


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("model.shape", "huge", "expected model.shape to be one of tiny, small"),
        ("epochs", 0, "expected epochs ≥ 1, found 0"),
        ("epochs", 2.5, "expected epochs to be an integer, found 2.5"),
        ("epochs", True, "expected epochs to be an integer, found True"),
        ("optimizer.warmup", 2.0, r"expected optimizer.warmup in \[0, 1\], found 2.0"),
        ("optimizer.warmup", float("nan"), r"expected optimizer.warmup in \[0, 1\], found nan"),
        ("step.keep_patches", 0, r"expected step.keep_patches in \(0, 1\], found 0"),
        ("optimizer.learning_rate", 0.0, "expected optimizer.learning_rate > 0"),
        ("optimizer.learning_rate", math.inf, "expected optimizer.learning_rate > 0, found inf"),
        ("step.bias", math.nan, "expected step.bias to be finite, found nan"),
        ("data.workers", 500, r"expected data.workers in \[0, 256\], found 500"),
        ("seed", 2**70, r"expected seed in \[0, 4,294,967,295\]"),
        ("optimizer.learning_rate", "fast", "expected optimizer.learning_rate to be a number"),
        ("optimizer.lerning_rate", 1.0, "such as optimizer.learning_rate.*found 'optimizer.lern"),
        ("optimizer", 1.0, "found 'optimizer'"),
        ("epochs.of", 1, "found 'epochs.of'"),
        ("model.init", 3, "expected model.init to be text or none, found 3"),
    ],
)
def test_invalid_settings(name: str, value: object, complaint: str) -> None:
    with pytest.raises(TrainError, match=complaint):
        parse.replaced(TrainConfig(), {name: value})


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"seed": -1}, "seed"),
        ({"optimizer.learning_rate": -1.0}, "optimizer.learning_rate"),
        ({"augment.area": [0.5, 2.0]}, "augment.area"),
        ({"optimizer.learning_rate": "fast"}, "optimizer.learning_rate"),
        ({"teacher.model": "some/model", "augment.engine": "torchvision"}, "augment.engine"),
    ],
)
def test_an_error_names_its_setting(settings: dict[str, object], name: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse.replaced(TrainConfig(), settings)
    assert caught.value.setting == name
    assert str(caught.value) == f"expected {name} {caught.value.problem}"


def test_assignments() -> None:
    for text, expected in {
        "epochs=3": ("epochs", 3),
        "optimizer.learning_rate = 1e-5": ("optimizer.learning_rate", 1e-5),
        "model.init=openai/clip-vit-base-patch32": ("model.init", "openai/clip-vit-base-patch32"),
        'model.init="a = b"': ("model.init", "a = b"),
    }.items():
        assert parse.assignment(text) == expected
    with pytest.raises(TrainError, match="expected NAME=VALUE, found 'epochs'"):
        parse.assignment("epochs")
    assert parse.replaced(TrainConfig(), {"model.init": "none"}).model.init is None


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("epochs = 2\n[optimizer]\nwarmup = 0.5\n[published]\ntop1 = 0.8\n")
    assert parse.read(path) == {"epochs": 2, "optimizer.warmup": 0.5}
    path.write_text("epochs = ")
    with pytest.raises(TrainError, match="cannot be read as TOML"):
        parse.read(path)
    with pytest.raises(TrainError, match=r"expected a TOML file or one of .* found 'absent'"):
        parse.read("absent")


def test_defaults_for_fine_tuning() -> None:
    assert defaults(None) == TrainConfig()
    usual, gentle = parse.flat(TrainConfig()), parse.flat(defaults("some/model"))
    changed = {name: value for name, value in gentle.items() if value != usual[name]}
    assert changed == {
        "model.init": "some/model",
        "data.class_captions": 0.0,
        "optimizer.learning_rate": 1e-5,
        "step.loss": "auto",
        "step.keep_patches": 1.0,
        "epochs": 10,
        "eval_every": 1,
    }


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('epochs = 3\n[model]\ninit = "some/model"\n')
    read = read_config(str(tmp_path / "a.toml"), ["batch_size=64"], {"learning_rate": 2e-5})
    assert read.model.init == "some/model"
    assert (read.epochs, read.batch_size, read.optimizer.learning_rate) == (3, 64, 2e-5)
    assert read.step.keep_patches == 1.0
    assert read_config(None, ["model.init=none"]) == TrainConfig()
    with pytest.raises(click.UsageError, match="leave out --init or --shape"):
        read_config(None, ["model.init=some/model"], {"shape": "tiny"})
    with pytest.raises(click.UsageError, match="expected --init with --activation, found none"):
        read_config(None, [], {"activation": "gelu"})
    fine_tuned = read_config(None, [], {"init": "clip.pt", "activation": "gelu"})
    assert fine_tuned.model.init == "clip.pt?activation=gelu"
    assert fine_tuned.optimizer == defaults("clip.pt").optimizer
