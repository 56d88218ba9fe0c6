"""`rsicd-embed train`: a CLIP from scratch on captioned images; and the command `train plan`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rsicd_embed.cli.base import SHAPES, F, Group, json_option, note, print_json, show
from rsicd_embed.cli.train_plan import plan
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import TrainConfig, parse

_DEFAULTS = parse.flat(TrainConfig())
_FRACTION = click.FloatRange(0, 1)
_POSITIVE_FRACTION = click.FloatRange(0, 1, min_open=True)
_POSITIVE = click.FloatRange(0, min_open=True)

# Options that stand for a setting; the others are reached by --set.
_SETTINGS: dict[str, str] = {}


def _option(flag: str, setting: str, text: str, kind: Any) -> Callable[[F], F]:
    name = flag.removeprefix("--").replace("-", "_")
    _SETTINGS[name] = setting
    default = _DEFAULTS[setting]
    shown = "" if default is None else f"  [default: {default}]"
    return click.option(flag, name, type=kind, help=text + shown)


@click.group(cls=Group, invoke_without_command=True, subcommand_metavar="[COMMAND [ARGS]...]")
# Required, but not for a command below; see `_require`.
@click.option(
    "--dataset",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with dataset_*.json and its images; the train split is trained on, val chosen on."
    "  [required]",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run; the same folder resumes it. The model is in OUT/best.  [required]",
)
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="TOML file of settings, or the name of a preset; see `train presets`.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting, such as optimizer.warmup=0.1; counts more than --config.",
)
@_option("--init", "model.init", "Checkpoint to fine-tune, as --model takes it.", str)
@_option("--shape", "model.shape", "Shape of a model from nothing.", click.Choice(SHAPES))
@_option("--epochs", "epochs", "Passes over the train split.", click.IntRange(1))
@_option("--batch-size", "batch_size", "Images a step, over all devices.", click.IntRange(1))
@_option("--learning-rate", "optimizer.learning_rate", "Peak of the schedule.", _POSITIVE)
@_option("--weight-decay", "optimizer.weight_decay", "On matrices only.", click.FloatRange(0))
@_option(
    "--class-captions",
    "data.class_captions",
    "Fraction of captions made from class names.",
    _FRACTION,
)
@_option(
    "--keep-patches",
    "step.keep_patches",
    "Fraction of the patches kept in training.",
    _POSITIVE_FRACTION,
)
@_option(
    "--unmasked",
    "step.unmasked",
    "Fraction of the epochs, at the end, keeping all patches.",
    _FRACTION,
)
@_option("--eval-every", "eval_every", "Epochs between evaluations on val.", click.IntRange(1))
@_option("--seed", "seed", "Of weights, order, captions and augmentation.", click.IntRange(0))
@json_option
@click.pass_context
def train(
    context: click.Context,
    /,
    dataset: Path,
    out: Path,
    config_file: str | None,
    assignments: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Train a CLIP model on captioned images: from nothing, or from a checkpoint.

    Prints the row of the best epoch on val; its model is in OUT/best.
    """
    if context.invoked_subcommand:
        _refuse_options(context)
        return
    _require(context, "dataset", "out")
    config = _config(config_file, assignments, options)
    from rsicd_embed.bench.evaluate import Evaluator
    from rsicd_embed.datasets import captioned

    try:
        from rsicd_embed.train.loop import train as run
    except ModuleNotFoundError as error:
        raise TrainError(
            f"training needs {error.name}, which is not installed: pip install 'rsicd-embed[train]'"
        ) from error

    source = captioned.load(dataset)
    evaluate = Evaluator(source.split("val"))
    best = run(config, source.split("train"), out, evaluate, lambda row: note(_line(row)))
    if as_json:
        print_json(best)
    else:
        show(f"best: {_line(best)}  in {out / 'best'}")


train.add_command(plan)


def _config(
    file: str | None, assignments: tuple[str, ...], options: Mapping[str, Any]
) -> TrainConfig:
    """Defaults, then the file, then what the command line says."""
    settings = parse.read(file) if file else {}
    settings |= dict(parse.assignment(one) for one in assignments)
    settings |= {_SETTINGS[name]: value for name, value in options.items() if value is not None}
    return parse.replaced(TrainConfig(), settings)


def _require(context: click.Context, *names: str) -> None:
    for option in context.command.params:
        if option.name in names and context.params[option.name] is None:
            raise click.MissingParameter(ctx=context, param=option)


def _refuse_options(context: click.Context) -> None:
    for name in context.params:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"options of training do not go with `{context.invoked_subcommand}`; "
                "give its own after it."
            )


def _line(row: dict[str, Any]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
    )
