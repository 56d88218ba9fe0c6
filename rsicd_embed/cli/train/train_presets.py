"""`rsicd-embed train presets`: settings that come with the package."""

from __future__ import annotations

import click

from rsicd_embed.cli.base import json_option, print_json, show


@click.command()
@json_option
def presets(as_json: bool) -> None:
    """List the presets that --config takes, with what was published for each.

    They are runs of CLIP-rsicd's report; its figures are top-k accuracies on RSICD's test split,
    from runs with its own script. Two of its nine runs are left out, textaugs-2 and textaugs-3 with
    a learning rate of 5e-5: how they differ from the first is not published.
    """
    from rsicd_embed.train.config import parse

    found = {
        name: {"settings": parse.read(path), "published": parse.published(path)}
        for name, path in parse.presets().items()
    }
    if as_json:
        print_json(found)
        return
    for name, one in found.items():
        figures = "  ".join(f"{key} {value:.3f}" for key, value in one["published"].items())
        show(f"{name:34}{figures}")
