"""Options of `train` and its subcommands: datasets, settings files and single settings."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import ACTIVATION, F, with_activation
from rsicd_embed.cli.number_range import NumberRange
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import SHAPES, TrainConfig, defaults, parse

if TYPE_CHECKING:
    from rsicd_embed.train.input.training_data import TrainingData

# Defaults for training from scratch, and for fine-tuning.
_DEFAULTS, _FINE_TUNING = (parse.flat(defaults(init)) for init in (None, "a checkpoint"))
_COUNT = click.IntRange(1)

# Settings with an option of their own; the others need --set.
_OPTIONS: dict[str, tuple[str, str, Any]] = {
    "--init": (
        "model.init",
        "Checkpoint to fine-tune: bundled, a directory, a file or a Hugging Face id.",
        str,
    ),
    "--shape": ("model.shape", "Model shape for training from scratch.", click.Choice(SHAPES)),
    "--teacher": (
        "teacher.model",
        "Model to distil from: bundled, a directory, a file or a Hugging Face id.",
        str,
    ),
    "--epochs": ("epochs", "Passes over the train split.", _COUNT),
    "--batch-size": ("batch_size", "Images per step, over all devices; 2 or more.", _COUNT),
    "--learning-rate": (
        "optimizer.learning_rate",
        "Peak learning rate.",
        NumberRange(0, min_open=True),
    ),
    "--weight-decay": (
        "optimizer.weight_decay",
        "Weight decay, on matrices only.",
        NumberRange(0),
    ),
    "--class-captions": (
        "data.class_captions",
        "Fraction of captions made from class names.",
        NumberRange(0, 1),
    ),
    "--keep-patches": (
        "step.keep_patches",
        "Fraction of a ViT's patches kept in training.",
        NumberRange(0, 1, min_open=True),
    ),
    "--unmasked": (
        "step.unmasked",
        "Fraction of the epochs, at the end, that keep all patches.",
        NumberRange(0, 1),
    ),
    "--eval-every": ("eval_every", "Epochs between evaluations on val.", _COUNT),
    "--seed": ("seed", "Random seed.", click.IntRange(0)),
}


def datasets_option(*, required: bool = True) -> Callable[[F], F]:
    """Adds `--dataset`, which may be repeated."""
    return click.option(
        "--dataset",
        "datasets",
        multiple=True,
        required=required,
        metavar="PATH[=WEIGHT]",
        help="Folder with dataset_*.json and images, or a manifest with captions; repeatable. "
        "WEIGHT is how often its images are drawn per epoch."
        + ("" if required else "  [required]"),
    )


def config_options(command: F) -> F:
    """Adds `--config` and `--set`."""
    for option in (
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="NAME=VALUE",
            help="Setting such as optimizer.warmup=0.1; overrides --config; repeatable.",
        ),
        click.option(
            "--config",
            "config_file",
            metavar="FILE",
            help="TOML file of settings, or the name of a preset; see `train presets`.",
        ),
    ):
        command = option(command)
    return command


def settings_options(command: F) -> F:
    """Adds `--config`, `--set` and the options for common settings."""
    for flag, (setting, text, kind) in reversed(_OPTIONS.items()):
        command = click.option(flag, type=kind, help=text + _shown_default(setting))(command)
    activation = click.option(
        "--activation",
        type=ACTIVATION,
        help="Activation function, for an --init checkpoint file that does not specify it.",
    )
    return config_options(activation(command))


def _shown_default(setting: str) -> str:
    usual, fine_tuning = _DEFAULTS[setting], _FINE_TUNING[setting]
    if usual is None:
        return ""
    other = "" if fine_tuning == usual else f", with --init {fine_tuning}"
    return f"  [default: {usual}{other}]"


@contextmanager
def training_extra() -> Iterator[None]:
    """Wraps imports; names the extra that installs a missing package."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise TrainError(
            f"training needs {error.name}, which is not installed: pip install 'rsicd-embed[train]'"
        ) from error


def read_config(
    config_file: str | None,
    assignments: Sequence[str],
    options: Mapping[str, Any] | None = None,
    base: TrainConfig | None = None,
) -> TrainConfig:
    """Combines defaults, the settings file and the command line, in increasing priority.

    Args:
        config_file: settings file or preset.
        assignments: values of --set.
        options: other options of the command line; None if not given.
        base: defaults; by default those for training from scratch or from a checkpoint.

    Raises:
        UsageError: there is no such file or setting, or a value is invalid.
        TrainError: the file cannot be read.
    """
    settings = parse.read(_known(config_file)) if config_file else {}
    with usage_errors():
        settings |= dict(map(parse.assignment, assignments))
        given = {name: value for name, value in (options or {}).items() if value is not None}
        activation = given.pop("activation", None)
        for name, value in given.items():
            settings[_OPTIONS[f"--{name.replace('_', '-')}"][0]] = value
        init = str(settings.get("model.init", "none"))
        if activation is not None:
            init = str(with_activation(None if init == "none" else init, activation, "--init"))
            settings["model.init"] = init
        if init != "none" and "model.shape" in settings:
            raise TrainError(
                f"expected either --shape or --init, found both: {init} has a shape of its own; "
                "leave out --init or --shape"
            )
        return parse.replaced(base or defaults(None if init == "none" else init), settings)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turns errors in settings into usage errors."""
    try:
        yield
    except TrainError as error:
        raise click.UsageError(str(error)) from error


def _known(config_file: str) -> str:
    """Returns the name of an existing file or preset; the error suggests similar names."""
    presets = parse.presets()
    if not Path(config_file).is_file() and config_file not in presets:
        near = difflib.get_close_matches(config_file, presets, n=3, cutoff=0.5)
        raise click.BadParameter(
            f"expected a TOML file or a preset such as {', '.join(near or presets)}, "
            f"found {config_file!r}; `train presets` lists them",
            param_hint="--config",
        )
    return config_file


def read_data(datasets: Sequence[str], config: TrainConfig) -> TrainingData:
    """Reads the datasets of `--dataset`."""
    from rsicd_embed.train.input.training_data import training_source, weighted

    return training_source(
        [weighted(text) for text in datasets], augmented_captions=config.data.augmented_captions
    )
