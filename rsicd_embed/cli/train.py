"""`rsicd-embed train`: a CLIP from nothing or from a checkpoint; and the commands below it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rsicd_embed.cli.base import Group, json_option, print_json, show
from rsicd_embed.cli.quiet import told_once
from rsicd_embed.cli.train_arms import arms
from rsicd_embed.cli.train_plan import plan
from rsicd_embed.cli.train_presets import presets
from rsicd_embed.cli.train_preview import preview
from rsicd_embed.cli.train_progress import ShownProgress, epoch_line
from rsicd_embed.cli.train_settings import (
    datasets_option,
    read_config,
    read_data,
    settings_options,
    training_extra,
)

if TYPE_CHECKING:
    from rsicd_embed.train.config import TrainConfig
    from rsicd_embed.train.sources import TrainingData


@click.group(cls=Group, invoke_without_command=True, subcommand_metavar="[COMMAND [ARGS]...]")
# Required, but not for a command below; see `_require`.
@datasets_option(required=False)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run; the same folder resumes it. The model is in OUT/best.  [required]",
)
@settings_options
@click.option("--tensorboard", is_flag=True, help="Write curves to OUT/tensorboard.")
@click.option("--wandb", metavar="PROJECT", help="Send curves to Weights & Biases.")
@click.option(
    "--cluster",
    is_flag=True,
    help="On several hosts: ask the TPU pod, Slurm, MPI or Kubernetes who the others are.",
)
@json_option
@click.pass_context
def train(
    context: click.Context,
    /,
    datasets: tuple[str, ...],
    out: Path,
    config_file: str | None,
    assignments: tuple[str, ...],
    tensorboard: bool,
    wandb: str | None,
    cluster: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a CLIP model on captioned images: from nothing, or from a checkpoint.

    Prints the row of the best epoch on val; its model is in OUT/best, curves in OUT/curves.png.
    SIGTERM and Ctrl-C leave a checkpoint; the same command goes on from it.
    """
    if context.invoked_subcommand:
        _refuse_options(context)
        return
    _require(context, "datasets", "out")
    config = read_config(config_file, assignments, options)
    data = read_data(datasets, config)
    best = run(config, data, out, tensorboard=tensorboard, wandb=wandb, cluster=cluster)
    if best is None:
        return
    if as_json:
        print_json(best)
    else:
        show(f"best: {epoch_line(best)}  in {out / 'best'}")


def run(
    config: TrainConfig,
    data: TrainingData,
    out: Path,
    *,
    tensorboard: bool = False,
    wandb: str | None = None,
    cluster: bool = False,
) -> dict[str, Any] | None:
    """One training run, watched; gives the best epoch's row.

    Of several processes one measures, and has something to tell: the others get None.
    """
    import rsicd_embed

    with training_extra():
        from rsicd_embed.bench.evaluate import Evaluator
        from rsicd_embed.train import distributed, plot
        from rsicd_embed.train.config import parse
        from rsicd_embed.train.loop import train as train_on
        from rsicd_embed.train.observers.base import Observer
        from rsicd_embed.train.observers.tensorboard import TensorBoard
        from rsicd_embed.train.observers.wandb import WeightsAndBiases

    distributed.connect(detect=cluster)
    evaluate = Evaluator(data.val, loss_batch=config.batch_size)
    debug = bool(click.get_current_context().find_root().meta.get("debug"))
    with told_once(debug=debug), ExitStack() as stack:
        observers: list[Observer] = []
        told: dict[str, Callable[[int], object]] = {}
        if distributed.is_writer():
            shown = stack.enter_context(ShownProgress(config, len(data.train)))
            told = {"on_image": shown.on_image, "on_view": shown.on_view}
            observers.append(shown)
            if tensorboard:
                observers.append(stack.enter_context(TensorBoard(out / "tensorboard")))
            if wandb:
                there = WeightsAndBiases(wandb, out / "wandb", parse.flat(config))
                observers.append(stack.enter_context(there))
        best = train_on(config, data, out, evaluate, observers, rsicd_embed.load_embedder, **told)
    if not distributed.is_writer():
        return None
    plot.draw({out.name: out}, out / "curves.png")
    return best


for command in (plan, presets, arms, preview):
    train.add_command(command)


def _require(context: click.Context, *names: str) -> None:
    for option in context.command.params:
        if option.name in names and not context.params[option.name]:
            raise click.MissingParameter(ctx=context, param=option)


def _refuse_options(context: click.Context) -> None:
    for name in context.params:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"options of training do not go with `{context.invoked_subcommand}`; "
                "give its own after it."
            )
