"""`rsicd-embed info` and `store …`: contents and versions of a store, unwanted rows and columns."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import (
    Group,
    as_of_option,
    json_option,
    print_json,
    show,
    store_option,
    warn,
)
from rsicd_embed.cli.terminal_text import counted, number_text

if TYPE_CHECKING:
    from rsicd_embed.stores.base import VectorStore, Versioned

_MOST_LISTED = 20  # ids printed by a dry run


@click.command()
@store_option
@json_option
def info(store_uri: str, as_json: bool) -> None:
    """Show a store's rows, model, index and columns.

    The engine is the one that `ingest` would use on this machine.
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
    """Tag, restore, copy and rename a store; delete rows and columns."""


@store.command()
@click.argument("name")
@store_option
def tag(name: str, store_uri: str) -> None:
    """Tag the current version as NAME.

    Commands with --as-of NAME then read this version.
    """
    with _open_versioned(store_uri) as opened:
        opened.tag(name)
        show(f"{store_uri}: tagged {counted(len(opened), 'row')} as {name}")


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
@click.option(
    "--tag-left", metavar="NAME", help="Tag the current state with this name before restoring."
)
@store_option
@json_option
def restore(version: str, tag_left: str | None, store_uri: str, as_json: bool) -> None:
    """Restore a tagged version, and describe the state that it replaces.

    LanceDB stores also restore VERSION by number, as long as they keep it.
    """
    with _open_versioned(store_uri) as opened:
        left, left_model = _ids(opened), opened.provenance.model
        opened.restore(version, tag_left)
        restored, model = _ids(opened), opened.provenance.model
    only_left = len(left - restored)
    if as_json:
        facts = {"rows": len(left), "model": left_model, "ids_not_restored": only_left}
        print_json(
            {"restored": version, "rows": len(restored), "model": model}
            | {"left": facts | {"tag": tag_left}}
        )
        return
    show(f"{store_uri}: restored {version}, {counted(len(restored), 'row')} of model {model}")
    kept = f"tagged {tag_left}" if tag_left else "not tagged; --tag-left NAME would have kept it"
    show(
        f"replaced: {counted(len(left), 'row')} of model {left_model}, "
        f"{only_left} with ids that {version} lacks ({kept})"
    )


@store.command()
@click.option("--where", metavar="SQL", help="Delete the rows that match this SQL condition.")
@click.option("--id", "ids", metavar="ID", multiple=True, help="Delete this row; repeatable.")
@click.option("--dry-run", is_flag=True, help="Report the rows without deleting them.")
@store_option
@json_option
def delete(
    where: str | None, ids: tuple[str, ...], dry_run: bool, store_uri: str, as_json: bool
) -> None:
    """Delete rows by condition or id.

    Image files are not deleted; ingesting them again restores their rows.
    """
    import rsicd_embed
    from rsicd_embed.indexing.housekeeping import delete_rows

    if where is None and not ids:
        raise click.UsageError("expected --where SQL or --id ID")
    with rsicd_embed.open_store(store_uri) as opened:
        deletion = delete_rows(opened, ids=ids, where=where, dry_run=dry_run)
        rows = len(opened)
    for id_ in deletion.unknown:
        warn(f"no row with the id {id_!r}")
    if as_json:
        print_json(
            {"deleted": 0 if dry_run else len(deletion.ids), "ids": deletion.ids}
            | {"unknown": deletion.unknown, "rows": rows, "dry_run": dry_run}
        )
        return
    for id_ in deletion.ids[:_MOST_LISTED] if dry_run else ():
        show(id_)
    if dry_run and len(deletion.ids) > _MOST_LISTED:
        show(f"… and {len(deletion.ids) - _MOST_LISTED} more")
    verb = "would delete" if dry_run else "deleted"
    show(
        f"{store_uri}: {verb} {counted(len(deletion.ids), 'row')}; "
        f"{counted(rows, 'row')} in the store"
    )


@store.command()
@click.argument("target", metavar="URI")
@store_option
@as_of_option
@json_option
def copy(target: str, store_uri: str, as_of: str | None, as_json: bool) -> None:
    """Copy a store's rows to a new store at URI, of any scheme.

    Tags and earlier versions are not copied.
    """
    import rsicd_embed
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.cli.search_command import store_version
    from rsicd_embed.indexing.housekeeping import copy_store

    with (
        rsicd_embed.open_store(store_uri) as newest,
        store_version(newest, as_of) as source,
        image_progress("copy", len(source), "rows") as advance,
        copy_store(source, target, advance) as copied,
    ):
        rows, model = len(copied), source.provenance.model
    if as_json:
        print_json({"store": store_uri, "copy": target, "rows": rows, "model": model})
        return
    show(f"{target}: {counted(rows, 'row')} of model {model}, copied from {store_uri}")


@store.command()
@click.argument("target", metavar="URI")
@store_option
@json_option
def rename(target: str, store_uri: str, as_json: bool) -> None:
    """Rename a local store to URI, with its tags, without copying it."""
    from rsicd_embed.stores.renaming import rename_store

    rename_store(store_uri, target)
    if as_json:
        print_json({"store": store_uri, "renamed": target})
        return
    show(f"{store_uri} is now {target}")


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


def _ids(opened: VectorStore) -> set[str]:
    with opened.scan(["id"]) as reader:
        return set(reader.read_all()["id"].to_pylist())


def _open_versioned(uri: str) -> Versioned:
    import rsicd_embed
    from rsicd_embed.stores.base import require_versioned

    return require_versioned(rsicd_embed.open_store(uri))
