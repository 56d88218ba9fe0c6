"""`rsicd-embed train arms`: what the augmentations do, shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rsicd_embed.cli.base import json_option, note, print_json, show
from rsicd_embed.cli.train.train_progress import epoch_line
from rsicd_embed.cli.train.train_run import run
from rsicd_embed.cli.train.train_settings import (
    datasets_option,
    read_config,
    read_data,
    settings_options,
)

# As in CLIP-rsicd's report: no augmentation, of images, of images and captions.
_ARMS: dict[str, dict[str, Any]] = {
    "none": {"augment.engine": "none", "data.augmented_captions": False},
    "images": {"data.augmented_captions": False},
    "images-captions": {"data.augmented_captions": True},
}


@click.command()
@datasets_option()
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the runs, a folder each; the same folder resumes them.",
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
    """Train three times: without augmentation, with images', with images' and captions'.

    All other settings, the seed too, are the same, but a model from nothing learns its vocabulary
    from the captions of its arm: with --init all have one. Their loss on train and val is drawn in
    OUT/arms.png. Captions come from the textaug_*.jsonl that augment-captions wrote beside the
    data set.
    """
    from rsicd_embed.train.config import parse

    common = read_config(config_file, assignments, options)
    if common.augment.engine == "none":
        raise click.UsageError(
            "expected augment.engine to be device or torchvision, for the arms whose images are "
            "augmented, found none; the arm without augmentation is trained anyway"
        )
    configs = {name: parse.replaced(common, settings) for name, settings in _ARMS.items()}
    # What one of them lacks is told before the first trains.
    data = {name: read_data(datasets, config) for name, config in configs.items()}
    best = {}
    for name, config in configs.items():
        note(f"arm {name}")
        row = run(config, data[name], out / name)
        if row is not None:
            best[name] = row
    if not best:  # another process tells
        return
    from rsicd_embed.train import plot

    plot.draw({name: out / name for name in _ARMS}, out / "arms.png")
    if as_json:
        print_json(best)
        return
    for name, row in best.items():
        show(f"{name}: {epoch_line(row)}")
    show(f"curves in {out / 'arms.png'}")
