"""Clients that are slow, silent or many: their connections end, and others are answered."""

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

# A minute for what should take a fraction of a second, on a machine with other work.
_PATIENCE_S = 60.0
SHORT = replace(LIMITS, head_s=0.15, body_s=0.15, silence_s=0.15)
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
HALVES = {
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
    """Both parsers that uvicorn may choose."""
    module, _, name = request.param.partition(".")
    if module == "httptools_impl":
        pytest.importorskip("httptools")
    imported = importlib.import_module(f"uvicorn.protocols.http.{module}")
    monkeypatch.setattr("uvicorn.protocols.http.auto.AutoHTTPProtocol", getattr(imported, name))


class Application:
    """Reads the body, waits to be released, and answers with what it read."""

    def __init__(self) -> None:
        self.entered, self.released, self.left = (asyncio.Event() for _ in range(3))
        self.released.set()
        self.size = 0  # of responses, in addition to the body

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
        await send({"type": "http.response.body"})  # once the client has read most of it
        self.left.set()


@contextlib.asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[tuple[Application, Callable[[], Any]]]:
    """A server with these limits, and what opens a connection to it."""
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
    """Runs a check on a server with these limits."""

    async def within_patience() -> None:
        async with asyncio.timeout(_PATIENCE_S), serving(limits) as (app, connect):
            await check(app, connect)

    asyncio.run(within_patience())


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):  # closed while bytes were on their way
        while piece := await reader.read(65536):
            received += piece
    return received


@pytest.mark.parametrize("name", HALVES)
def test_half_a_request_is_closed(name: str) -> None:
    async def check(app: Application, connect: Callable[[], Any]) -> None:
        reader, writer = await connect()
        writer.write(HALVES[name])
        received = await rest(reader)
        if name == "no byte":
            assert received == b""
            return
        too_late(received)

    run(check)


def too_late(received: bytes) -> None:
    """One line of JSON that says why the connection ends."""
    assert received.startswith(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n")
    assert received.endswith(
        b'\r\n\r\n{"error": "expected a whole request in time, found part of it"}'
    )


def test_half_a_second_request_is_closed() -> None:
    async def check(app: Application, connect: Callable[[], Any]) -> None:
        reader, writer = connection = await connect()
        assert (await answered(connection)).startswith(b"HTTP/1.1 200 OK")
        writer.write(b"GET /again")
        too_late(await rest(reader))

    run(check)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX: ", POST.replace(b"10", b"100000")])
def test_bytes_that_drip_do_not_extend_the_deadline(start: bytes) -> None:
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


def test_three_hundred_halves_are_closed_while_others_are_answered() -> None:
    async def check(app: Application, connect: Callable[[], Any]) -> None:
        halves = [await connect() for _ in range(300)]
        for i, (_, writer) in enumerate(halves):
            writer.write(list(HALVES.values())[i % len(HALVES)])
        closed = [asyncio.create_task(rest(reader)) for reader, _ in halves]
        while not all(one.done() for one in closed):
            assert (await answered(await connect())).startswith(b"HTTP/1.1 200 OK")

    run(check)


async def answered(connection: Connection, request: bytes = GET) -> bytes:
    """The head of the response."""
    reader, writer = connection
    writer.write(request)
    return await reader.readuntil(b"\r\n\r\n")


def test_requests_in_time_are_answered() -> None:
    """One after the other on a connection; a slow answer is no slow request."""

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
        assert await rest(silent) == b""  # so the time for half a request is over
        app.released.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")

    run(check)


def test_the_oldest_silent_connection_makes_room() -> None:
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


def test_a_body_that_nobody_reads_is_bounded_too() -> None:
    """The answer comes before the body's end; what remains of it counts as the next head."""

    async def check(app: Application, connect: Callable[[], Any]) -> None:
        reader, writer = connection = await connect()
        head = await answered(connection, POST.replace(b"POST / ", b"POST /early ") + b"1")
        assert head.startswith(b"HTTP/1.1 200 OK")
        writer.write(b"2")
        too_late(await rest(reader))

    run(check)


def test_a_client_that_does_not_read_is_closed() -> None:
    async def check(app: Application, connect: Callable[[], Any]) -> None:
        app.size = 50_000_000  # more than the buffers of both ends
        reader, writer = await connect()
        writer.write(GET)
        writer.transport.pause_reading()
        await app.entered.wait()
        await app.left.wait()
        writer.transport.resume_reading()
        assert len(await rest(reader)) < app.size

    run(check)
