"""`rsicd-embed info` and `store …`: contents of a store, its tagged versions, unwanted columns."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import Group, json_option, print_json, show, store_option
from rsicd_embed.cli.terminal_text import number_text

if TYPE_CHECKING:
    from rsicd_embed.stores.base import Versioned


@click.command()
@store_option
@json_option
def info(store_uri: str, as_json: bool) -> None:
    """Show a store's rows, model, index and columns.

    The engine is the one that ingest would use on this machine.
    """
    import rsicd_embed
    from rsicd_embed.embedder.loading import engine_for

    with rsicd_embed.open_store(store_uri) as opened:
        facts = dataclasses.asdict(opened.info())
    facts["engine"] = engine_for(facts["model"])
    if as_json:
        print_json(facts)
        return
    columns, advice = facts.pop("columns"), facts.pop("advice")
    for name, value in facts.items():
        text = number_text(value) if isinstance(value, float) else value
        show(f"{name:<12} {'not measured' if value is None else text}")
    show("columns      " + ", ".join(f"{name} {kind}" for name, kind in columns.items()))
    if advice:
        show(f"advice       {advice}")


@click.group(cls=Group)
def store() -> None:
    """Tag and restore versions of a store; drop columns."""


@store.command()
@click.argument("name")
@store_option
def tag(name: str, store_uri: str) -> None:
    """Tag the current version as NAME.

    Commands with --as-of NAME then read this version.
    """
    with _open_versioned(store_uri) as opened:
        opened.tag(name)
        show(f"{store_uri}: tagged {len(opened)} rows as {name}")


@store.command()
@click.argument("name")
@store_option
def untag(name: str, store_uri: str) -> None:
    """Delete a tag."""
    with _open_versioned(store_uri) as opened:
        opened.untag(name)
    show(f"{store_uri}: deleted tag {name}")


@store.command()
@store_option
@json_option
def tags(store_uri: str, as_json: bool) -> None:
    """List tags and their version numbers."""
    with _open_versioned(store_uri) as opened:
        numbers = opened.tags()
    if as_json:
        print_json({"tags": numbers})
        return
    for name, number in numbers.items():
        show(f"{number:>6}  {name}")


@store.command()
@click.argument("version")
@store_option
def restore(version: str, store_uri: str) -> None:
    """Restore a tagged version.

    LanceDB stores also restore VERSION by number, while they still have it.
    """
    with _open_versioned(store_uri) as opened:
        opened.restore(version)
        model = opened.provenance.model
        show(f"{store_uri}: restored {version}, {len(opened)} rows of model {model}")


@store.command("drop-column")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@store_option
@json_option
def drop_column(names: tuple[str, ...], store_uri: str, as_json: bool) -> None:
    """Drop columns with all their values.

    Tagged versions keep them.
    """
    import rsicd_embed

    with rsicd_embed.open_store(store_uri) as opened:
        opened.drop_columns(names)
        columns = list(opened.schema.names)
    if as_json:
        print_json({"dropped": list(dict.fromkeys(names)), "columns": columns})
        return
    show(f"{store_uri}: dropped {', '.join(names)}; columns: {', '.join(columns)}")


def _open_versioned(uri: str) -> Versioned:
    import rsicd_embed
    from rsicd_embed.stores.base import require_versioned

    return require_versioned(rsicd_embed.open_store(uri))
