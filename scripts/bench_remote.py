"""Rate of `ingest` from S3 on loopback with a delay before the first byte, relative to local files.

    python scripts/bench_remote.py --images 1200 --delay-ms 50 -o runs/bench

The server is a minimal one in a process of its own, so it takes processor time from the ingest.
Rounds alternate between both. Requires the extra `remote`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import os
import shlex
import sys
import tempfile
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import rsicd_embed
from rsicd_embed.bench.synthetic_inputs import write_jpegs
from rsicd_embed.reports import record
from rsicd_embed.reports.timing import TimingPlan, measure, rate_ratio, rate_summary

BUCKET = "tiles"
_PAGE = 1000
_MODIFIED = "2026-01-01T00:00:00.000Z"


class MinimalS3:
    """GET of objects and ListObjectsV2 of one bucket, from memory."""

    def __init__(self, folder: Path, delay_s: float) -> None:
        self._objects = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self._etags = {
            key: hashlib.md5(data, usedforsecurity=False).hexdigest()
            for key, data in self._objects.items()
        }
        self._delay_s = delay_s

    async def serve(self, ready: Connection) -> None:
        """Serves until the process ends; sends the port to `ready`."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                await asyncio.sleep(self._delay_s)
                method, target, _ = lines[0].split(" ", 2)
                status, headers, body = self._answer(urlsplit(target))
                head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
                writer.write("\r\n".join([*head, "", ""]).encode())
                if method != "HEAD":
                    writer.write(body)
                await writer.drain()

    def _answer(self, target: SplitResult) -> tuple[str, list[str], bytes]:
        key = unquote(target.path).removeprefix(f"/{BUCKET}").lstrip("/")
        if not key:
            return "200 OK", ["Content-Type: application/xml"], self._page(parse_qs(target.query))
        if key not in self._objects:
            return "404 Not Found", [], b"<Error><Code>NoSuchKey</Code></Error>"
        modified = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"
        return "200 OK", [f'ETag: "{self._etags[key]}"', modified], self._objects[key]

    def _page(self, query: dict[str, list[str]]) -> bytes:
        after = query.get("continuation-token", [""])[0]
        keys = [key for key in self._objects if key > after]
        page, more = keys[:_PAGE], len(keys) > _PAGE
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_MODIFIED}</LastModified>"
            f"<ETag>&quot;{self._etags[key]}&quot;</ETag><Size>{len(self._objects[key])}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><Name>{BUCKET}</Name><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{items}</ListBucketResult>"
        ).encode()


def run_server(folder: Path, delay_s: float, ready: Connection) -> None:
    """The server's process."""
    asyncio.run(MinimalS3(folder, delay_s).serve(ready))


def main() -> None:
    """Times ingests of the same images from a folder and from the bucket, each into a new store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--delay-ms", type=float, default=50.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model")
    options = parser.parse_args()
    embedder = rsicd_embed.load_embedder(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "images")
        write_jpegs(folder, options.images, (options.side, options.side))
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=run_server, args=(folder, options.delay_ms / 1e3, theirs), daemon=True
        )
        server.start()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ours.recv()}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "something",
        }
        stores = iter(range(10**6))

        def ingest(source: str) -> int:
            """Nanoseconds of one ingest, with the listing."""
            started = time.perf_counter_ns()
            uri = f"exact:{scratch}/store-{next(stores)}"
            with rsicd_embed.open_store(uri, embedder=embedder) as store:
                summary = rsicd_embed.ingest(rsicd_embed.open_sources([source]), embedder, store)
            elapsed = time.perf_counter_ns() - started
            assert summary.embedded == options.images, summary.skipped[:3]
            return elapsed

        remote = f"s3 with {options.delay_ms:g} ms"
        sources = {"local files": str(folder), remote: f"s3://{BUCKET}"}
        take = {
            name: (lambda calls, source=source: sum(ingest(source) for _ in range(calls)))
            for name, source in sources.items()
        }
        samples = measure(take, TimingPlan(rounds=options.rounds, least_s=0))
        server.terminate()
        server.join()
    settings = {
        "images": options.images,
        "side": options.side,
        "delay_ms": options.delay_ms,
        "rounds": options.rounds,
        "model": embedder.name,
    }
    run = record.document("remote", settings, command=shlex.join(["python", *sys.argv]))
    run["complete"] = samples.complete
    run["candidates"] = {
        name: rate_summary(samples, name, options.images, "images") for name in take
    }
    units = dict.fromkeys(take, options.images)
    run["ratios"] = [rate_ratio(samples, remote, "local files", units=units)]
    for name, timed in run["candidates"].items():
        print(f"{name}: {timed['per_s']} images/s {timed['per_s_interval']}")
    print(run["ratios"])
    print(f"record: {record.save(options.output, 'bench-remote', run)}")


if __name__ == "__main__":
    main()
