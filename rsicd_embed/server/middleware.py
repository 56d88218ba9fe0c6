"""Around every request: host and origin, size of the body, headers for safe browsing, counting."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from rsicd_embed.json_output import as_json
from rsicd_embed.server.access import Access
from rsicd_embed.server.limits import Limits
from rsicd_embed.server.request_metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The page brings all that it needs; pictures that are chosen are shown as blob:, maps as data:.
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        b"form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_MULTIPART = b"multipart/form-data"


class Guard:
    """An ASGI application around another. Not a middleware of FastAPI's, which cost more."""

    def __init__(self, app: App, metrics: Metrics, limits: Limits, access: Access) -> None:
        self._app, self._metrics, self._limits, self._access = app, metrics, limits, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        self._metrics.running.inc()
        try:
            refusal = self._access.refusal(scope)
            if refusal is not None:
                await _refuse(answer, *refusal)
            else:
                await self._within_limits(scope, receive, answer)
        finally:
            self._metrics.running.dec()
            # Not the path: every unknown one would be counted by itself.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(scope["method"], route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _within_limits(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        pictures = headers.get(b"content-type", b"").lower().startswith(_MULTIPART)
        most = self._limits.upload_bytes if pictures else self._limits.body_bytes
        try:
            stated = int(headers.get(b"content-length", b"0"))
        except ValueError:
            stated = 0
        if stated > most:
            await _refuse(send, *_too_large(most))
            return
        taken, refused = 0, False

        async def take() -> Message:
            nonlocal taken, refused
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                refused = True
                return {"type": "http.disconnect"}
            return message

        async def unless_refused(message: Message) -> None:
            if not refused:
                await send(message)

        try:
            await self._app(scope, take, unless_refused)
        except Exception:
            if not refused:
                raise
        if refused:
            await _refuse(send, *_too_large(most))


def _too_large(most: int) -> tuple[int, str]:
    return 413, f"expected a body of at most {most:,} bytes, found more"


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = as_json({"error": reason})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what is still on its way is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
