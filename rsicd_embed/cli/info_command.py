"""`rsicd-embed info`: what is in a store."""

from __future__ import annotations

import dataclasses

import click

from rsicd_embed.cli.base import json_option, print_json, show, store_option


@click.command()
@store_option
@json_option
def info(store_uri: str, as_json: bool) -> None:
    """Show what is in a store: rows, model, index, columns."""
    import rsicd_embed
    from rsicd_embed.cli.value_text import number_text

    with rsicd_embed.open_store(store_uri) as store:
        found = dataclasses.asdict(store.info())
    if as_json:
        print_json(found)
        return
    columns, advice = found.pop("columns"), found.pop("advice")
    for name, value in found.items():
        text = number_text(value) if isinstance(value, float) else value
        show(f"{name:<12} {'not measured' if value is None else text}")
    show("columns      " + ", ".join(f"{name} {kind}" for name, kind in columns.items()))
    if advice:
        show(f"advice       {advice}")
