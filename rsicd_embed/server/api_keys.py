"""API keys: clients send one as a bearer token, browsers as the password of a login."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsicd_embed.errors import RsicdEmbedError, one_line

ENVIRONMENT = "RSICD_EMBED_API_KEY"
LEAST_CHARS = 16
# Probes of a container have no key, and learn nothing about the store.
OPEN = ("/healthz", "/readyz")


@dataclass(frozen=True, repr=False)
class ApiKeys:
    """The accepted keys, as SHA-256 digests; several during a rotation."""

    digests: tuple[bytes, ...]

    @classmethod
    def of(cls, keys: Iterable[str]) -> ApiKeys:
        """The digests of keys.

        Raises:
            RsicdEmbedError: a key is short or not printable ASCII, or there is none.
        """
        given = tuple(keys)
        if not given:
            raise RsicdEmbedError("expected at least one API key, found none")
        for key in given:
            if len(key) < LEAST_CHARS or not key.isascii() or not key.isprintable():
                raise RsicdEmbedError(
                    f"expected API keys of at least {LEAST_CHARS} printable ASCII characters, "
                    f"found one of {len(key)}; make one with: openssl rand -hex 24",
                )
        return cls(tuple(map(_digest, given)))

    def admits(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether a request has a key, or asks for the health of the server.

        Args:
            scope: an ASGI scope of type http.
        """
        return scope["path"] in OPEN or self.accepted(scope) is not None

    def accepted(self, scope: MutableMapping[str, Any]) -> bytes | None:
        """The digest of a request's key; None if it has none that is accepted."""
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        key = _key(values[0]) if len(values) == 1 else None
        if key is None:
            return None
        digest = _digest(key)
        # All are compared, so that the time does not tell which one is close.
        equal = sum(hmac.compare_digest(digest, known) for known in self.digests)
        return digest if equal else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _key(header: bytes) -> str | None:
    """The key in an Authorization header: a bearer token, or the password of a login."""
    scheme, _, value = header.decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        login = base64.b64decode(value.strip(), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None
    return login.partition(":")[2]


def configured(file: Path | None) -> ApiKeys | None:
    """The keys of a file or of the environment; None if there are none, so that none is needed.

    Args:
        file: a key per line; blank lines and lines that begin with `#` are ignored.

    Raises:
        RsicdEmbedError: the file cannot be read, or a key is unsuitable.
    """
    if file is None:
        key = os.environ.get(ENVIRONMENT)
        return None if key is None else ApiKeys.of([key])
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise RsicdEmbedError(f"expected API keys in {file}: {reason}") from error
    return ApiKeys.of(line for line in lines if line and not line.startswith("#"))
