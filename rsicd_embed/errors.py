"""Every error that rsicd-embed raises on purpose.

Each message is one line that states what was expected, what was found, and what to do.

    RsicdEmbedError
    ├── ArgumentError              an argument of a function is of the wrong type
    ├── ImageError                 an image cannot be read
    ├── FindError                  a picture cannot be cut into the patches asked for
    ├── DatasetError               a source of images or captions is not as described
    ├── ModelError                 a model directory or id cannot be used
    │   └── WeightsError           its weights do not fit its config
    ├── BenchError                 a benchmark or an evaluation cannot be run
    ├── RequestError               a request to the server cannot be answered
    ├── TrainError                 training cannot start or go on
    │   ├── SettingError           a setting has a value that it cannot have
    │   └── TrainStoppedError      a signal stopped it; it can be taken up again
    └── StoreError                 a store cannot be used
        ├── StoreURIError          its URI is not understood
        ├── StoreNotFoundError     there is no store at that URI
        ├── StoreLockedError       another process is writing to it
        ├── StoreCorruptError      its files are not what was written
        ├── FingerprintError       its vectors were made by another model
        ├── SchemaError            rows or columns do not fit it
        ├── QueryError             a query vector or k is not usable
        ├── FilterError            a `where` predicate is not usable
        └── SQLError               a SQL query is not usable
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
    "RequestError",
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
    "WeightsError",
]


class RsicdEmbedError(Exception):
    """Base of every error that rsicd-embed raises on purpose."""


class ArgumentError(RsicdEmbedError, TypeError):
    """An argument is of the wrong type: a single item for a list, a URI for a store."""


class ImageError(RsicdEmbedError):
    """An image cannot be read: not an image, truncated, too large, of a format not allowed."""


class FindError(RsicdEmbedError):
    """A picture cannot be cut into the patches asked for."""


class DatasetError(RsicdEmbedError):
    """A source of images or captions is missing, empty, or not as described."""


class ModelError(RsicdEmbedError):
    """A model directory or id cannot be found or used."""


class WeightsError(ModelError):
    """A checkpoint's tensors do not fit its config: some missing, unused or misshapen."""


class TrainError(RsicdEmbedError):
    """Training cannot start or go on."""


class SettingError(TrainError):
    """A setting of a training run has a value that it cannot have.

    Attributes:
        setting: its name, without that of its section where only the section is known.
        problem: what is expected of it, and what was found.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"expected {setting} {problem}")
        self.setting, self.problem = setting, problem


class TrainStoppedError(TrainError):
    """A signal stopped a run, which is checkpointed and can be taken up again."""


class RequestError(RsicdEmbedError):
    """A request to the server cannot be answered; `status` is HTTP's number for the reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class StoreError(RsicdEmbedError):
    """A store cannot be used."""


class StoreURIError(StoreError):
    """A store URI is not understood, or names an unknown scheme."""


class StoreNotFoundError(StoreError):
    """There is no store at a URI that is opened only for reading."""


class StoreLockedError(StoreError):
    """Another process is writing to the store."""


class StoreCorruptError(StoreError):
    """A store's files are missing, truncated or altered."""


class FingerprintError(StoreError):
    """A store's vectors were made by another model than the one it is opened with."""


class SchemaError(StoreError):
    """Rows handed to a store lack columns, or have columns of another type than it holds."""


class QueryError(StoreError):
    """A query vector or k is not usable."""


class FilterError(StoreError):
    """A `where` predicate has a syntax error, an unknown column or a wrong type."""


class SQLError(StoreError):
    """A SQL query has a syntax error, an unknown name or a wrong type, or would write."""


class BenchError(RsicdEmbedError):
    """A benchmark cannot be run, or what it compares is not the same thing."""


def one_line(error: object, *, limit: int | None = None, empty: str | None = None) -> str:
    """The message of an error on one line.

    Args:
        error: an exception, or the text of one.
        limit: maximum length in characters; longer messages are cut.
        empty: the result for an error without a message; the name of its class if None.
    """
    text = " ".join(str(error).split())[:limit]
    return text or (type(error).__name__ if empty is None else empty)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for libraries whose messages have many."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
