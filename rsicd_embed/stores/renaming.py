"""Renaming a local store, with its tags and earlier states."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace

from filelock import FileLock, Timeout

from rsicd_embed.errors import StoreError, StoreNotFoundError, StoreURIError
from rsicd_embed.files import make_folder, storage_errors, sync_folder
from rsicd_embed.stores import opening
from rsicd_embed.stores.base import open_store
from rsicd_embed.stores.uri import StoreURI

_TABLES = "lancedb"  # its stores are tables in a folder, `NAME.lance`
_FOLDERS = ("exact", "nmslib")


def rename_store(old: str, new: str) -> None:
    """Moves a local store to another path or table name, without copying it.

    Args:
        old: URI of the store, which no process may have open for writing.
        new: URI that nothing exists at, of the same scheme and on the same disk.

    Raises:
        StoreURIError: another scheme, a remote location, a store of a plug-in, or a URI that the
            scheme does not accept.
        StoreNotFoundError: there is no store to rename.
        StoreLockedError: another process is writing to it.
        StoreError: `new` exists, or the files cannot be moved.
    """
    uri = replace(StoreURI.parse(old), options=())
    target = replace(StoreURI.parse(new), options=())
    if uri.scheme not in (_TABLES, *_FOLDERS) or target.scheme != uri.scheme:
        raise StoreURIError(
            f"expected two stores of the same scheme ({_TABLES}, {' or '.join(_FOLDERS)}), found "
            f"{uri} and {target}; use rsicd-embed store copy"
        )
    open_store(old, create=False).close()
    with suppress(StoreNotFoundError):
        open_store(new, create=False).close()  # refuses names with which no store can be opened
    folder, destination = opening.local_folder(uri), opening.local_folder(target)
    lock = folder / ".lock"
    if uri.scheme == _TABLES:
        lock = folder / f".{uri.table}.lock"
        folder, destination = folder / f"{uri.table}.lance", destination / f"{target.table}.lance"
    failed = f"cannot rename {uri} to {target}"
    if destination.exists():
        raise StoreError(f"{failed}: {destination} exists; choose another name")
    try:
        with FileLock(lock, timeout=0), storage_errors(f"{failed}; use store copy if disks differ"):
            make_folder(destination.parent)
            os.rename(folder, destination)  # noqa: PTH104
            sync_folder(destination.parent)
            sync_folder(folder.parent)
    except Timeout:
        raise StoreError(f"{failed}: another process is writing to it; try again later") from None
