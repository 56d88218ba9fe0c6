"""`rsicd-embed store …`: older states of a store under names, and columns that are not wanted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import Group, json_option, print_json, show, store_option
from rsicd_embed.cli.terminal_text import number_text

if TYPE_CHECKING:
    from rsicd_embed.stores.base import Versioned


@click.group(cls=Group)
def store() -> None:
    """Keep states of a store under names, go back to them, and drop columns."""


@store.command()
@click.argument("name")
@store_option
def tag(name: str, store_uri: str) -> None:
    """Keep the present state as NAME; `search --as-of NAME` then looks at it."""
    with _opened(store_uri) as opened:
        opened.tag(name)
        show(f"{store_uri}: {len(opened)} rows are kept as {name}")


@store.command()
@click.argument("name")
@store_option
def untag(name: str, store_uri: str) -> None:
    """Let go of what NAME keeps."""
    with _opened(store_uri) as opened:
        opened.untag(name)
    show(f"{store_uri}: {name} is not kept any more")


@store.command()
@store_option
@json_option
def tags(store_uri: str, as_json: bool) -> None:
    """List the names, and the number of the state that each keeps."""
    with _opened(store_uri) as opened:
        found = opened.tags()
    if as_json:
        print_json({"tags": found})
        return
    for name, number in found.items():
        show(f"{number:>6}  {name}")


@store.command()
@click.argument("version")
@store_option
def restore(version: str, store_uri: str) -> None:
    """Go back to a state: a tag, or the number of a version that LanceDB still has."""
    with _opened(store_uri) as opened:
        opened.restore(version)
        show(f"{store_uri}: {len(opened)} rows as of {version}, of model {opened.provenance.model}")


@store.command("drop-column")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@store_option
@json_option
def drop_column(names: tuple[str, ...], store_uri: str, as_json: bool) -> None:
    """Remove columns with all their values; tagged states keep them."""
    import rsicd_embed

    with rsicd_embed.open_store(store_uri) as opened:
        opened.drop_columns(names)
        left = list(opened.schema.names)
    if as_json:
        print_json({"dropped": list(dict.fromkeys(names)), "columns": left})
        return
    show(f"{store_uri}: dropped {', '.join(names)}; columns: {', '.join(left)}")


def _opened(uri: str) -> Versioned:
    import rsicd_embed
    from rsicd_embed.stores.base import require_versioned

    return require_versioned(rsicd_embed.open_store(uri))


@click.command()
@store_option
@json_option
def info(store_uri: str, as_json: bool) -> None:
    """Show what is in a store: rows, model, index, columns."""
    import rsicd_embed

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
