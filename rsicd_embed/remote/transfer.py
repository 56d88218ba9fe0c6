"""Reads and lists objects of any scheme, and retries temporary failures."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

from rsicd_embed.errors import RemoteError
from rsicd_embed.remote.byte_budget import Reservation
from rsicd_embed.remote.client import Client, Content, RemoteObject, TransientError
from rsicd_embed.remote.object_client import ObjectClient
from rsicd_embed.remote.remote_url import RemoteUrl
from rsicd_embed.remote.web_client import WebClient

T = TypeVar("T")

# Attempts to read an object whose transfer breaks off; clients repeat refused requests themselves.
ATTEMPTS = 4
FIRST_PAUSE_S = 0.2


@cache
def client_of(scheme: str, container: str) -> Client:
    """The client for a bucket or host.

    Raises:
        RemoteError: the extra `remote` is missing, or no credentials are found.
    """
    if scheme in ("http", "https"):
        return WebClient()
    return ObjectClient(scheme, container)


def fetch(
    url: str,
    *,
    etag: str = "",
    known: str = "",
    most_bytes: int | None = None,
    reservation: Reservation | None = None,
) -> Content | None:
    """Reads a whole object.

    Args:
        url: its public address.
        etag: the ETag that it must have.
        known: the ETag of a copy; the object is then read only if it has another one.
        most_bytes: largest accepted size.
        reservation: takes the object's bytes before they are read.

    Returns:
        The object, or None if its ETag is `known`.

    Raises:
        RemoteChangedError: it has another ETag than `etag`.
        RemoteError: it is missing, larger than `most_bytes`, or cannot be read.
    """
    parsed = RemoteUrl.parse(url)
    client = client_of(parsed.scheme, parsed.container)
    return _retried(
        lambda: client.get(
            parsed, etag=etag, known=known, most_bytes=most_bytes, reservation=reservation
        )
    )


def fetch_range(
    url: str,
    start: int,
    stop: int,
    *,
    etag: str = "",
    reservation: Reservation | None = None,
) -> Content:
    """Reads the bytes from `start` up to and without `stop`.

    Raises:
        RemoteChangedError: the object has another ETag than `etag`, or ends before `stop`.
        RemoteError: it is missing, or cannot be read.
    """
    parsed = RemoteUrl.parse(url)
    client = client_of(parsed.scheme, parsed.container)
    content = _retried(
        lambda: client.get(parsed, span=(start, stop), etag=etag, reservation=reservation)
    )
    if content is None or len(content.data) != stop - start:
        raise RemoteError("ends too early; it has changed, or is truncated")
    return content


def head(url: str) -> RemoteObject:
    """Describes an object without reading it.

    Raises:
        RemoteMissingError: there is no such object.
        RemoteError: it cannot be read.
    """
    parsed = RemoteUrl.parse(url)
    client = client_of(parsed.scheme, parsed.container)
    return _retried(lambda: client.head(parsed))


def list_objects(
    url: str, unlisted: Callable[[str, str], None] = lambda url, reason: None
) -> Iterator[RemoteObject]:
    """Yields all objects below a folder.

    Args:
        url: the folder's public address.
        unlisted: called with the address of each part that cannot be listed, and the reason.

    Raises:
        RemoteError: the folder cannot be listed.
    """
    parsed = RemoteUrl.parse(url)
    return client_of(parsed.scheme, parsed.container).list(parsed, unlisted)


def _retried(attempt: Callable[[], T]) -> T:
    pause_s = FIRST_PAUSE_S
    for left in reversed(range(ATTEMPTS)):
        try:
            return attempt()
        except TransientError:
            if not left:
                raise
        time.sleep(pause_s * random.uniform(0.5, 1.5))
        pause_s *= 3
    raise AssertionError("unreachable")
