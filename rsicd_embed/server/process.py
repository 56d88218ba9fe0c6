"""The server's process: a socket, uvicorn on it, and an end that lets requests finish."""

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

from rsicd_embed.errors import RequestError
from rsicd_embed.server.api import create_app
from rsicd_embed.server.middleware import LOOPBACK, Access, App
from rsicd_embed.server.schemas import Limits
from rsicd_embed.server.service import Service

# What a request may still take when the server is told to stop.
_PATIENCE_S = 30


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 for any that is free.

    Raises:
        RequestError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0  # negative for names that nobody knows
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None)
        raise RequestError(
            503, f"cannot listen on {host}:{port}: {reason or error}; give another --port or --host"
        ) from error
    # Connections take over its protocol, which `create_server` leaves open; only where it is TCP
    # does asyncio turn Nagle's algorithm off, which holds an answer's body back for 40 ms.
    return socket.socket(made.family, made.type, socket.IPPROTO_TCP, fileno=made.detach())


def url(listening: socket.socket) -> str:
    """Where a browser finds the server."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def run(
    service: Service,
    listening: socket.socket,
    started: Callable[[], None],
    access: Access = LOOPBACK,
) -> None:
    """Serves until SIGINT or SIGTERM; `started` is called once requests are taken."""
    server = bounded(create_app(service, access), service.limits)

    async def until_signalled() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
        await serve(server, listening, started)

    asyncio.run(until_signalled())


def bounded(app: App, limits: Limits) -> uvicorn.Server:
    """A server of an application, on which no client can keep connections for ever."""
    config = uvicorn.Config(
        app,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_PATIENCE_S,
        h11_max_incomplete_event_size=limits.head_bytes,
    )
    config.load()
    protocol = Connections(limits).bound(config.http_protocol_class)
    config.http_protocol_class = protocol  # type: ignore[assignment]  # uvicorn only calls it
    return _Server(config)


async def serve(
    server: uvicorn.Server, listening: socket.socket, started: Callable[[], None]
) -> None:
    """Serves on a socket until `server.should_exit`."""
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        started()
    await serving


class _Server(uvicorn.Server):
    """Which leaves signals alone: uvicorn would raise them again at its end, as a failure."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


# A uvicorn protocol: `cycle` is the request that was read last, None before the first.
Inner = Any


class Connections:
    """The open connections of a server."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: dict[_Connection, None] = {}  # in the order in which they were opened

    def bound(self, make: Callable[..., Inner]) -> Callable[..., asyncio.Protocol]:
        """A factory of protocols like `make`, whose connections are bounded."""

        def protocol(*arguments: Any, **options: Any) -> asyncio.Protocol:
            return _Connection(make(*arguments, **options), self)

        return protocol

    def add(self, connection: _Connection) -> bool:
        """Makes room for a connection; False if every other one is being answered.

        The oldest that is not being answered is closed, so clients that send nothing cannot keep
        others out.
        """
        if len(self._open) >= self.limits.connections:
            idle = next((one for one in self._open if not one.is_answering), None)
            if idle is None:
                return False
            idle.abort()
        self._open[connection] = None
        return True

    def remove(self, connection: _Connection) -> None:
        """Forgets a connection that is closed."""
        self._open.pop(connection, None)


class _Connection(asyncio.Protocol):
    """A uvicorn protocol with a deadline for each stage of a request."""

    def __init__(self, inner: Inner, connections: Connections) -> None:
        self._inner, self._connections = inner, connections
        self._limits = connections.limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._stage: tuple[object, str] | None = None
        self._deadline = 0.0  # of the stage
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    # --- what asyncio calls

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
        self._watch()  # the first bytes of a request after the first
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

    # --- what the others call

    @property
    def is_answering(self) -> bool:
        """Whether a whole request has been read, and its response is not complete."""
        return self._stage_name == "response"

    def abort(self) -> None:
        """Closes the connection at once."""
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
        """How many bytes may arrive in this stage. The body's are counted as they are read."""
        if self._stage_name == "body":
            return math.inf
        cycle = self._inner.cycle
        # What remains of a body that was answered before its end is read and discarded.
        unread = self._limits.upload_bytes if cycle is not None and cycle.more_body else 0
        return self._limits.head_bytes + unread

    def _watch(self) -> None:
        """Sets the deadline of the stage that the connection is in."""
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
        # A response that came before the whole body ends that stage.
        if self._transport is None or stage != (self._inner.cycle, self._stage_name):
            return
        cycle = self._inner.cycle
        unused = stage[1] == "head" and self._head_bytes == 0  # opened by a browser in advance
        if unused or (stage[1] == "body" and cycle.response_started):
            self.abort()
        else:
            _close_with(self._transport, 408, "expected a whole request in time, found part of it")

    def _watch_writing(self, left: int | None = None) -> None:
        """Closes the connection of a client that stops reading its response."""
        if self._transport is None:
            return
        now_left = self._transport.get_write_buffer_size()
        if left is not None and now_left >= left:
            self.abort()
            return
        self._write_timer = self._loop.call_later(
            self._limits.silence_s, self._watch_writing, now_left
        )


def _close_with(transport: asyncio.Transport, status: int, reason: str) -> None:
    """Answers on a connection that has no request, and closes it."""
    body = f'{{"error": "{reason}"}}'
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    transport.write((head + body).encode())
    transport.close()
