"""The clients of `bench serve` check every response and report errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rsicd_embed.bench import serve_rates as bench
from rsicd_embed.errors import BenchError
from rsicd_embed.stores.base import open_store
from rsicd_embed.testing.stores import MADE_BY
from tests.helpers import run


@contextmanager
def echo(status: str = "200 OK", swap: bool = False) -> Iterator[str]:
    """A server that echoes a request's target or, with `swap`, the target of the previous one."""
    loop, last = asyncio.new_event_loop(), [b"nothing"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                target = head.split()[1]
                body, last[0] = (last[0] if swap else target), target
                line = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                writer.write(line + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:

        async def stop() -> None:
            server.close()
            # Pending tasks would be destroyed with the loop, with a warning.
            served = asyncio.all_tasks() - {asyncio.current_task()}
            for task in served:
                task.cancel()
            await asyncio.gather(*served, return_exceptions=True)
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def requests(count: int) -> list[bench.Request]:
    return [bench.get_request("/x", {"i": i}, f"i={i}") for i in range(count)]


@pytest.mark.parametrize("clients", [1, 3, 50])
def test_every_request_is_timed(clients: int) -> None:
    with echo() as url:
        times = bench.send_all(url, requests(20), clients)
    assert len(times.each_ns) == 20
    assert 0 < max(times.each_ns) <= times.total_ns


def test_a_response_to_another_request_is_an_error() -> None:
    with (
        echo(swap=True) as url,
        pytest.raises(BenchError, match="its response, found 200"),
    ):
        bench.send_all(url, requests(3), 1)


def test_a_failed_request_is_an_error() -> None:
    with echo("503 Service Unavailable") as url, pytest.raises(BenchError, match="found 503"):
        bench.send_all(url, requests(1), 1)
    with pytest.raises(BenchError, match="does not answer"):
        bench.send_all(url, requests(1), 1)


def test_a_server_without_metrics_of_its_process_is_an_error() -> None:
    with echo() as url, pytest.raises(BenchError, match="expected process_cpu_seconds_total in"):
        bench.Server(url, 0.0).cpu_s()


def test_searches_are_all_different() -> None:
    heads = [request.head for request in (*bench.searches(5, 3), *bench.searches(5, 3))]
    assert len(set(heads)) == 10


def test_a_store_is_filled(tmp_path: Path) -> None:
    uri = f"exact:{tmp_path / 'store'}"
    bench.fill(uri, 123, MADE_BY)
    with open_store(uri) as store:
        assert len(store) == 123
        assert {"lon", "lat"} <= set(store.schema.names)


def test_the_command_refuses_an_unknown_store(tmp_path: Path) -> None:
    done = run("bench", "serve", "--scheme", "faiss", "-o", tmp_path)
    assert done.error == "error: expected a store of exact, lancedb, nmslib, found 'faiss'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_saves_a_record(tiny_model: Path, tmp_path: Path) -> None:
    words = ("bench", "serve", "--model", tiny_model, "--backend", "numpy", "--rows", "50")
    words = (*words, "--clients", "4", "--workers", "2", "--rounds", "1")
    outcome = run(*words, "-o", tmp_path, "--json")
    assert outcome.status == 0
    assert (tmp_path / "bench-serve.json").is_file()
    document = outcome.document
    names = [
        f"{clients}, {server}"
        for server in (bench.BATCHED, bench.ONE_BY_ONE)
        for clients in ("1 client", "4 clients")
    ]
    assert list(document["candidates"]) == names
    assert document["latency_ms"]["batched"]["p50"] > 0
    assert document["cpu_ms_per_search"]["batched"] > 0
    assert document["complete"]
