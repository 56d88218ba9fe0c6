"""Imports on demand: the public names of a package, and plug-ins by entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from rsicd_embed.errors import RsicdEmbedError

STORES = "rsicd_embed.stores"
EMBEDDERS = "rsicd_embed.embedders"


def names(group: str) -> list[str]:
    """Names of the entry points in `group`, sorted."""
    from importlib.metadata import entry_points

    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str) -> object | None:
    """Loads entry point `name` of `group`; None if there is none.

    Raises:
        RsicdEmbedError: two installed packages provide the name, or its import fails.
    """
    from importlib.metadata import entry_points

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


def lazy_exports(
    package: str, exports: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Creates the `__getattr__` and `__dir__` of a package.

    Args:
        package: full name of the package.
        exports: full name of a module → names that the package exports from it.
    """
    modules = {name: module for module, names in exports.items() for name in names}

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    def listed() -> list[str]:
        return sorted({*vars(import_module(package)), *modules})

    return load, listed
