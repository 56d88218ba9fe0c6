"""Leases on the versions of a local LanceDB table that are being read, which must not be removed.

A search takes milliseconds and starts again if its version is gone, but a scan may take minutes.
Each scan holds a lock on a file of its own next to the table. A lock ends with its process, so
files of a killed process can be removed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


class ReadLeases:
    """Leases on a table; without effect on a remote one."""

    def __init__(self, folder: Path | None, table: str) -> None:
        """`folder` is that of the database; None for a remote one."""
        self._folder, self._prefix = folder, f".{table}.read-"

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Keeps the files of all versions as long as it is open, if the folder is writable."""
        if self._folder is None:
            yield
            return
        path = self._folder / f"{self._prefix}{secrets.token_hex(8)}.lock"
        lock = FileLock(path)
        with suppress(OSError):
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
            with suppress(OSError):
                path.unlink()

    def any(self) -> bool:
        """Whether a scan is reading some version."""
        if self._folder is None:
            return True  # unknown
        paths = self._folder.glob(f"{self._prefix}*.lock")
        return any(_is_locked(path) for path in paths)


def _is_locked(path: Path) -> bool:
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return path.exists()
    with suppress(OSError):
        path.unlink()  # left by a process that was killed
    lock.release()
    return False
