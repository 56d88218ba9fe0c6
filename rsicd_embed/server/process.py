"""Run the server: its socket, uvicorn, deadlines of connections, and a graceful shutdown.

uvicorn limits only the time between requests. Without the deadlines here, a client that sends half
a request would occupy its connection, and the memory of the part that was read, indefinitely.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from rsicd_embed.errors import RequestError
from rsicd_embed.server.api import create_app
from rsicd_embed.server.middleware import LOOPBACK, Access, App
from rsicd_embed.server.request_log import is_json
from rsicd_embed.server.schemas import Limits
from rsicd_embed.server.service import Service

SHUTDOWN_S = 30  # time limit of requests that are running when the server stops

# A uvicorn protocol: `cycle` is the request that was read last, None before the first.
Inner = Any


def listen(host: str, port: int) -> socket.socket:
    """Creates a listening socket; port 0 picks a free port.

    Raises:
        RequestError: 503: the address is unavailable.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        created = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0  # negative for unknown host names
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None)
        raise RequestError(
            503, f"cannot listen on {host}:{port}: {reason or error}; use another --port or --host"
        ) from error
    # `create_server` leaves the protocol open, and connections inherit it. asyncio turns off
    # Nagle's algorithm, which would delay response bodies by 40 ms, only if it is TCP.
    return socket.socket(created.family, created.type, socket.IPPROTO_TCP, fileno=created.detach())


def url(listening: socket.socket) -> str:
    """The URL of the server for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def run(
    service: Service,
    listening: socket.socket,
    started: Callable[[], None],
    access: Access = LOOPBACK,
    supervisor: int | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        service: the operations behind the routes.
        listening: a socket, which other processes may share.
        started: called once requests are accepted.
        access: the rules for requests.
        supervisor: a file descriptor that becomes readable when the supervising process ends.
    """
    server = bounded(create_app(service, access), service.limits)

    async def until_signalled() -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            server.should_exit = True
            if supervisor is not None:
                loop.remove_reader(supervisor)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        if supervisor is not None:
            loop.add_reader(supervisor, stop)
        await serve(server, listening, started)

    asyncio.run(until_signalled())


def bounded(app: App, limits: Limits) -> uvicorn.Server:
    """Creates a server whose clients cannot occupy connections indefinitely."""
    config = uvicorn.Config(
        app,
        ws="none",
        log_level="warning",
        log_config=None if is_json() else LOGGING_CONFIG,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        h11_max_incomplete_event_size=limits.head_bytes,
    )
    config.load()
    protocol = Connections(limits).bound(config.http_protocol_class)
    config.http_protocol_class = protocol  # type: ignore[assignment]  # uvicorn only calls it
    return _Server(config)


async def serve(
    server: uvicorn.Server, listening: socket.socket, started: Callable[[], None]
) -> None:
    """Serves on a socket until `server.should_exit` is set."""
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        started()
    await serving


class _Server(uvicorn.Server):
    """A server without signal handlers; uvicorn would raise signals again after its shutdown."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Connections:
    """The open connections of a server."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: dict[_Connection, None] = {}  # oldest first

    def bound(self, make: Callable[..., Inner]) -> Callable[..., asyncio.Protocol]:
        """Returns a factory of the protocols that `make` creates, with deadlines."""

        def protocol(*arguments: Any, **options: Any) -> asyncio.Protocol:
            return _Connection(make(*arguments, **options), self)

        return protocol

    def add(self, connection: _Connection) -> bool:
        """Adds a connection; returns False if the server is full and all others are being answered.

        To make room, the oldest connection that is not being answered is closed, so idle clients
        cannot lock others out.
        """
        if len(self._open) >= self.limits.connections:
            idle = next((other for other in self._open if not other.is_answering), None)
            if idle is None:
                return False
            idle.abort()
        self._open[connection] = None
        return True

    def remove(self, connection: _Connection) -> None:
        """Removes a closed connection."""
        self._open.pop(connection, None)


class _Connection(asyncio.Protocol):
    """A uvicorn protocol with a deadline for each stage of a request."""

    def __init__(self, inner: Inner, connections: Connections) -> None:
        self._inner, self._connections = inner, connections
        self._limits = connections.limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._stage: tuple[object, str] | None = None
        self._deadline = 0.0  # of the current stage
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    # --- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._connections.add(self):
            _close_with(transport, 503, "every connection is in use; try again in a moment")
            self._transport = None
            return
        self._inner.connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._watch()  # a new stage may start with this data
        self._inner.data_received(data)
        self._head_bytes += len(data)
        self._watch()
        if self._head_bytes > self._most_bytes():
            most = self._limits.head_bytes
            _close_with(self._transport, 431, f"expected headers of at most {most:,} bytes")

    def eof_received(self) -> bool | None:
        return None if self._transport is None else self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.remove(self)
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        if self._transport is not None:
            self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    # --- called by other connections

    @property
    def is_answering(self) -> bool:
        """Whether a request has been received and its response is not complete."""
        return self._stage_name == "response"

    def abort(self) -> None:
        """Closes the connection immediately."""
        self._connections.remove(self)
        if self._transport is not None:
            self._transport.abort()

    # --- deadlines

    @property
    def _stage_name(self) -> str:
        cycle = self._inner.cycle
        if cycle is None or cycle.response_complete:
            return "head"
        return "body" if cycle.more_body else "response"

    def _most_bytes(self) -> float:
        """Maximum number of bytes in this stage. The middleware limits bodies."""
        if self._stage_name == "body":
            return math.inf
        cycle = self._inner.cycle
        # If a response was sent early, the rest of the request's body is read and discarded.
        unread = self._limits.upload_bytes if cycle is not None and cycle.more_body else 0
        return self._limits.head_bytes + unread

    def _watch(self) -> None:
        """Sets the timer for the current stage."""
        now, limits = self._loop.time(), self._limits
        stage = (self._inner.cycle, self._stage_name)
        if stage != self._stage:
            self._stage, self._head_bytes = stage, 0
            allowed_s = limits.head_s if stage[1] == "head" else limits.body_s
            self._deadline = now + allowed_s
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if stage[1] != "response":
            when = min(self._deadline, now + limits.silence_s)
            self._timer = self._loop.call_at(when, self._expire, stage)

    def _expire(self, stage: tuple[object, str]) -> None:
        # The stage may have ended by a response that was sent early.
        if self._transport is None or stage != (self._inner.cycle, self._stage_name):
            return
        cycle = self._inner.cycle
        unused = stage[1] == "head" and self._head_bytes == 0  # browsers open some in advance
        if unused or (stage[1] == "body" and cycle.response_started):
            self.abort()
        else:
            _close_with(self._transport, 408, "expected a whole request in time, found part of it")

    def _watch_writing(self, buffered_before: int | None = None) -> None:
        """Closes the connection if the client stops reading its response."""
        if self._transport is None:
            return
        buffered = self._transport.get_write_buffer_size()
        if buffered_before is not None and buffered >= buffered_before:
            self.abort()
            return
        self._write_timer = self._loop.call_later(
            self._limits.silence_s, self._watch_writing, buffered
        )


def _close_with(transport: asyncio.Transport, status: int, reason: str) -> None:
    """Sends an error response without uvicorn, and closes the connection."""
    body = f'{{"error": "{reason}"}}'
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    transport.write((head + body).encode())
    transport.close()
