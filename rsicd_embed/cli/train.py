"""`rsicd-embed train`: a CLIP from scratch on captioned images; and the command `train plan`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rsicd_embed.cli.base import F, Group, json_option, note, print_json, show
from rsicd_embed.cli.train_plan import plan
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import PRESETS, TrainConfig

_DEFAULTS = TrainConfig()
_FRACTION = click.FloatRange(0, 1)
_POSITIVE_FRACTION = click.FloatRange(0, 1, min_open=True)
_POSITIVE = click.FloatRange(0, min_open=True)


def _option(flag: str, text: str, **how: Any) -> Callable[[F], F]:
    name = flag.removeprefix("--").replace("-", "_")
    return click.option(flag, default=getattr(_DEFAULTS, name), show_default=True, help=text, **how)


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
@_option("--preset", "Shape of the model.", type=click.Choice(sorted(PRESETS)))
@_option("--epochs", "Passes over the train split.", type=click.IntRange(1))
@_option("--batch-size", "Images a step, over all devices.", type=click.IntRange(1))
@_option("--learning-rate", "Peak of the cosine schedule.", type=_POSITIVE)
@_option("--weight-decay", "AdamW's.", type=click.FloatRange(0))
@_option("--class-captions", "Fraction of captions made from class names.", type=_FRACTION)
@_option("--keep-patches", "Fraction of the patches kept in training.", type=_POSITIVE_FRACTION)
@_option("--unmasked", "Fraction of the epochs, at the end, keeping all patches.", type=_FRACTION)
@_option("--eval-every", "Epochs between evaluations on val.", type=click.IntRange(1))
@_option("--seed", "Of weights, order, captions and augmentation.")
@json_option
@click.pass_context
def train(
    context: click.Context, /, dataset: Path, out: Path, as_json: bool, **settings: Any
) -> None:
    """Train a CLIP model from scratch on captioned images.

    Prints the row of the best epoch on val; its model is in OUT/best.
    """
    if context.invoked_subcommand:
        _refuse_options(context)
        return
    _require(context, "dataset", "out")
    from rsicd_embed.bench.evaluate import Evaluator
    from rsicd_embed.datasets import captioned

    try:
        from rsicd_embed.train.loop import train as run
    except ModuleNotFoundError as error:
        raise TrainError(
            f"training needs {error.name}, which is not installed: pip install 'rsicd-embed[train]'"
        ) from error

    source = captioned.load(dataset)
    config = dataclasses.replace(_DEFAULTS, **settings)

    evaluate = Evaluator(source.split("val"))
    best = run(config, source.split("train"), out, evaluate, lambda row: note(_line(row)))
    if as_json:
        print_json(best)
    else:
        show(f"best: {_line(best)}  in {out / 'best'}")


train.add_command(plan)


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
