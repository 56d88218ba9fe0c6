"""`rsicd-embed train preview`: draws augmented images with their captions."""

from __future__ import annotations

from pathlib import Path

import click

from rsicd_embed.cli.base import json_option, print_json, show
from rsicd_embed.cli.train.train_settings import (
    config_options,
    datasets_option,
    read_config,
    read_data,
    training_extra,
)

_SIZE = 224


@click.command()
@datasets_option()
@config_options
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Image file: .png, .jpg or .webp; replaces an earlier preview.",
)
@click.option(
    "--images", default=6, show_default=True, type=click.IntRange(1), help="Number of rows."
)
@click.option(
    "--views", default=6, show_default=True, type=click.IntRange(1), help="Views per image."
)
@click.option("--seed", type=click.IntRange(0), help="Random seed.  [default: the run's]")
@json_option
def preview(
    datasets: tuple[str, ...],
    config_file: str | None,
    assignments: tuple[str, ...],
    output: Path,
    images: int,
    views: int,
    seed: int | None,
    as_json: bool,
) -> None:
    """Draw a sheet of training input: images, their random views and captions.

    Each row starts with the original. Views have 224 pixels regardless of the model.
    """
    from PIL import Image

    from rsicd_embed.images import read_rgb
    from rsicd_embed.pictures import sheets

    if output.suffix.lower() not in sheets.SUFFIXES:
        raise click.BadParameter(
            f"expected a file of {', '.join(sheets.SUFFIXES)}, found {output.name!r}",
            param_hint="-o",
        )
    sheets.require_preview_path(output)
    config = read_config(config_file, assignments, {"seed": seed})
    with training_extra():
        from rsicd_embed.train.input.preview import samples
    data = read_data(datasets, config)
    drawn = samples(data, config, images=images, views=views, size=_SIZE)
    rows = [
        sheets.GridRow(
            [
                sheets.GridCell(read_rgb(sample.example.path), note=sample.example.id),
                *(
                    sheets.GridCell(Image.fromarray(view.pixels), view.caption)
                    for view in sample.views
                ),
            ]
        )
        for sample in drawn
    ]
    sheets.save_preview(rows, output)
    if as_json:
        print_json(
            {
                "picture": str(output),
                "engine": config.augment.engine,
                "images": [
                    {"id": sample.example.id, "captions": [view.caption for view in sample.views]}
                    for sample in drawn
                ],
            }
        )
    else:
        show(f"{len(drawn)} images with {views} views each in {output}")
