"""Slow, idle or numerous clients are disconnected, and others are answered."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from rsicd_embed.server import process
from rsicd_embed.server.schemas import LIMITS, Limits

# Generous, for busy machines; the tests take a fraction of a second.
_PATIENCE_S = 60.0
SHORT = replace(LIMITS, head_s=0.15, body_s=0.15, silence_s=0.15)
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
INCOMPLETE = {
    "no byte": b"",
    "a request line": b"GET / HT",
    "some headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "no body": POST,
    "half a body": POST + b"12345",
    "half a chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
}
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True, params=["h11_impl.H11Protocol", "httptools_impl.HttpToolsProtocol"])
def _protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs tests with both HTTP parsers of uvicorn."""
    module, _, name = request.param.partition(".")
    if module == "httptools_impl":
        pytest.importorskip("httptools")
    imported = importlib.import_module(f"uvicorn.protocols.http.{module}")
    monkeypatch.setattr("uvicorn.protocols.http.auto.AutoHTTPProtocol", getattr(imported, name))


class Application:
    """Reads the body, waits until `released` is set, and returns the body."""

    def __init__(self) -> None:
        self.entered, self.released, self.left = (asyncio.Event() for _ in range(3))
        self.released.set()
        self.size = 0  # extra bytes of responses

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", scope["path"] != "/early"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.entered.set()
        await self.released.wait()
        body += b"." * self.size
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})  # after the client has read most of the response
        self.left.set()


@contextlib.asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[tuple[Application, Callable[[], Any]]]:
    """Runs a server; yields its application and a function that connects to it."""
    app, ready = Application(), asyncio.Event()
    running = process.bounded(app, limits)
    writers: list[asyncio.StreamWriter] = []
    with process.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]

        async def connect() -> Connection:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            return reader, writer

        task = asyncio.create_task(process.serve(running, listening, ready.set))
        await ready.wait()
        try:
            yield app, connect
        finally:
            app.released.set()
            for writer in writers:
                writer.close()
            running.should_exit = True
            await task


def run(
    check: Callable[[Application, Callable[[], Any]], Awaitable[None]], limits: Limits = SHORT
) -> None:
    """Runs a check against a server with these limits."""

    async def within_patience() -> None:
        async with asyncio.timeout(_PATIENCE_S), serving(limits) as (app, connect):
            await check(app, connect)

    asyncio.run(within_patience())


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Reads until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):  # closed while sending
        while piece := await reader.read(65536):
            received += piece
    return received


@pytest.mark.parametrize("name", INCOMPLETE)
def test_incomplete_requests_are_closed(name: str) -> None:
    async def check(app: Application, connect: Callable[[], Any]) -> None:
        reader, writer = await connect()
        writer.write(INCOMPLETE[name])
        received = await rest(reader)
        if name == "no byte":
            assert received == b""
            return
        too_late(received)

    run(check)


def too_late(received: bytes) -> None:
    """Checks the error response that ends a connection."""
    assert received.startswith(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n")
    assert received.endswith(
        b'\r\n\r\n{"error": "expected a whole request in time, found part of it"}'
    )


def test_incomplete_second_request_is_closed() -> None:
    async def check(app: Application, connect: Callable[[], Any]) -> None:
        reader, writer = connection = await connect()
        assert (await answered(connection)).startswith(b"HTTP/1.1 200 OK")
        writer.write(b"GET /again")
        too_late(await rest(reader))

    run(check)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX: ", POST.replace(b"10", b"100000")])
def test_slow_bytes_do_not_extend_the_deadline(start: bytes) -> None:
    limits = replace(SHORT, silence_s=_PATIENCE_S * 2)

    async def check(app: Application, connect: Callable[[], Any]) -> None:
        reader, writer = await connect()
        writer.write(start)
        closed = asyncio.create_task(rest(reader))
        while not closed.done():
            writer.write(b"x")
            await asyncio.wait([closed], timeout=0.01)
        too_late(closed.result())

    run(check, limits)


def test_many_incomplete_requests_do_not_block_others() -> None:
    # Longer than a busy machine may stop between a connection and its request.
    limits = replace(LIMITS, head_s=0.5, body_s=0.5, silence_s=0.5)

    async def check(app: Application, connect: Callable[[], Any]) -> None:
        clients = [await connect() for _ in range(300)]
        for i, (_, writer) in enumerate(clients):
            writer.write(list(INCOMPLETE.values())[i % len(INCOMPLETE)])
        closed = [asyncio.create_task(rest(reader)) for reader, _ in clients]
        while not all(task.done() for task in closed):
            reader, writer = await connect()
            assert (await answered((reader, writer))).startswith(b"HTTP/1.1 200 OK")
            writer.close()

    run(check, limits)


async def answered(connection: Connection, request: bytes = GET) -> bytes:
    """Sends a request and returns the head of its response."""
    reader, writer = connection
    writer.write(request)
    return await reader.readuntil(b"\r\n\r\n")


def test_requests_within_the_deadline_are_answered() -> None:
    """Several requests on one connection; the deadline does not apply to responses."""

    async def check(app: Application, connect: Callable[[], Any]) -> None:
        reader, writer = connection = await connect()
        for _ in range(3):
            head = await answered(connection, POST + b"0123456789")
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert await reader.readexactly(10) == b"0123456789"
        app.released.clear()
        app.entered.clear()
        writer.write(GET)
        await app.entered.wait()
        silent, _ = await connect()
        assert await rest(silent) == b""  # so the deadline of requests has passed
        app.released.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")

    run(check)


def test_oldest_idle_connection_makes_room() -> None:
    limits = replace(LIMITS, connections=2)

    async def check(app: Application, connect: Callable[[], Any]) -> None:
        app.released.clear()
        busy = await connect()
        busy[1].write(GET)
        await app.entered.wait()
        silent, _ = await connect()
        third = await connect()
        assert await rest(silent) == b""
        app.entered.clear()
        third[1].write(GET)
        await app.entered.wait()
        refused, _ = await connect()  # both others are being answered
        received = await rest(refused)
        assert received.startswith(b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n")
        assert b"every connection is in use" in received
        app.released.set()
        for reader, _ in (busy, third):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        assert (await answered(await connect())).startswith(b"HTTP/1.1 200 OK")

    run(check, limits)


@pytest.mark.parametrize("line", [b"GET /" + b"x" * 70_000, GET[:-2] + b"X: y\r\n" * 12_000])
def test_headers_are_limited(line: bytes) -> None:
    async def check(app: Application, connect: Callable[[], Any]) -> None:
        reader, writer = await connect()
        writer.write(line)
        received = await rest(reader)
        assert received == b"" or received.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
        assert not app.entered.is_set()

    run(check, LIMITS)


def test_body_after_an_early_response_has_a_deadline() -> None:
    """The rest of the body counts towards the next request's headers."""

    async def check(app: Application, connect: Callable[[], Any]) -> None:
        reader, writer = connection = await connect()
        head = await answered(connection, POST.replace(b"POST / ", b"POST /early ") + b"1")
        assert head.startswith(b"HTTP/1.1 200 OK")
        writer.write(b"2")
        too_late(await rest(reader))

    run(check)


def test_clients_that_stop_reading_are_closed() -> None:
    async def check(app: Application, connect: Callable[[], Any]) -> None:
        app.size = 50_000_000  # more than the socket buffers
        reader, writer = await connect()
        writer.write(GET)
        writer.transport.pause_reading()
        await app.entered.wait()
        await app.left.wait()
        writer.transport.resume_reading()
        assert len(await rest(reader)) < app.size

    run(check)
