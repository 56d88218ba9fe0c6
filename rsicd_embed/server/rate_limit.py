"""A token bucket per client, in memory that all worker processes share."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import multiprocessing
import os
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from rsicd_embed.server.api_keys import ApiKeys

# 2 MiB. Two of a thousand clients share a bucket with a probability of 0.4% each.
_BUCKETS = 2**18


@dataclass(frozen=True)
class RateLimit:
    """A limit on the requests of each client.

    Attributes:
        per_s: tokens that a bucket gains per second; a request takes one.
        burst: tokens of a full bucket.
    """

    per_s: float
    burst: int

    def __str__(self) -> str:
        return f"{self.per_s:g} requests per second, or {self.burst} at once"


@dataclass(frozen=True)
class Buckets:
    """The buckets of all clients.

    A bucket is one number, the time at which it will be full again. So the memory does not grow
    with the clients, and needs no lock: if two workers take a token of one client at the same
    moment, one may be forgotten. A keyed hash assigns a client to a bucket.
    """

    limit: RateLimit
    full_at_s: Any = field(repr=False)  # a shared array of float64
    _salt: bytes = field(repr=False)

    @classmethod
    def of(cls, limit: RateLimit) -> Buckets:
        """Full buckets for any number of clients."""
        memory = multiprocessing.get_context("spawn").RawArray("d", _BUCKETS)
        return cls(limit, memory, os.urandom(16))

    def wait_s(self, client: bytes, now_s: Callable[[], float] = time.monotonic) -> int:
        """Takes a token of a client; returns 0, or the seconds to wait if there is none.

        Args:
            client: what identifies the client; see `client_of`.
            now_s: a clock that all workers share.
        """
        digest = hashlib.blake2b(client, key=self._salt, digest_size=8).digest()
        bucket, now = int.from_bytes(digest, "big") % _BUCKETS, now_s()
        full_at = max(self.full_at_s[bucket], now) + 1 / self.limit.per_s
        wait = full_at - now - self.limit.burst / self.limit.per_s
        if wait > 1e-9:  # of a second: rounding
            return math.ceil(wait)
        self.full_at_s[bucket] = full_at
        return 0


def client_of(scope: MutableMapping[str, Any], keys: ApiKeys | None) -> bytes:
    """Identifies the client of a request: its API key if that is accepted, else its address.

    The first 64 bits of an IPv6 address count, since a subscriber has all addresses below them.

    Args:
        scope: an ASGI scope of type http.
        keys: the accepted keys, if any.
    """
    key = keys.accepted(scope) if keys is not None else None
    if key is not None:
        return b"key " + key
    address = scope["client"][0] if scope.get("client") else ""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return b"name " + str(address).encode("utf-8", "replace")
    mapped = getattr(parsed, "ipv4_mapped", None)
    packed = (mapped or parsed).packed
    return b"address " + (packed[:8] if len(packed) == 16 else packed)
