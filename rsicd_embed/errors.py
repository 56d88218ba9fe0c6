"""Exceptions raised by rsicd-embed.

Every message is a single line: what was expected, what was found, and what to do about it.

    RsicdEmbedError
    ├── ArgumentError              an argument has the wrong type
    ├── ImageError                 an image cannot be read
    ├── FindError                  an image cannot be divided into the requested patches
    ├── DatasetError               a source of images or captions is missing or malformed
    ├── RemoteError                an object of a bucket or web server cannot be read
    │   ├── RemoteMissingError     there is no such object
    │   ├── RemoteChangedError     it changed while it was read
    │   └── RemoteAccessError      the bucket or the credentials are wrong, so nothing can be read
    ├── ModelError                 a model cannot be found or loaded
    │   └── WeightsError           its weights do not match its config
    ├── BenchError                 a benchmark or an evaluation cannot run
    ├── RequestError               the server cannot answer a request
    ├── WorkerError                a worker process cannot start, or has ended
    ├── TrainError                 training cannot start or continue
    │   ├── SettingError           a setting has an invalid value
    │   └── TrainStoppedError      a signal stopped the run, which can be resumed
    └── StoreError                 a store cannot be used
        ├── StoreURIError          the URI is invalid
        ├── StoreNotFoundError     there is no store at the URI
        ├── StoreLockedError       another process is writing to the store
        ├── StoreCorruptError      files of the store are damaged
        ├── FingerprintError       the store's vectors come from another model
        ├── SchemaError            rows or columns do not match the store
        ├── RowChangedError        a row has changed since it was read
        ├── QueryError             a query is invalid
        │   └── UnknownRowError    it refers to a row that the store lacks
        ├── FilterError            a `where` condition is invalid
        └── SQLError               a SQL query is invalid
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "BenchError",
    "DatasetError",
    "FilterError",
    "FindError",
    "FingerprintError",
    "ImageError",
    "ModelError",
    "QueryError",
    "RemoteAccessError",
    "RemoteChangedError",
    "RemoteError",
    "RemoteMissingError",
    "RequestError",
    "RowChangedError",
    "RsicdEmbedError",
    "SQLError",
    "SchemaError",
    "SettingError",
    "StoreCorruptError",
    "StoreError",
    "StoreLockedError",
    "StoreNotFoundError",
    "StoreURIError",
    "TrainError",
    "TrainStoppedError",
    "UnknownRowError",
    "WeightsError",
    "WorkerError",
]


class RsicdEmbedError(Exception):
    """Base class of all exceptions raised by rsicd-embed."""


class ArgumentError(RsicdEmbedError, TypeError):
    """An argument has the wrong type, such as a single item where a list is expected."""


class ImageError(RsicdEmbedError):
    """An image cannot be read: it is not an image, damaged, too large or of another format."""


class FindError(RsicdEmbedError):
    """An image cannot be divided into the requested patches."""


class DatasetError(RsicdEmbedError):
    """A source of images or captions is missing, empty or malformed."""


class RemoteError(RsicdEmbedError):
    """An object of a bucket or web server cannot be read."""


class RemoteMissingError(RemoteError):
    """There is no such object."""


class RemoteChangedError(RemoteError):
    """An object changed while it was read."""

    def __init__(self, message: str = "changed while it was read; run the same command again"):
        super().__init__(message)


class RemoteAccessError(RemoteError):
    """A bucket does not exist or refuses the credentials, so that none of its objects is read."""


class ModelError(RsicdEmbedError):
    """A model cannot be found or loaded."""


class WeightsError(ModelError):
    """The tensors of a checkpoint do not match its config: missing, unused or of other shapes."""


class TrainError(RsicdEmbedError):
    """Training cannot start or continue."""


class SettingError(TrainError):
    """A setting of a training run has an invalid value.

    Attributes:
        setting: name of the setting, possibly without the name of its section.
        problem: the expected and the actual value.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"expected {setting} {problem}")
        self.setting, self.problem = setting, problem


class TrainStoppedError(TrainError):
    """A signal stopped a training run. It was checkpointed and can be resumed."""


class RequestError(RsicdEmbedError):
    """The server cannot answer a request; `status` is the HTTP status code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class WorkerError(RsicdEmbedError):
    """A worker process cannot start, or has ended too often."""


class StoreError(RsicdEmbedError):
    """A store cannot be used."""


class StoreURIError(StoreError):
    """A store URI is invalid or has an unknown scheme."""


class StoreNotFoundError(StoreError):
    """There is no store at a URI opened for reading."""


class StoreLockedError(StoreError):
    """Another process is writing to the store."""


class StoreCorruptError(StoreError):
    """Files of a store are missing, truncated or altered."""


class FingerprintError(StoreError):
    """A store's vectors come from another model than the one it is opened with."""


class SchemaError(StoreError):
    """Rows lack columns that a store requires, or have columns of another type."""


class RowChangedError(StoreError):
    """A row has changed since it was read, so it was not written."""


class QueryError(StoreError):
    """A query is invalid: its vector, its parts, or k."""


class UnknownRowError(QueryError):
    """A query refers to the id of a row that the store lacks."""


class FilterError(StoreError):
    """A `where` condition has a syntax error, an unknown column or a wrong type."""


class SQLError(StoreError):
    """A SQL query has a syntax error, an unknown name or a wrong type, or would write data."""


class BenchError(RsicdEmbedError):
    """A benchmark cannot run, or its records are not comparable."""


def one_line(error: object, *, limit: int | None = None, empty: str | None = None) -> str:
    """The message of an error on one line.

    Args:
        error: an exception, or the text of one.
        limit: maximum length in characters; longer messages are cut.
        empty: the result for an error without a message; the name of its class if None.
    """
    text = " ".join(str(error).split())[:limit]
    return text or (type(error).__name__ if empty is None else empty)


def http_reason(status: int) -> str:
    """Explains the status of a failed web request."""
    if status in (401, 403):
        return f"it needs authentication (HTTP {status}); sign its URL, or download it"
    return f"it is gone (HTTP {status})" if status in (404, 410) else f"HTTP {status}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for libraries whose messages have many."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
