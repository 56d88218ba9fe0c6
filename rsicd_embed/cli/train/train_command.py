"""`rsicd-embed train`: a CLIP from nothing or from a checkpoint; and the commands below it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rsicd_embed.cli.base import Group, json_option, print_json, show
from rsicd_embed.cli.train.train_arms import arms
from rsicd_embed.cli.train.train_plan import plan
from rsicd_embed.cli.train.train_presets import presets
from rsicd_embed.cli.train.train_preview import preview
from rsicd_embed.cli.train.train_progress import epoch_line
from rsicd_embed.cli.train.train_run import run
from rsicd_embed.cli.train.train_settings import (
    datasets_option,
    read_config,
    read_data,
    settings_options,
)


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
    """Train a CLIP model on captioned images: from scratch, or from a checkpoint.

    --init bundled fine-tunes the bundled model.

    Val is measured before the first step and after each epoch. Prints the row of the best epoch
    on val; its model is in OUT/best, curves in OUT/curves.png. SIGTERM and Ctrl-C finish the
    current step and leave a checkpoint; the same command resumes from it. A second Ctrl-C stops
    at once, and loses the steps since the last checkpoint.
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
