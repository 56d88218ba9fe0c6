"""The server's listening socket."""

from __future__ import annotations

import asyncio
import socket

from rsicd_embed.server.process import listen


def test_responses_are_sent_without_delay() -> None:
    """Nagle's algorithm is off on every accepted connection."""

    async def accepted() -> int:
        options: asyncio.Queue[int] = asyncio.Queue()

        async def store_option(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            own = writer.get_extra_info("socket")
            options.put_nowait(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listen("127.0.0.1", 0) as listening:
            async with await asyncio.start_server(store_option, sock=listening) as server:
                host, port = server.sockets[0].getsockname()
                _, writer = await asyncio.open_connection(host, port)
                option = await options.get()
                writer.close()
                return option

    assert asyncio.run(accepted()) != 0
