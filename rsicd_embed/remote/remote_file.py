"""A remote object as a seekable file, for readers of tars and Parquet."""

from __future__ import annotations

import io

from rsicd_embed.errors import RemoteError
from rsicd_embed.remote.client import RemoteObject
from rsicd_embed.remote.transfer import fetch_range, head


class RemoteFile(io.RawIOBase):
    """Reads ranges of an object that must not change meanwhile; wrap it to buffer small reads.

    Attributes:
        object: the object when it was opened.
    """

    def __init__(self, url: str) -> None:
        """Opens an object.

        Raises:
            RemoteError: it is missing or cannot be read.
        """
        super().__init__()
        self.object: RemoteObject = head(url)
        if self.object.size is None:
            raise RemoteError("its server does not report its size; download it first")
        self._size, self._place = self.object.size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position of the next read."""
        return self._place

    def size(self) -> int:
        """Number of bytes."""
        return self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position of the next read."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fills a buffer.

        Raises:
            RemoteChangedError: the object has changed since it was opened.
            RemoteError: it cannot be read.
        """
        stop = min(self._place + len(buffer), self._size)
        if stop <= self._place:
            return 0
        content = fetch_range(self.object.url, self._place, stop, etag=self.object.etag)
        buffer[: len(content.data)] = content.data
        self._place = stop
        return len(content.data)
