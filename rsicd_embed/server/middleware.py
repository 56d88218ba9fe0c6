"""Checks around every request: host, origin, rate, API key, body size; headers, metrics, log.

Any web page can make a browser send requests to this machine. A page that rebinds its own DNS name
to 127.0.0.1 has, for the browser, the same origin as this server and could read every response; but
its requests still carry its own name in the Host header. A page of another origin cannot read the
responses, but could make the server work; its requests carry its Origin header.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from rsicd_embed.json_output import as_json
from rsicd_embed.server.api_keys import OPEN, ApiKeys
from rsicd_embed.server.rate_limit import Buckets, client_of
from rsicd_embed.server.request_log import RequestRecord
from rsicd_embed.server.schemas import Limits
from rsicd_embed.server.server_metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The page loads nothing from elsewhere; uploads are shown as blob:, heat maps as data:.
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
ANY = "*"
_MULTIPART = b"multipart/form-data"
_WILDCARDS = ("0.0.0.0", "::")
_SHOWN_CHARS = 80


class Refusal(NamedTuple):
    """Why a request is refused; `wait_s` is not 0 if the same request may succeed after it."""

    status: int
    reason: str
    wait_s: int = 0


@dataclass(frozen=True)
class Access:
    """The hosts that requests may use, besides loopback names and the connection's address.

    Attributes:
        hosts: names or addresses in lower case, without a port; `*` for any.
        keys: the keys of which each request must have one; None if it needs none.
        buckets: what is left of each client's rate; None without a limit.
    """

    hosts: frozenset[str] = frozenset()
    keys: ApiKeys | None = None
    buckets: Buckets | None = None

    def refusal(self, scope: Scope) -> Refusal | None:
        """Returns the reason for refusing a request, or None to accept it, which counts it.

        Args:
            scope: an ASGI scope of type http.
        """
        if self.buckets is not None and scope["path"] not in OPEN:
            wait_s = self.buckets.wait_s(client_of(scope, self.keys))
            if wait_s:
                limit = self.buckets.limit
                return Refusal(
                    429, f"expected at most {limit}, found more; wait {wait_s} s", wait_s
                )
        host = _single_value(scope, b"host")
        name = host_name(host)
        if not self._allows(name, scope):
            known = ", ".join(["localhost", *sorted(self.hosts)])
            hint = f"; to serve that name, start with --allowed-host {name}" if name else ""
            return Refusal(421, f"expected a Host of {known}, found {_shown(host)}{hint[:300]}")
        origin = _single_value(scope, b"origin")
        if origin is not None and not self._same_site(origin, str(host)):
            reason = f"expected a request from this server's page, found Origin {origin!r:.80}"
            return Refusal(403, reason)
        if self.keys is not None and not self.keys.admits(scope):
            reason = "expected an API key, as a bearer token or as the password of a login"
            return Refusal(401, reason)
        return None

    def _allows(self, name: str | None, scope: Scope) -> bool:
        if name is None:
            return False
        server = scope.get("server")
        address = server[0] if server else None
        return ANY in self.hosts or is_loopback(name) or name == address or name in self.hosts

    def _same_site(self, origin: str, host: str) -> bool:
        try:
            site = urlsplit(origin)
            own = urlsplit(f"{site.scheme}://{host}")
            ports = {"http": 80, "https": 443}
            port, own_port = (parts.port or ports.get(parts.scheme) for parts in (site, own))
        except ValueError:
            return False
        if site.scheme not in ports:
            return False
        # A reverse proxy may replace the Host, but passes on the browser's Origin.
        is_public = site.hostname in self.hosts and port == ports[site.scheme]
        return is_public or (site.hostname, port) == (own.hostname, own_port)


LOOPBACK = Access()


def access(
    listens_on: str,
    allowed: Iterable[str] = (),
    keys: ApiKeys | None = None,
    buckets: Buckets | None = None,
) -> Access:
    """Creates the access rules of a server.

    Args:
        listens_on: the address that the server listens on.
        allowed: further host names.
        keys: the keys that requests must have.
        buckets: what is left of each client's rate.

    Raises:
        ValueError: an allowed name is not a host name or address.
    """
    hosts = set()
    for name in allowed:
        parsed = ANY if name == ANY else host_name(name)
        if parsed is None or (":" in name and "[" not in name and not _is_address(name)):
            raise ValueError(f"expected a host name or address without a port, found {name!r}")
        hosts.add(parsed)
    if listens_on not in _WILDCARDS:
        hosts.add(listens_on.lower())
    return Access(frozenset(host for host in hosts if not is_loopback(host)), keys, buckets)


def host_name(host: str | None) -> str | None:
    """Normalises a Host header: `[::1]:8000` → `::1`, `Localhost:80` → `localhost`, else None."""
    if host is None:
        return None
    if _is_address(host):
        return str(ipaddress.ip_address(host))
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.netloc != host or "@" in host or any(c.isspace() for c in host):
        return None
    name = name.removesuffix(".")
    return str(ipaddress.ip_address(name)) if _is_address(name) else name


def is_loopback(name: str) -> bool:
    """Whether a name or address always refers to the same machine."""
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _single_value(scope: Scope, header: bytes) -> str | None:
    """A header's value; None if it is missing, "" if it is repeated."""
    values = [value for name, value in scope["headers"] if name == header]
    if not values:
        return None
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _shown(host: str | None) -> str:
    if host is None:
        return "none"
    return repr(host if len(host) <= _SHOWN_CHARS else f"{host[: _SHOWN_CHARS - 1]}…")


class Guard:
    """Wraps an ASGI application in the checks. FastAPI's own middleware would be slower."""

    def __init__(self, app: App, metrics: Metrics, limits: Limits, access: Access) -> None:
        self._app, self._metrics, self._limits, self._access = app, metrics, limits, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        record = RequestRecord.begin(scope)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS, record.header]
            await send(message)

        self._metrics.running.inc()
        try:
            refusal = self._access.refusal(scope)
            if refusal is not None:
                await _refuse(send_with_headers, refusal)
            else:
                await self._within_limits(scope, receive, send_with_headers)
        finally:
            self._metrics.running.dec()
            # The route, not the path: unknown paths would create metrics without bound.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(scope["method"], route, str(status)).inc()
            seconds = time.perf_counter() - started
            self._metrics.seconds.labels(route).observe(seconds)
            record.log(scope, status, seconds)

    async def _within_limits(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        is_upload = headers.get(b"content-type", b"").lower().startswith(_MULTIPART)
        most = self._limits.upload_bytes if is_upload else self._limits.body_bytes
        refusal = Refusal(413, f"expected a body of at most {most:,} bytes, found more")
        try:
            stated = int(headers.get(b"content-length", b"0"))
        except ValueError:
            stated = 0
        if stated > most:
            await _refuse(send, refusal)
            return
        received, refused = 0, False

        async def receive_limited() -> Message:
            nonlocal received, refused
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                refused = True
                return {"type": "http.disconnect"}
            return message

        async def send_unless_refused(message: Message) -> None:
            if not refused:
                await send(message)

        try:
            await self._app(scope, receive_limited, send_unless_refused)
        except Exception:
            if not refused:
                raise
        if refused:
            await _refuse(send, refusal)


async def _refuse(send: Send, refusal: Refusal) -> None:
    body = as_json({"error": refusal.reason})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the rest of the request is not read
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Basic realm="rsicd-embed", charset="UTF-8"'))
    if refusal.wait_s:
        headers.append((b"retry-after", str(refusal.wait_s).encode()))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
