"""Files of web servers, through httpx."""

from __future__ import annotations

import logging
import netrc
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rsicd_embed.errors import (
    RemoteAccessError,
    RemoteChangedError,
    RemoteError,
    RemoteMissingError,
    one_line,
)
from rsicd_embed.remote.byte_budget import THREADS, Reservation
from rsicd_embed.remote.client import Content, RemoteObject, TransientError
from rsicd_embed.remote.remote_url import RemoteUrl, given_url

if TYPE_CHECKING:
    from httpx import Auth

_MISSING = (404, 410)
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_PAUSE_S = 20.0
_IDENTITY = {"Accept-Encoding": "identity", "User-Agent": "rsicd-embed"}

# It logs requested URLs, which may be signed.
logging.getLogger("httpx").setLevel(logging.WARNING)


class WebClient:
    """Requests to web servers; connections are kept."""

    def __init__(self) -> None:
        try:
            import httpx
        except ImportError as error:
            raise RemoteError(
                "http:// and https:// need httpx; pip install 'rsicd-embed[remote]'"
            ) from error
        self._httpx = httpx
        self._client = httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(60.0, connect=10.0),
            limits=httpx.Limits(max_connections=2 * THREADS, max_keepalive_connections=THREADS),
            headers=_IDENTITY,
        )
        self._passwords, _ = _read_netrc()

    def get(
        self,
        url: RemoteUrl,
        *,
        span: tuple[int, int] | None = None,
        etag: str = "",
        known: str = "",
        most_bytes: int | None = None,
        reservation: Reservation | None = None,
    ) -> Content | None:
        """Reads a file or a range of it; see `client.Client`."""
        headers = {"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else {}
        if known and "@" not in known:
            headers["If-None-Match"] = known if known.startswith("W/") else f'"{known}"'
        with (
            self._failures(),
            self._client.stream(
                "GET", given_url(str(url)), headers=headers, auth=self._login(url)
            ) as response,
        ):
            if response.status_code == 304:
                return None
            _require_success(response.status_code, url, response.headers)
            described = _described(url, response.headers, ranged=response.status_code == 206)
            if known and described.etag == known:
                return None
            if etag and described.etag != etag:
                raise RemoteChangedError
            if span and response.status_code != 206:
                raise RemoteError("its server does not serve parts of files; download it first")
            is_encoded = response.headers.get("content-encoding", "identity") != "identity"
            if span and (is_encoded or not _has_start(response.headers, span[0])):
                raise RemoteError(
                    "its server sends another part of the file than requested; download it first"
                )
            length = 0 if is_encoded else int(response.headers.get("content-length") or 0)
            if reservation:
                reservation.take(length)
            blocks, size = [], 0
            for block in response.iter_bytes():  # some servers compress without being asked
                size += len(block)
                if most_bytes is not None and max(size, length) > most_bytes:
                    raise RemoteError(f"has more than {most_bytes:,} bytes")
                blocks.append(block)
        data = b"".join(blocks)
        if length and len(data) != length:
            raise TransientError("the transfer broke off")
        return Content(data, described)

    def head(self, url: RemoteUrl) -> RemoteObject:
        """Describes a file."""
        with self._failures():
            response = self._client.head(given_url(str(url)), auth=self._login(url))
        if response.status_code in (403, 405, 501):  # signed for GET, or not implemented
            with (
                self._failures(),
                self._client.stream(
                    "GET",
                    given_url(str(url)),
                    headers={"Range": "bytes=0-0"},
                    auth=self._login(url),
                ) as first,
            ):
                _require_success(first.status_code, url, first.headers)
                return _described(url, first.headers, ranged=first.status_code == 206)
        _require_success(response.status_code, url, response.headers)
        return _described(url, response.headers, ranged=False)

    def list(self, url: RemoteUrl, unlisted: Callable[[str, str], None]) -> Iterator[RemoteObject]:
        """Refuses: web servers have no common way to list files."""
        raise RemoteError(
            "folders of web servers cannot be listed; give a manifest, a .tar or a .parquet file, "
            "or the address of an image"
        )

    def _login(self, url: RemoteUrl) -> Auth:
        """The user and password of a URL, or else of its host in the netrc file."""
        given = self._httpx.URL(given_url(str(url)))
        if given.userinfo:
            return self._httpx.BasicAuth(given.username, given.password)
        entry = self._passwords.authenticators(given.host) if self._passwords else None
        return self._httpx.BasicAuth(entry[0], entry[2] or "") if entry else self._httpx.Auth()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Rewrites errors of httpx, which quote URLs."""
        try:
            yield
        except self._httpx.TransportError as error:
            raise TransientError(
                f"the connection failed or broke off ({type(error).__name__}); check the network "
                "and the server"
            ) from None
        except (self._httpx.HTTPError, self._httpx.InvalidURL, UnicodeError) as error:
            raise RemoteError(f"cannot be requested ({type(error).__name__})") from None


def _read_netrc() -> tuple[netrc.netrc | None, str]:
    """The passwords of `~/.netrc` or of the file NETRC, and what to do about a missing one."""
    path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")  # noqa: PTH111
    if not Path(path).exists():
        return None, f"give it in {path}"
    try:
        return netrc.netrc(path), f"check that of its host in {path}"
    except (OSError, UnicodeError) as error:
        reason = one_line(error, limit=100)
    except netrc.NetrcParseError as error:  # its message may quote a password
        reason = f"malformed at line {error.lineno}"
    return None, f"{path} cannot be read ({reason}); correct it"


def _require_success(status: int, url: RemoteUrl, headers: Mapping[str, str]) -> None:
    if status in (200, 206):
        return
    if status in _MISSING:
        raise RemoteMissingError("no such file on the server")
    if status == 401:
        raise RemoteAccessError(
            f"{url.scheme}://{url.container} asks for a password; {_read_netrc()[1]}"
        )
    if status == 403:
        raise RemoteError("the server denies access; a signed address may have expired")
    if status == 416:
        raise RemoteError("ends too early; it has changed, or is truncated")
    if status in _BUSY:
        _wait(headers)
        raise TransientError(f"the server answered {status}; try again later")
    raise RemoteError(f"the server answered {status}")


def _wait(headers: Mapping[str, str]) -> None:
    """Waits as long as a busy server requests."""
    delay = headers.get("retry-after", "")
    if delay.isdigit():
        time.sleep(min(float(delay), _LONGEST_PAUSE_S))


def _has_start(headers: Mapping[str, str], start: int) -> bool:
    """Whether a part of a file begins at a byte."""
    return re.match(rf"bytes {start}-", headers.get("content-range", "")) is not None


def _described(url: RemoteUrl, headers: Mapping[str, str], *, ranged: bool) -> RemoteObject:
    total = headers.get("content-range", "").rpartition("/")[2] if ranged else None
    text = total or headers.get("content-length") or ""
    size = int(text) if text.isdigit() else None
    etag = headers.get("etag", "")
    etag = etag if etag.startswith("W/") else etag.strip('"')
    modified = headers.get("last-modified", "")
    if not etag and modified and size is not None:
        with suppress(ValueError):  # not a date
            etag = f"{size}@{parsedate_to_datetime(modified).timestamp():.3f}"
    return RemoteObject(str(url), size, etag)
