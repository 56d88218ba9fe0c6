"""A file that is replaced, but never written to, read again only when it has been replaced."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class CachedFile:
    """What was in a file.

    Attributes:
        content: all of it.
        stamp: its device, number, length and time; None where nothing tells it from another.
        held: keeps the file in being, and so its number from being given to one that replaces it.
    """

    content: bytes
    stamp: _Stamp | None
    held: mmap.mmap | None

    @classmethod
    def of(cls, path: Path) -> CachedFile:
        """Reads a file, or raises OSError."""
        handle = os.open(path, os.O_RDONLY)
        try:
            status = os.fstat(handle)
            content = os.read(handle, status.st_size)
            # Windows does not let a file be replaced that is mapped.
            if os.name != "posix" or not content:
                return cls(content, None, None)
            held = mmap.mmap(handle, len(content), access=mmap.ACCESS_READ)
            return cls(content, _stamp(status), held)
        finally:
            os.close(handle)

    def is_newest(self, path: Path) -> bool:
        """Whether `path` is surely still the file that was read.

        It takes a fifth of the time of reading it. Between machines that share a network's file
        system, it is as late as that system's attributes.
        """
        if self.stamp is None:
            return False
        try:
            return _stamp(os.stat(path)) == self.stamp  # noqa: PTH116 (pathlib takes longer)
        except OSError:
            return False


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
