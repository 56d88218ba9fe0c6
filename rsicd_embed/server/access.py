"""Which requests are the operator's: by the host that they name and the site that they come from.

A web page anywhere can make a browser send requests to this machine. One that rebinds its own DNS
name to 127.0.0.1 is, to the browser, of the same origin as this server and could read every answer;
but it cannot change the Host header, which still names the page's site. A page that sends requests
to another origin cannot read the answers, but makes the server work; its Origin header names it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ANY = "*"
_WILDCARDS = ("0.0.0.0", "::")
_SHOWN = 80


@dataclass(frozen=True)
class Access:
    """The hosts that requests may name besides loopback ones and the address that they reached.

    Attributes:
        hosts: names or addresses in lower case, without a port; `*` for any.
    """

    hosts: frozenset[str] = frozenset()

    def refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
        """The status and the reason with which to refuse a request; None to accept it.

        Args:
            scope: of ASGI, of type http.
        """
        host = _only(scope, b"host")
        name = host_name(host)
        if not self._allows(name, scope):
            known = ", ".join(["localhost", *sorted(self.hosts)])
            hint = f"; to serve that name, start with --allowed-host {name}" if name else ""
            return 421, f"expected a Host of {known}, found {_shown(host)}{hint[:300]}"
        origin = _only(scope, b"origin")
        if origin is not None and not self._same_site(origin, str(host)):
            return 403, f"expected a request of this server's own page, found Origin {origin!r:.80}"
        return None

    def _allows(self, name: str | None, scope: MutableMapping[str, Any]) -> bool:
        if name is None:
            return False
        server = scope.get("server")
        reached = server[0] if server else None
        return ANY in self.hosts or is_loopback(name) or name == reached or name in self.hosts

    def _same_site(self, origin: str, host: str) -> bool:
        try:
            site = urlsplit(origin)
            own = urlsplit(f"{site.scheme}://{host}")
            ports = {"http": 80, "https": 443}
            port, own_port = (one.port or ports.get(one.scheme) for one in (site, own))
        except ValueError:
            return False
        if site.scheme not in ports:
            return False
        # A proxy in front may pass its own Host on, but the browser's Origin.
        public = site.hostname in self.hosts and port == ports[site.scheme]
        return public or (site.hostname, port) == (own.hostname, own_port)


# For a server that nothing is said about.
LOOPBACK = Access()


def access(listens_on: str, allowed: Iterable[str] = ()) -> Access:
    """What a server may be called that listens on an address.

    Raises:
        ValueError: one of the allowed names is not a host name or address.
    """
    hosts = set()
    for name in allowed:
        parsed = ANY if name == ANY else host_name(name)
        if parsed is None or (":" in name and "[" not in name and not _is_address(name)):
            raise ValueError(f"expected a host name or address without a port, found {name!r}")
        hosts.add(parsed)
    if listens_on not in _WILDCARDS:
        hosts.add(listens_on.lower())
    return Access(frozenset(host for host in hosts if not is_loopback(host)))


def host_name(host: str | None) -> str | None:
    """`[::1]:8000` → `::1`, `Localhost:80` → `localhost`; None for what is not a host."""
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
    """Whether a name or address is always this machine's own."""
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _only(scope: MutableMapping[str, Any], header: bytes) -> str | None:
    """A header's value; None where there is none, "" where there are several."""
    values = [value for name, value in scope["headers"] if name == header]
    if not values:
        return None
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _shown(host: str | None) -> str:
    if host is None:
        return "none"
    return repr(host if len(host) <= _SHOWN else f"{host[: _SHOWN - 1]}…")
