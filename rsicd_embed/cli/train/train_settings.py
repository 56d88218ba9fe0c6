"""What the commands under `train` share: data sets, and settings from files and options."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import SHAPES, F
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import TrainConfig, defaults, parse

if TYPE_CHECKING:
    from rsicd_embed.train.input.training_data import TrainingData

# Of a model from nothing, and of a checkpoint that is fine-tuned.
_DEFAULTS, _FINE_TUNING = (parse.flat(defaults(init)) for init in (None, "a checkpoint"))
_FRACTION = click.FloatRange(0, 1)
_POSITIVE_FRACTION = click.FloatRange(0, 1, min_open=True)
_POSITIVE = click.FloatRange(0, min_open=True)

# Options of the command line that stand for a setting; the others are reached by --set.
_OPTIONS: dict[str, tuple[str, str, Any]] = {
    "--init": ("model.init", "Checkpoint to fine-tune: bundled, or what --model takes.", str),
    "--shape": ("model.shape", "Shape of a model from nothing.", click.Choice(SHAPES)),
    "--teacher": ("teacher.model", "Model that is learnt from too, as --model takes it.", str),
    "--epochs": ("epochs", "Passes over the train split.", click.IntRange(1)),
    "--batch-size": (
        "batch_size",
        "Images per step, over all devices; 2 or more.",
        click.IntRange(1),
    ),
    "--learning-rate": ("optimizer.learning_rate", "Peak of the schedule.", _POSITIVE),
    "--weight-decay": ("optimizer.weight_decay", "On matrices only.", click.FloatRange(0)),
    "--class-captions": (
        "data.class_captions",
        "Fraction of captions made from class names.",
        _FRACTION,
    ),
    "--keep-patches": (
        "step.keep_patches",
        "Fraction of a ViT's patches kept in training.",
        _POSITIVE_FRACTION,
    ),
    "--unmasked": (
        "step.unmasked",
        "Fraction of the epochs, at the end, keeping all patches.",
        _FRACTION,
    ),
    "--eval-every": ("eval_every", "Epochs between evaluations on val.", click.IntRange(1)),
    "--seed": ("seed", "Of weights, order, captions and augmentation.", click.IntRange(0)),
}


def datasets_option(*, required: bool = True) -> Callable[[F], F]:
    """`--dataset`, which may be given several times."""
    return click.option(
        "--dataset",
        "datasets",
        multiple=True,
        required=required,
        metavar="PATH[=WEIGHT]",
        help="Folder with dataset_*.json and its images, or a manifest with captions; several with "
        "weights, which say how often their images are drawn."
        + ("" if required else "  [required]"),
    )


def config_options(command: F) -> F:
    """`--config` and `--set`."""
    for option in (
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="NAME=VALUE",
            help="A setting, such as optimizer.warmup=0.1; counts more than --config.",
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
    """`--config`, `--set` and an option for each of the common settings."""
    for flag, (setting, text, kind) in reversed(_OPTIONS.items()):
        command = click.option(flag, type=kind, help=text + _shown_default(setting))(command)
    return config_options(command)


def _shown_default(setting: str) -> str:
    usual, fine_tuning = _DEFAULTS[setting], _FINE_TUNING[setting]
    if usual is None:
        return ""
    other = "" if fine_tuning == usual else f", with --init {fine_tuning}"
    return f"  [default: {usual}{other}]"


@contextmanager
def training_extra() -> Iterator[None]:
    """Around imports: says which extra brings what is missing."""
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
    """Defaults, those for a checkpoint if it is one, then the file, then the command line.

    Raises:
        UsageError: there is no such file or setting, or a value makes no sense.
        TrainError: the file cannot be read.
    """
    settings = parse.read(_known(config_file)) if config_file else {}
    with usage_errors():
        settings |= dict(parse.assignment(one) for one in assignments)
        for name, value in (options or {}).items():
            if value is not None:
                settings[_OPTIONS[f"--{name.replace('_', '-')}"][0]] = value
        init = settings.get("model.init", "none")
        if init != "none" and "model.shape" in settings:
            raise TrainError(
                "expected a shape for a model from nothing alone, found one beside the checkpoint "
                f"{init}; leave one of --init and --shape out"
            )
        return parse.replaced(base or defaults(None if init == "none" else init), settings)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Around settings that the command line gives: what is wrong with them is wrong usage."""
    try:
        yield
    except TrainError as error:
        raise click.UsageError(str(error)) from error


def _known(config_file: str) -> str:
    """The name of a file that is there, or of a preset; the near ones are told otherwise."""
    presets = parse.presets()
    if not Path(config_file).is_file() and config_file not in presets:
        near = difflib.get_close_matches(config_file, presets, n=3, cutoff=0.5)
        raise click.BadParameter(
            f"expected a TOML file or a preset such as {', '.join(near or presets)}, "
            f"found {config_file!r}; train presets lists them",
            param_hint="--config",
        )
    return config_file


def read_data(datasets: Sequence[str], config: TrainConfig) -> TrainingData:
    """What `--dataset` names.

    Raises:
        DatasetError: one of them is not as described.
    """
    from rsicd_embed.train.input.training_data import training_source, weighted

    return training_source(
        [weighted(one) for one in datasets], augmented_captions=config.data.augmented_captions
    )
