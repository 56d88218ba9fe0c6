"""What every store checks when it is opened: where it is, what is there, and whose vectors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsicd_embed.errors import FingerprintError, StoreError, StoreNotFoundError, StoreURIError
from rsicd_embed.files import TEMPORARY, storage_errors
from rsicd_embed.records import Provenance, require_same_model
from rsicd_embed.stores.base import StoreURI

LOCK_TIMEOUT_S = 10.0  # upserts of a few thousand rows take well under a second


def local_folder(uri: StoreURI) -> Path:
    """The folder that a URI names; `~` is the home folder, which no shell expands after a colon.

    Raises:
        StoreURIError: the location is a remote one.
        StoreError: the location, or a parent of it, is a file.
    """
    if "://" in uri.location:
        raise StoreURIError(
            f"{uri}: expected a local folder, found a remote location; "
            f"only lancedb: reaches one, for example lancedb:{uri.location}"
        )
    folder = Path(uri.location).expanduser().absolute()
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise StoreError(f"{uri}: {path} is a file; a store is a folder, name another path")
            break
    return folder


def strangers(folder: Path) -> list[str]:
    """Sorted names in `folder` that a store did not leave there before it was complete."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if not path.name.startswith(TEMPORARY) and not path.name.endswith(".lock")
    )


@contextmanager
def stored_anyway(store: str) -> Iterator[None]:
    """Makes a warning of what fails once an upsert's rows are stored: they are, and are found."""
    try:
        with storage_errors("the disk failed"):
            yield
    except StoreError as error:
        warnings.warn(
            f"{store}: the rows are stored, but its index was not brought up to date ({error}); "
            "optimize does so",
            stacklevel=4,
        )


def listing(names: list[str], most: int = 5) -> str:
    """A few names, for an error message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def no_version(store: object, version: str, tags: list[str]) -> str:
    """The message for a state that is not kept."""
    return f"{store}: no version {version!r}; tags: {listing(tags) or 'none'}"


def not_found(uri: StoreURI, detail: str = "") -> StoreNotFoundError:
    """The error for a store that is to be read and is not there."""
    return StoreNotFoundError(
        f"no store at {uri}{f' ({detail})' if detail else ''}; "
        f"check the path, or make it with: rsicd-embed ingest SOURCE --store {uri}"
    )


def closed(uri: object) -> StoreError:
    """The error for a store that is used after `close`."""
    return StoreError(f"{uri} is closed; open it again")


def require_provenance(stored: Provenance, given: Provenance | None, store: str) -> None:
    """Refuses to open a store for an embedder that did not make its vectors.

    Raises:
        FingerprintError: naming what differs and both models.
    """
    if given is None:
        return
    require_same_model(stored, given, store)
    if stored.dim != given.dim:
        raise FingerprintError(
            f"{store} holds vectors of length {stored.dim} made by model {stored.model!r}, "
            f"but model {given.model!r} makes vectors of length {given.dim}; use another store"
        )
