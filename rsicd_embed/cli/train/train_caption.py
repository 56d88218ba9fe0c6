"""`rsicd-embed train caption`: trains a captioner on the vectors of captioned images."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from rsicd_embed.cli.base import json_option, model_option, print_json, show
from rsicd_embed.cli.number_range import NumberRange
from rsicd_embed.cli.train.train_run import ShownProgress, epoch_line, suppress_orbax_tracebacks
from rsicd_embed.cli.train.train_settings import datasets_option, training_extra, usage_errors
from rsicd_embed.errors import TrainError
from rsicd_embed.train.captioner.caption_settings import CaptionTrainConfig
from rsicd_embed.train.config import parse
from rsicd_embed.train.observers import Observer, TensorBoard

_COUNT = click.IntRange(1)
_DEFAULTS = parse.flat(CaptionTrainConfig())
# Settings with an option of their own; the others need --set.
_OPTIONS: dict[str, tuple[str, str, Any]] = {
    "--epochs": ("epochs", "Passes over the train split.", _COUNT),
    "--batch-size": ("batch_size", "Captions per step, over all devices.", _COUNT),
    "--views": ("views", "Views of each image, embedded once.", _COUNT),
    "--learning-rate": (
        "optimizer.learning_rate",
        "Peak learning rate.",
        NumberRange(0, min_open=True),
    ),
    "--weight-decay": (
        "optimizer.weight_decay",
        "Weight decay, on matrices only; scheduled with the learning rate.",
        NumberRange(0),
    ),
    "--init": ("init", "Captioner to continue from; `bundled`, or a folder of a run.", str),
    "--objective": (
        "objective",
        "likelihood of people's captions, or CIDEr-D of sampled captions; the latter needs --init.",
        click.Choice(["likelihood", "cider_d"]),
    ),
    "--decoder": (
        "decoder.init",
        "Folder of a Hugging Face GPT-2, instead of a decoder from scratch.",
        str,
    ),
    "--seed": ("seed", "Random seed.", click.IntRange(0)),
}


def _settings_options(command: Any) -> Any:
    for flag, (setting, text, kind) in reversed(_OPTIONS.items()):
        default = _DEFAULTS[setting]
        shown = text if default is None else f"{text}  [default: {default}]"
        command = click.option(flag, type=kind, help=shown)(command)
    return command


@click.command()
@datasets_option()
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run; the best captioner goes to OUT/best. The same folder resumes the run.",
)
@click.option(
    "--vectors",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the images' vectors, which several runs can share.  [default: OUT/vectors]",
)
@click.option("--config", "config_file", metavar="FILE", help="TOML file of settings.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Setting such as decoder.layers=6; overrides --config; repeatable.",
)
@_settings_options
@click.option("--freeze-decoder", is_flag=True, help="Train the mapping network only.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard curves to OUT/tensorboard.")
@model_option("the bundled model")
@json_option
def caption(
    datasets: tuple[str, ...],
    out: Path,
    vectors: Path | None,
    config_file: str | None,
    assignments: tuple[str, ...],
    freeze_decoder: bool,
    tensorboard: bool,
    model: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a captioner: a decoder that writes a sentence for the vector of an image.

    The images of the train split are embedded once, in a few views. Captions of val are scored
    every few epochs by CIDEr-D and BLEU; the captioner with the best CIDEr-D is in OUT/best.
    SIGTERM or Ctrl-C writes a checkpoint; the same command resumes from it.
    """
    if freeze_decoder:
        assignments = (*assignments, "decoder.freeze=true")
    config = _read_config(config_file, assignments, options | {"model": model})
    import rsicd_embed
    from rsicd_embed.train.input.training_data import training_source, weighted

    with training_extra():
        from rsicd_embed.evaluation.caption_metrics import cider_reward
        from rsicd_embed.evaluation.caption_protocol import caption_point
        from rsicd_embed.train.captioner.caption_loop import train_captioner, views_to_embed

    data = training_source([weighted(text) for text in datasets])
    embedder = rsicd_embed.load_embedder(config.embedder)
    debug = bool(click.get_current_context().find_root().meta.get("debug"))
    with suppress_orbax_tracebacks(debug=debug), ExitStack() as stack:
        views = views_to_embed(config, data)
        shown = ShownProgress(
            config.batch_size, config.epochs, len(data.train), views, "embedding images"
        )
        observers: list[Observer] = [stack.enter_context(shown)]
        if tensorboard:
            observers.append(stack.enter_context(TensorBoard(out / "tensorboard")))
        best = train_captioner(
            config, data, out, embedder, caption_point, cider_reward, observers, vectors
        )
    if as_json:
        print_json(best)
    else:
        show(f"best: {epoch_line(best)}  in {out / 'best'}")


def _read_config(
    config_file: str | None, assignments: tuple[str, ...], options: dict[str, Any]
) -> CaptionTrainConfig:
    """Combines defaults, the settings file and the command line, in increasing priority."""
    if config_file and not Path(config_file).is_file():
        raise click.BadParameter(
            f"expected a TOML file, found {config_file!r}", param_hint="--config"
        )
    settings = parse.read(config_file) if config_file else {}
    if "published" in settings:
        raise TrainError(f"{config_file}: expected settings of a captioner, found those of a CLIP")
    names = {f"--{name}": setting for name, setting in {"model": "embedder"}.items()}
    names |= {flag: setting for flag, (setting, _, _) in _OPTIONS.items()}
    with usage_errors():
        settings |= dict(map(parse.assignment, assignments))
        for name, value in options.items():
            if value is not None:
                settings[names[f"--{name.replace('_', '-')}"]] = value
        return parse.replaced(CaptionTrainConfig(), settings)
