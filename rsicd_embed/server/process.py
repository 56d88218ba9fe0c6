"""The server's process: a socket, uvicorn on it, and an end that lets requests finish."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from rsicd_embed.errors import RequestError
from rsicd_embed.server.access import LOOPBACK, Access
from rsicd_embed.server.api import create_app
from rsicd_embed.server.connections import Connections
from rsicd_embed.server.limits import Limits
from rsicd_embed.server.middleware import App
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
