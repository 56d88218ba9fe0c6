"""An S3 server on loopback (moto's) whose requests can be made to fail."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
# Answers a request instead of the server; returns None to let it through.
Fault = Callable[[str, str, Callable[..., Any]], "Iterable[bytes] | None"]

SECRET = "hush-hush-secret"


class FaultyS3:
    """The server.

    Attributes:
        fault: called with method, path and `start_response` of each request.
        piece_bytes: size of the pieces in which answers are sent; None to send them at once.
        requests: number of requests by method and path.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.fault: Fault | None = None
        self.piece_bytes: int | None = None
        self.requests: Counter[tuple[str, str]] = Counter()
        self.client: Any = None

    def put(self, bucket: str, files: dict[str, bytes] | Path) -> None:
        """Fills a bucket, which is created, with files or with a folder."""
        self.client.create_bucket(Bucket=bucket)
        if isinstance(files, Path):
            folder = files
            files = {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
        for key, data in files.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=data)


def error(
    start: Callable[..., Any], status: str, code: str = "", message: str = ""
) -> Iterable[bytes]:
    """An answer like S3's to a failed request."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    start(status, [("Content-Length", str(len(body))), ("Content-Type", "application/xml")])
    return [body]


def failing_first(times: int, status: str = "503 Slow Down") -> Fault:
    """Fails the first requests for each object."""
    seen: Counter[str] = Counter()

    def fault(method: str, path: str, start: Callable[..., Any]) -> Iterable[bytes] | None:
        seen[path] += 1
        return error(start, status, "SlowDown") if seen[path] <= times else None

    return fault


def _pieces(answer: Iterable[bytes], size: int) -> Iterator[bytes]:
    for part in answer:
        for start in range(0, len(part), size):
            yield part[start : start + size]


@contextmanager
def running() -> Iterator[FaultyS3]:
    """Runs the server, and points AWS's environment variables to it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    inner: App = DomainDispatcherApplication(create_backend_app)
    server = FaultyS3("")

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        server.requests[method, path] += 1
        answer = server.fault(method, path, start) if server.fault else None
        if answer is None:
            answer = inner(environ, start)
        return _pieces(answer, server.piece_bytes) if server.piece_bytes else answer

    http = make_server("127.0.0.1", 0, app, threaded=True)
    server.endpoint = f"http://127.0.0.1:{http.port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        patch.setenv("AWS_ENDPOINT", server.endpoint)  # LanceDB's
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server.client = boto3.client("s3", endpoint_url=server.endpoint)
        yield server
    http.shutdown()
    thread.join()
    http.server_close()
