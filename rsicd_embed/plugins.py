"""Entry points: how built-in and third-party parts are found. Imports nothing but what is asked."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from rsicd_embed.errors import RsicdEmbedError

STORES = "rsicd_embed.stores"
EMBEDDERS = "rsicd_embed.embedders"


def names(group: str) -> list[str]:
    """Sorted names of the entry points of `group`."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str) -> object | None:
    """The object that entry point `name` of `group` refers to; None where there is none.

    Raises:
        RsicdEmbedError: two installed packages claim the name, or its import fails.
    """
    found = {point.value: point for point in entry_points(group=group, name=name)}
    if not found:
        return None
    if len(found) > 1:
        raise RsicdEmbedError(
            f"{len(found)} installed packages provide {group} {name!r} "
            f"({', '.join(sorted(found))}); uninstall all but one"
        )
    return _load_one(next(iter(found.values())))


def _load_one(point: EntryPoint) -> object:
    try:
        return point.load()
    except ImportError as error:
        raise RsicdEmbedError(
            f"{point.group} {point.name!r} ({point.value}) cannot be imported: {error}; "
            "install what it needs"
        ) from error
