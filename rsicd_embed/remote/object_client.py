"""S3, Google Cloud Storage and Azure Blob Storage through obstore."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rsicd_embed.errors import (
    RemoteAccessError,
    RemoteChangedError,
    RemoteError,
    RemoteMissingError,
    one_line,
)
from rsicd_embed.remote.byte_budget import Reservation
from rsicd_embed.remote.client import Content, RemoteObject, TransientError
from rsicd_embed.remote.failure_reasons import (
    ANONYMOUS,
    CREDENTIALS,
    FailureKind,
    request_failure,
)
from rsicd_embed.remote.remote_url import RemoteUrl

if TYPE_CHECKING:
    from obstore.store import ObjectStore

RETRIES: dict[str, Any] = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=90),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=8),
        "base": 2,
    },
}
_PAGE = 1000


class ObjectClient:
    """Requests to one bucket."""

    def __init__(self, scheme: str, bucket: str) -> None:
        """Opens a bucket; nothing is requested yet.

        Raises:
            RemoteAccessError: no credentials are found, and anonymous access was not requested.
            RemoteError: obstore is missing, or the bucket's name is invalid.
        """
        try:
            import obstore
        except ImportError as error:
            raise RemoteError(
                f"{scheme}:// needs obstore; pip install 'rsicd-embed[remote]'"
            ) from error
        self._obstore: Any = obstore
        self._scheme, self._bucket = scheme, bucket
        try:
            self._store = _open(scheme, bucket)
        except Exception as error:
            self._raise(error, RemoteUrl(scheme, bucket, ""))

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
        """Reads an object or a range of it; see `client.Client`."""
        options: dict[str, Any] = {}
        if span:
            options["range"] = span
        if etag and not _is_substitute(etag):
            options["if_match"] = _quoted(etag)
        if known and not _is_substitute(known):
            options["if_none_match"] = _quoted(known)
        try:
            result = self._obstore.get(self._store, url.key, options=options)
            described = _described(url, result.meta)
            if known and described.etag == known:
                return None
            if etag and described.etag != etag:
                raise RemoteChangedError
            first, stop = result.range
            if most_bytes is not None and stop - first > most_bytes:
                raise RemoteError(f"has more than {most_bytes:,} bytes")
            if reservation:
                reservation.take(stop - first)
            data = bytes(result.bytes())
        except RemoteError:
            raise
        except Exception as error:
            if isinstance(error, self._obstore.exceptions.NotModifiedError):
                return None
            self._raise(error, url)
        if len(data) != stop - first:
            raise TransientError("the transfer broke off")
        return Content(data, described)

    def head(self, url: RemoteUrl) -> RemoteObject:
        """Describes an object."""
        try:
            return _described(url, self._obstore.head(self._store, url.key))
        except Exception as error:
            self._raise(error, url)

    def list(self, url: RemoteUrl, unlisted: Callable[[str, str], None]) -> Iterator[RemoteObject]:
        """Yields the objects below a folder; see `client.Client`.

        A key that obstore cannot express, such as `a//b`, makes whole pages unreadable. The
        folders around it are then listed one by one, and only its own folder is left out.
        """
        prefix = url.key.strip("/")
        yielded = ""
        try:
            for page in self._obstore.list(self._store, prefix or None, chunk_size=_PAGE):
                for meta in page:
                    yielded = meta["path"]
                    yield _described(url.with_key(yielded), meta)
        except Exception as error:
            if not self._is_odd_key(error):
                self._raise(error, url)
        else:
            return
        for described in self._list_by_folder(url.with_key(prefix), unlisted):
            if RemoteUrl.parse(described.url).key > yielded:
                yield described

    def _list_by_folder(
        self, url: RemoteUrl, unlisted: Callable[[str, str], None]
    ) -> Iterator[RemoteObject]:
        try:
            listed = self._obstore.list_with_delimiter(self._store, url.key or None)
        except Exception as error:
            if not self._is_odd_key(error):
                self._raise(error, url)
            unlisted(f"{url}/", f"not listed: {_odd_key(error)}")
            return
        entries = [(meta["path"], meta) for meta in listed["objects"]]
        entries += [(f"{prefix}/", None) for prefix in listed["common_prefixes"]]
        for key, meta in sorted(entries, key=lambda entry: entry[0]):
            if meta is None:
                yield from self._list_by_folder(url.with_key(key.rstrip("/")), unlisted)
            else:
                yield _described(url.with_key(key), meta)

    def _is_odd_key(self, error: Exception) -> bool:
        invalid = self._obstore.exceptions.InvalidPathError
        return isinstance(error, invalid) or "Could not parse path" in str(error)

    def _raise(self, error: Exception, url: RemoteUrl) -> NoReturn:
        raise _readable(error, url, odd_key=self._is_odd_key(error)) from None


def _open(scheme: str, bucket: str) -> ObjectStore:
    from obstore import store

    anonymous = is_anonymous()
    config: dict[str, Any] = {"skip_signature": True} if anonymous else {}
    options: dict[str, Any] = {"connect_timeout": "10s", "timeout": "300s"}
    retries: Any = RETRIES
    if scheme == "gs":
        return store.GCSStore(bucket, config=config, client_options=options, retry_config=retries)  # type: ignore[arg-type]
    if scheme == "az":
        return store.AzureStore(bucket, config=config, client_options=options, retry_config=retries)  # type: ignore[arg-type]
    if endpoint := s3_endpoint():
        config["endpoint"] = endpoint
        options["allow_http"] = endpoint.startswith("http://")
    provider: Any = None if anonymous else _aws_credentials(config)
    return store.S3Store(
        bucket,
        config=config,  # type: ignore[arg-type]
        client_options=options,  # type: ignore[arg-type]
        retry_config=retries,
        credential_provider=provider,
    )


def s3_endpoint() -> str | None:
    """The URL of a server with the API of S3, such as MinIO; None for Amazon's."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((value for name in names if (value := os.environ.get(name))), None)


def is_anonymous() -> bool:
    """Whether buckets are read without credentials."""
    return os.environ.get(ANONYMOUS, "").lower() in ("1", "true", "yes")


def _aws_credentials(config: dict[str, Any]) -> Any:
    """A provider of boto3's credentials; None if obstore finds some itself.

    obstore reads the environment and queries the machine, but has no profiles or single sign-on.

    Raises:
        RemoteAccessError: there are none anywhere.
    """
    own = ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    machine = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if any(os.environ.get(name) for name in own + machine):
        return None
    on_amazon = _is_amazon_machine()
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        remedy = "; install boto3 for profiles of ~/.aws"
    else:
        session = boto3.Session()
        # Off Amazon's machines, asking for an instance's role takes seconds and fails.
        if (on_amazon or _has_profiles()) and session.get_credentials() is not None:
            if session.region_name:
                config["region"] = session.region_name
            return Boto3CredentialProvider(session)
        remedy = ""
    if on_amazon:
        return None
    raise RemoteAccessError(
        f"expected credentials of {CREDENTIALS['s3']}, found none{remedy}; for a public bucket "
        f"set {ANONYMOUS}=1"
    )


def _has_profiles() -> bool:
    given = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_PROFILE")
    folder = Path(os.path.expanduser("~/.aws"))  # noqa: PTH111 - which need not exist
    files = (folder / "credentials", folder / "config")
    return any(os.environ.get(name) for name in given) or any(map(Path.exists, files))


def _is_amazon_machine() -> bool:
    try:
        vendor = Path("/sys/class/dmi/id/sys_vendor").read_text("utf-8")
    except OSError:
        return False
    return vendor.startswith("Amazon") or "Xen" in vendor


def _described(url: RemoteUrl, meta: Mapping[str, Any]) -> RemoteObject:
    etag = (meta.get("e_tag") or "").strip('"')
    if not etag:
        etag = f"{meta['size']}@{meta['last_modified'].timestamp():.3f}"
    return RemoteObject(str(url), meta["size"], etag)


def _is_substitute(etag: str) -> bool:
    return "@" in etag


def _quoted(etag: str) -> str:
    return etag if etag.startswith("W/") else f'"{etag}"'


def _readable(error: Exception, url: RemoteUrl, *, odd_key: bool) -> RemoteError:
    """Rewrites an error of obstore, which quotes URLs, headers and documents of the server."""
    text = str(error).partition("Debug source")[0]
    if odd_key:
        return RemoteError(_odd_key(error))
    failure = request_failure(text, f"{url.scheme}://{url.container}")
    match failure and failure.kind:
        case None:
            if isinstance(error, FileNotFoundError):
                return RemoteMissingError("no such object")
            reason = re.sub(r"https?://\S+", "…", re.sub(r"^Generic \w+ error: ", "", text))
            return RemoteError(one_line(reason, limit=200))
        case FailureKind.MISSING:
            kind: type[RemoteError] = RemoteMissingError
        case FailureKind.CHANGED:
            return RemoteChangedError()
        case FailureKind.ACCESS:
            kind = RemoteAccessError
        case FailureKind.TRANSIENT:
            kind = TransientError
        case _:
            kind = RemoteError
    assert failure is not None
    return kind(failure.reason)


def _odd_key(error: Exception) -> str:
    match = re.search(r'[Pp]ath:? "(.*?)"', str(error), re.DOTALL)
    named = f"the key {match[1]!r}" if match else "a key"
    return f"expected no empty parts, '.', '..' or control characters in {named}; rename it"
