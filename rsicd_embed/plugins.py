"""Discovery of built-in and third-party plug-ins by entry point; each is imported on demand."""

from __future__ import annotations

from importlib.metadata import entry_points

from rsicd_embed.errors import RsicdEmbedError

STORES = "rsicd_embed.stores"
EMBEDDERS = "rsicd_embed.embedders"


def names(group: str) -> list[str]:
    """Names of the entry points in `group`, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str) -> object | None:
    """Loads entry point `name` of `group`; None if there is none.

    Raises:
        RsicdEmbedError: two installed packages provide the name, or its import fails.
    """
    points = {point.value: point for point in entry_points(group=group, name=name)}
    if not points:
        return None
    if len(points) > 1:
        raise RsicdEmbedError(
            f"{len(points)} installed packages provide {group} {name!r} "
            f"({', '.join(sorted(points))}); uninstall all but one"
        )
    point = next(iter(points.values()))
    try:
        loaded: object = point.load()
    except ImportError as error:
        raise RsicdEmbedError(
            f"{point.group} {point.name!r} ({point.value}) cannot be imported: {error}; "
            "install its dependencies"
        ) from error
    return loaded
