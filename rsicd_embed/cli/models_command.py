"""`rsicd-embed models`: the models that `--model` knows by name."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import json_option, print_json, show

if TYPE_CHECKING:
    from rsicd_embed.embedder.known_models import KnownModel


@click.command()
@click.argument("name", required=False)
@json_option
def models(name: str | None, as_json: bool) -> None:
    """List models that --model knows by name, or show one.

    Each has its architecture, licence, training data and published figures. Add your own in a TOML
    file at $RSICD_EMBED_MODELS, or in ~/.config/rsicd-embed/models.toml.
    """
    from rsicd_embed.embedder import known_models
    from rsicd_embed.errors import ModelError

    listed = known_models.known_models()
    if name is not None and name not in listed:
        raise ModelError(f"expected a listed model, found {name!r}; rsicd-embed models lists them")
    chosen = list(listed.values()) if name is None else [listed[name]]
    if as_json:
        print_json({"models": [dataclasses.asdict(model) for model in chosen]})
    elif name is not None:
        for line in _details(chosen[0]):
            show(line)
    else:
        rows: list[tuple[str, ...]] = [
            ("name", "architecture", "dim", "licence", "saw in training", "published")
        ]
        rows += [_row(model) for model in chosen]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            show("  ".join(map(str.ljust, row, widths)).rstrip())


def _row(model: KnownModel) -> tuple[str, ...]:
    figures = [f"{metric} {figure.value:.3f}" for metric, figure in model.published.items()]
    seen = "not known" if model.seen is None else ", ".join(model.seen) or "none known"
    dim = "" if model.dim is None else str(model.dim)
    shape, licence = model.architecture or "", model.licence or ""
    return model.name, shape, dim, licence, seen, "; ".join(figures[:1])


def _details(model: KnownModel) -> list[str]:
    values = dataclasses.asdict(model) | {
        "trained_on": "; ".join(model.trained_on),
        "seen": None if model.seen is None else ", ".join(model.seen) or "none known",
    }
    del values["published"]
    lines = [f"{name:<12} {value}" for name, value in values.items() if value]
    for metric, figure in model.published.items():
        lines.append(f"published    {metric}: {figure.value:.4g} ({figure.source})")
    return lines
