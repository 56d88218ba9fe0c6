"""URLs of objects. Secrets in them stay in this process's memory.

The rest of the package, its stores, messages and errors see public addresses only: URLs without
user names, passwords, signatures and tokens.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from rsicd_embed.errors import RemoteError

SCHEMES = ("s3", "gs", "az", "http", "https")
_WEB = ("http", "https")
_URL = re.compile(rf"(?:{'|'.join(SCHEMES)})://", re.IGNORECASE)
# A URL that `Path` has shortened to one slash.
_COLLAPSED = re.compile(rf"({'|'.join(SCHEMES)}):/(?=[^/])", re.IGNORECASE)
# Parameters by which signed URLs are known, and others that change with each signature.
_SIGNATURE = re.compile(r"(?:x-(?:amz|goog)-)?(?:signature|credential)|sig", re.IGNORECASE)
_SIGNED = re.compile(
    r"x-(?:amz|goog)-.+|(?:aws|google)access(?:key)?id|key-pair-id|policy|exp(?:ires|iry)?|"
    r"response-.+|s[eiprtv]|ss|srt|spr|sdd|ses|sk[estv]|skoid|sktid|rsc[cdelt]",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"(?:access[_-]?)?token|api[_-]?key|(?:subscription|client|auth)?-?key|auth|password|secret",
    re.IGNORECASE,
)

# Names an object instead, as in `?key=tiles/a.png`.
_OBJECT_KEY = re.compile(r"key=.*\.[a-z]\w{1,4}", re.IGNORECASE)

# Public address → the URL as it was given; for this process only.
_given: dict[str, str] = {}


@dataclass(frozen=True)
class RemoteUrl:
    """A public URL in parts.

    Attributes:
        scheme: one of `SCHEMES`.
        container: bucket, container or host.
        key: key of an object or prefix of a folder, as it is; of a web address, path and query.
    """

    scheme: str
    container: str
    key: str

    @classmethod
    def parse(cls, url: str) -> RemoteUrl:
        """Splits a URL.

        Raises:
            RemoteError: it has no bucket or host.
        """
        scheme, _, rest = url.partition("://")
        container, _, key = rest.partition("/")
        if not container:
            raise RemoteError(f"expected a bucket or host after {scheme}://, found none")
        return cls(scheme.lower(), container, key)

    @property
    def is_web(self) -> bool:
        """Whether it is an address of the web, not of an object store."""
        return self.scheme in _WEB

    @property
    def path(self) -> str:
        """The key without the query of a web address."""
        return self.key.partition("?")[0] if self.is_web else self.key

    def with_key(self, key: str) -> RemoteUrl:
        """Another object of the same bucket or host."""
        return replace(self, key=key)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.container}/{self.key}"


def is_remote(address: str) -> bool:
    """Whether an address is read through this package."""
    return _URL.match(address) is not None


def address_of(path: str | Path) -> str:
    """A path or URL as text; a URL that went through `Path` gets its second slash back."""
    text = str(path)
    if _COLLAPSED.match(text) and not os.path.lexists(text):
        return _COLLAPSED.sub(r"\1://", text, count=1)
    return text


def public_address(url: str) -> str:
    """A URL without its secrets, which are kept for the requests of this process.

    Parameters that change with each signature are left out, too, so that an image that is signed
    again has the same address.

    Raises:
        RemoteError: it is malformed, has credentials of an object store, or differs from another
            one of this process in its `key` only.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its message may quote a password
        raise RemoteError("expected a URL, found a malformed one; check its host") from None
    if parts.scheme.lower() not in _WEB:
        if "@" in parts.netloc:
            raise RemoteError(
                f"expected {parts.scheme}://BUCKET/KEY, found credentials in the URL; give them in "
                "the environment or the provider's configuration"
            )
        return url
    host = parts.netloc.rpartition("@")[2]
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    is_signed = any(_SIGNATURE.fullmatch(name) for name in names)
    query = "&".join(
        part for part in parts.query.split("&") if not _is_secret(part, is_signed=is_signed)
    )
    public = urlunsplit((parts.scheme.lower(), host, parts.path or "/", query, ""))
    if public != url:
        given = urlunsplit((*parts[:4], ""))
        if _keys(given) != _keys(_given.get(public, given)):
            raise RemoteError(
                f"expected addresses that differ in more than `key`, which may be a secret and is "
                f"left out, found two of {public}; download the images"
            )
        _given[public] = given
    return public


def _is_secret(part: str, *, is_signed: bool) -> bool:
    """Whether a part of a query, such as `token=abc`, is secret or changes with a signature."""
    name = part.partition("=")[0]
    if _SIGNATURE.fullmatch(name) or (is_signed and _SIGNED.fullmatch(name)):
        return True
    return _TOKEN.fullmatch(name) is not None and not _OBJECT_KEY.fullmatch(part)


def _keys(url: str) -> list[str]:
    """The values of the parameter `key`, which may be a secret or name an object."""
    return [value for name, value in parse_qsl(urlsplit(url).query) if name.lower() == "key"]


def given_url(public: str) -> str:
    """The URL to request for a public address."""
    return _given.get(public, public)
