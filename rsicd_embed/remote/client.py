"""What every client of remote objects offers: requests, and what they return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from rsicd_embed.errors import RemoteError
from rsicd_embed.remote.byte_budget import Reservation
from rsicd_embed.remote.remote_url import RemoteUrl


@dataclass(frozen=True)
class RemoteObject:
    """An object as listed or as a response describes it.

    Attributes:
        url: its public address.
        size: in bytes; None if the server does not report it.
        etag: its ETag without quotes, or size and time where there is none: a changed object has
            another one. Empty if the server reports neither.
    """

    url: str
    size: int | None
    etag: str


@dataclass(frozen=True)
class Content:
    """An object with its bytes, or those of a range."""

    data: bytes
    object: RemoteObject


class TransientError(RemoteError):
    """A transfer broke off; another attempt may succeed."""


class Client(Protocol):
    """Requests to one bucket or host; called from many threads."""

    def get(
        self,
        url: RemoteUrl,
        *,
        span: tuple[int, int] | None = None,
        etag: str = "",
        known: str = "",
        most_bytes: int | None = None,
        reservation: Reservation | None = None,
    ) -> Content | None:
        """Reads an object or a range of it; None if its ETag is `known`.

        Raises:
            TransientError: the transfer broke off.
            RemoteError: the object is missing, has another ETag than `etag`, is larger than
                `most_bytes`, or cannot be read.
        """
        ...

    def head(self, url: RemoteUrl) -> RemoteObject:
        """Describes an object.

        Raises:
            RemoteError: as `get`.
        """
        ...

    def list(self, url: RemoteUrl, unlisted: Callable[[str, str], None]) -> Iterator[RemoteObject]:
        """Yields the objects below a folder, by key where the provider sorts them.

        Raises:
            RemoteError: the folder cannot be listed.
        """
        ...
