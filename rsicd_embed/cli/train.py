"""`rsicd-embed train`: a CLIP from scratch on captioned images."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rsicd_embed.cli.base import F
from rsicd_embed.train.config import PRESETS, TrainConfig

_DEFAULTS = TrainConfig()


def _option(flag: str, text: str, **how: Any) -> Callable[[F], F]:
    name = flag.removeprefix("--").replace("-", "_")
    return click.option(flag, default=getattr(_DEFAULTS, name), show_default=True, help=text, **how)


@click.command()
@click.option(
    "--dataset",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder with dataset_*.json and its images; the train split is trained on, val chosen on.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the run; the same folder resumes it. The model is in OUT/best.",
)
@_option("--preset", "Shape of the model.", type=click.Choice(sorted(PRESETS)))
@_option("--epochs", "Passes over the train split.")
@_option("--batch-size", "Images a step, over all devices.")
@_option("--learning-rate", "Peak of the cosine schedule.")
@_option("--weight-decay", "AdamW's.")
@_option("--class-captions", "Fraction of captions made from class names.")
@_option("--keep-patches", "Fraction of the patches kept in training.")
@_option("--unmasked", "Fraction of the epochs, at the end, that keep every patch.")
@_option("--eval-every", "Epochs between evaluations on val.")
@_option("--seed", "Of weights, order, captions and augmentation.")
def train(dataset: Path, out: Path, **settings: Any) -> None:
    """Train a CLIP model from scratch on captioned images."""
    from rsicd_embed.bench.evaluate import Evaluator
    from rsicd_embed.datasets import captioned
    from rsicd_embed.train.loop import train as run

    source = captioned.load(dataset)
    config = dataclasses.replace(_DEFAULTS, **settings)

    def report(row: dict[str, Any]) -> None:
        parts = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()]
        print("  ".join(parts), file=sys.stderr, flush=True)  # noqa: T201

    run(config, source.split("train"), out, Evaluator(source.split("val")), report)
