"""Clients of an HTTP server, to load it with: as little of their own as can be, on one thread.

A client library would take longer for a request than the server does, on the same processors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from rsicd_embed.errors import BenchError

_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Request:
    """A request, as it goes over the line.

    Attributes:
        head: method and headers, up to the empty line.
        body: what follows.
        expected: bytes that its answer must have, so that no answer is that of another.
    """

    head: bytes
    body: bytes = b""
    expected: bytes = b""


@dataclass(frozen=True)
class Answered:
    """What came of some requests: nanoseconds for all, and for each."""

    total_ns: int
    each_ns: tuple[int, ...]


def get(path: str, parameters: dict[str, str | int], expected: str = "") -> Request:
    """A GET request."""
    target = f"{path}?{urlencode(parameters)}" if parameters else path
    return Request(
        f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), b"", expected.encode()
    )


def post(path: str, content_type: str, body: bytes, expected: str = "") -> Request:
    """A POST request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return Request(head.encode(), body, expected.encode())


def load(url: str, requests: Sequence[Request], clients: int) -> Answered:
    """Makes requests from so many clients, each of which waits for an answer before it goes on.

    Raises:
        BenchError: an answer is not a 200, or not that of its request, or none comes.
    """
    return asyncio.run(_load(url, requests, clients))


async def _load(url: str, requests: Sequence[Request], clients: int) -> Answered:
    place = urlsplit(url)
    host, port = str(place.hostname), int(place.port or 80)
    lines: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    left: Iterator[Request] = iter(requests)
    each: list[int] = []
    try:
        count = min(clients, len(requests))
        lines += await asyncio.gather(*(asyncio.open_connection(host, port) for _ in range(count)))
        started = time.perf_counter_ns()
        work = (_client(reader, writer, left, each) for reader, writer in lines)
        await asyncio.wait_for(asyncio.gather(*work), _PATIENCE_S)
        total = time.perf_counter_ns() - started
    except (OSError, EOFError, TimeoutError) as error:
        raise BenchError(f"{url} does not answer: {str(error) or type(error).__name__}") from error
    finally:
        for _, writer in lines:
            writer.close()
    return Answered(total, tuple(each))


async def _client(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    requests: Iterable[Request],
    each: list[int],
) -> None:
    for request in requests:
        started = time.perf_counter_ns()
        writer.write(request.head + request.body)
        head = await reader.readuntil(b"\r\n\r\n")
        status, length = _understood(head)
        body = await reader.readexactly(length)
        each.append(time.perf_counter_ns() - started)
        if status != 200 or request.expected not in body:
            asked = request.head.split(b"\r\n")[0].decode()
            raise BenchError(f"{asked}: expected its answer, found {status}: {body[:200]!r}")


def _understood(head: bytes) -> tuple[int, int]:
    """Status and length of an answer."""
    lines = head.lower().split(b"\r\n")
    lengths = [int(one[15:]) for one in lines if one.startswith(b"content-length:")]
    return int(lines[0].split()[1]), lengths[0] if lengths else 0
