"""Load on an HTTP server from concurrent clients, on one thread with little overhead.

A client library would use more CPU time per request than the server, on the same CPUs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from rsicd_embed.errors import BenchError

_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Request:
    """An HTTP request.

    Attributes:
        head: method and headers, including the empty line.
        body: the request body.
        expected: bytes that the response must contain, to detect mixed-up responses.
    """

    head: bytes
    body: bytes = b""
    expected: bytes = b""


@dataclass(frozen=True)
class LoadTimes:
    """Nanoseconds for all requests together, and for each."""

    total_ns: int
    each_ns: tuple[int, ...]


def get(path: str, parameters: dict[str, str | int], expected: str = "") -> Request:
    """A GET request."""
    target = f"{path}?{urlencode(parameters)}" if parameters else path
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    return Request(head.encode(), b"", expected.encode())


def post(path: str, content_type: str, body: bytes, expected: str = "") -> Request:
    """A POST request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return Request(head.encode(), body, expected.encode())


def load(url: str, requests: Sequence[Request], clients: int) -> LoadTimes:
    """Sends requests from concurrent clients, each of which waits for a response before the next.

    Raises:
        BenchError: a response is missing, is not a 200, or belongs to another request.
    """
    return asyncio.run(_load(url, requests, clients))


async def _load(url: str, requests: Sequence[Request], clients: int) -> LoadTimes:
    address = urlsplit(url)
    host, port = str(address.hostname), int(address.port or 80)
    connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    pending: Iterator[Request] = iter(requests)
    each: list[int] = []
    try:
        connections += await asyncio.gather(
            *(asyncio.open_connection(host, port) for _ in range(min(clients, len(requests))))
        )
        started = time.perf_counter_ns()
        work = (_client(reader, writer, pending, each) for reader, writer in connections)
        await asyncio.wait_for(asyncio.gather(*work), _TIMEOUT_S)
        total = time.perf_counter_ns() - started
    except (OSError, EOFError, TimeoutError) as error:
        raise BenchError(f"{url} does not answer: {str(error) or type(error).__name__}") from error
    finally:
        for _, writer in connections:
            writer.close()
    return LoadTimes(total, tuple(each))


async def _client(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    requests: Iterable[Request],
    each: list[int],
) -> None:
    for request in requests:
        started = time.perf_counter_ns()
        writer.write(request.head + request.body)
        status, length = _parse_head(await reader.readuntil(b"\r\n\r\n"))
        body = await reader.readexactly(length)
        each.append(time.perf_counter_ns() - started)
        if status != 200 or request.expected not in body:
            line = request.head.split(b"\r\n")[0].decode()
            raise BenchError(f"{line}: expected its response, found {status}: {body[:200]!r}")


def _parse_head(head: bytes) -> tuple[int, int]:
    """Status and content length of a response."""
    lines = head.lower().split(b"\r\n")
    lengths = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
    return int(lines[0].split()[1]), lengths[0] if lengths else 0
