"""Checks that stores share when they are opened, and the wording of their common errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsicd_embed.errors import FingerprintError, StoreError, StoreNotFoundError, StoreURIError
from rsicd_embed.files import TEMPORARY, expanded, storage_errors
from rsicd_embed.records import Provenance, require_same_model
from rsicd_embed.stores.uri import StoreURI

LOCK_TIMEOUT_S = 10.0  # upserts of a few thousand rows take well under a second


def local_folder(uri: StoreURI) -> Path:
    """Returns the folder of a URI, with `~` expanded (no shell does so after a colon).

    Raises:
        StoreURIError: the location is remote.
        StoreError: the location, or a parent of it, is a file, or there is no such home folder.
    """
    if "://" in uri.location:
        raise StoreURIError(
            f"{uri}: expected a local folder, found a remote location; "
            f"only lancedb: supports those, for example lancedb:{uri.location}"
        )
    given = expanded(uri.location)
    if str(given).startswith("~") and not given.exists():  # the current folder has no parts
        raise StoreError(f"{uri}: there is no home folder {given.parts[0]}; give another path")
    folder = given.absolute()
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise StoreError(f"{uri}: {path} is a file; a store is a folder, name another path")
            break
    return folder


def foreign_files(folder: Path) -> list[str]:
    """Sorted names in `folder`, without the leftovers of a store that was never completed."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if not path.name.startswith(TEMPORARY) and not path.name.endswith(".lock")
    )


@contextmanager
def index_warning(store: str) -> Iterator[None]:
    """Turns a failure to update the index into a warning: the rows are stored and searchable."""
    try:
        with storage_errors("the disk failed"):
            yield
    except StoreError as error:
        warnings.warn(
            f"{store}: the rows are stored, but its index could not be updated ({error}); "
            "run optimize to update it",
            stacklevel=4,
        )


def listing(names: list[str], most: int = 5) -> str:
    """The first names of a list, for an error message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def not_this_kind(uri: StoreURI, folder: Path, kind: str, names: list[str]) -> StoreError:
    """Error for a folder with files that are not a store of `kind`, perhaps of another scheme."""
    remedy = "name a new or an empty folder"
    if "manifest.json" in names:
        remedy = f"open it as exact:{uri.location} or nmslib:{uri.location}, or name a new folder"
    elif any(name.endswith(".lance") for name in names):
        remedy = f"open it as lancedb:{uri.location}, or name a new folder"
    return StoreError(f"{uri}: {folder} is not {kind} (it contains {listing(names)}); {remedy}")


def no_version(store: object, version: str, tags: list[str]) -> str:
    """Message for a version that does not exist."""
    return f"{store}: no version {version!r}; tags: {listing(tags) or 'none'}"


def locked(store: object) -> str:
    """Message for a store that another process is writing to."""
    return (
        f"{store} is being written to by another process "
        f"(waited {LOCK_TIMEOUT_S:g} s); try again when it is done"
    )


def not_found(uri: StoreURI, detail: str = "") -> StoreNotFoundError:
    """Error for a store that does not exist and is not to be created."""
    return StoreNotFoundError(
        f"no store at {uri}{f' ({detail})' if detail else ''}; "
        f"check the path, or create it with: rsicd-embed ingest SOURCE --store {uri}"
    )


def closed(uri: object) -> StoreError:
    """Error for a store that is used after `close`."""
    return StoreError(f"{uri} is closed; open it again")


def require_provenance(stored: Provenance, given: Provenance | None, store: str) -> None:
    """Refuses a store whose vectors were made by another model than the given one.

    Raises:
        FingerprintError: names both models and what differs.
    """
    if given is None:
        return
    require_same_model(stored, given, store)
    if stored.dim != given.dim:
        raise FingerprintError(
            f"{store} contains vectors of length {stored.dim} made by model {stored.model!r}, "
            f"but model {given.model!r} makes vectors of length {given.dim}; use another store"
        )
