"""`rsicd-embed train`, `train arms` and `train presets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rsicd_embed.cli.base import Group, json_option, note, print_json, show
from rsicd_embed.cli.train.train_caption import caption
from rsicd_embed.cli.train.train_plan import plan
from rsicd_embed.cli.train.train_preview import preview
from rsicd_embed.cli.train.train_run import epoch_line, run
from rsicd_embed.cli.train.train_settings import (
    datasets_option,
    read_config,
    read_data,
    settings_options,
)
from rsicd_embed.train.config.parse import Settings

# As in CLIP-rsicd's report: no augmentation, of images, of images and captions.
_ARMS: dict[str, Settings] = {
    "none": {"augment.engine": "none", "data.augmented_captions": False},
    "images": {"data.augmented_captions": False},
    "images-captions": {"data.augmented_captions": True},
}


@click.group(cls=Group, invoke_without_command=True, subcommand_metavar="[COMMAND [ARGS]...]")
# Required, but not with a subcommand; see `_require`.
@datasets_option(required=False)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run; the best model goes to OUT/best. The same folder resumes the run.  "
    "[required]",
)
@settings_options
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard curves to OUT/tensorboard.")
@click.option("--wandb", metavar="PROJECT", help="Send curves to Weights & Biases.")
@click.option(
    "--cluster",
    is_flag=True,
    help="Find the other hosts through the TPU pod, Slurm, MPI or Kubernetes.",
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
    """Train a CLIP model on captioned images, from scratch or from a checkpoint.

    Use --init bundled to fine-tune the bundled model.

    The model is evaluated on val before training and every few epochs. The command prints the
    metrics of the best epoch, whose model is in OUT/best; OUT/curves.png shows all epochs. SIGTERM
    or Ctrl-C finishes the current step and writes a checkpoint; the same command resumes from it. A
    second Ctrl-C stops immediately and loses the steps since the last checkpoint.
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


@click.command()
@datasets_option()
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with one folder per run. The same folder resumes them.",
)
@settings_options
@json_option
def arms(
    datasets: tuple[str, ...],
    out: Path,
    config_file: str | None,
    assignments: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Train without augmentation, with augmented images, and with augmented captions too.

    The three runs share all other settings, including the random seed, but a model trained from
    scratch learns its vocabulary from the captions of its own run; with --init, all runs share a
    vocabulary. OUT/arms.png compares their loss on train and val. Augmented captions come from the
    textaug_*.jsonl that augment-captions wrote beside the dataset.
    """
    from rsicd_embed.train.config import parse

    common = read_config(config_file, assignments, options)
    if common.augment.engine == "none":
        raise click.UsageError(
            "expected augment.engine to be device or torchvision for the runs with augmented "
            "images, found none; the run without augmentation is trained anyway"
        )
    configs = {name: parse.replaced(common, settings) for name, settings in _ARMS.items()}
    # Report missing data before the first run.
    data = {name: read_data(datasets, config) for name, config in configs.items()}
    best = {}
    for name, config in configs.items():
        note(f"arm {name}")
        row = run(config, data[name], out / name)
        if row is not None:
            best[name] = row
    if not best:  # another process reports
        return
    from rsicd_embed.train import journal

    journal.plot({name: out / name for name in _ARMS}, out / "arms.png")
    if as_json:
        print_json(best)
        return
    for name, row in best.items():
        show(f"{name}: {epoch_line(row)}")
    show(f"curves in {out / 'arms.png'}")


@click.command()
@json_option
def presets(as_json: bool) -> None:
    """List the presets for --config and the metrics published for them.

    They reproduce runs of CLIP-rsicd's report. Its metrics are top-k accuracies on RSICD's test
    split, measured with its own script. Two of its nine runs are left out, textaugs-2 and
    textaugs-3 with a learning rate of 5e-5, because it does not say how they differ from the first.
    """
    from rsicd_embed.train.config import parse

    settings = {name: parse.read(path) for name, path in parse.presets().items()}
    published = {name: parse.published(path) for name, path in parse.presets().items()}
    if as_json:
        print_json(
            {name: {"settings": settings[name], "published": published[name]} for name in settings}
        )
        return
    for name, metrics in published.items():
        show(f"{name:34}" + "  ".join(f"{key} {value:.3f}" for key, value in metrics.items()))


for command in (plan, presets, arms, preview, caption):
    train.add_command(command)


def _require(context: click.Context, *names: str) -> None:
    for option in context.command.params:
        if option.name in names and not context.params[option.name]:
            raise click.MissingParameter(ctx=context, param=option)


def _refuse_options(context: click.Context) -> None:
    for name in context.params:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"options of train cannot be used with `{context.invoked_subcommand}`; "
                "give that command's own options after its name."
            )
