"""Atomic file writes (write aside, fsync, rename, fsync the folder) and other file helpers."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from rsicd_embed.errors import ModelError, StoreCorruptError, StoreError

TEMPORARY = ".tmp-"

# Signals that end a process at once by default; Windows has no SIGHUP.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

_REMEDIES = {
    errno.ENOSPC: "free some space and try again",
    errno.EDQUOT: "free some of your quota and try again",
    errno.EACCES: "make the folder writable or use another one",
    errno.EPERM: "make the folder writable or use another one",
    errno.EROFS: "use a folder on a writable file system",
    errno.EFBIG: "allow larger files (ulimit -f) or use another file system",
    errno.ENOENT: "check the path, whose folder must exist",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EMFILE: "allow more open files (ulimit -n) and try again",
}


def expanded(path: str | Path) -> Path:
    """A path with `~` expanded, or as it is without such a home folder, as in shells."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib raises an exception


def cache_folder() -> Path:
    """The cache folder, `$XDG_CACHE_HOME/rsicd-embed`; everything in it can be regenerated.

    Raises:
        StoreError: the variable is not set, and the user has no home folder.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    folder = Path(given) if given else expanded("~/.cache")
    if not (given or folder.is_absolute()):
        raise StoreError("expected a folder for caches, found no home folder; set XDG_CACHE_HOME")
    return folder / "rsicd-embed"


@dataclass(frozen=True)
class FileEntry:
    """Name, length in bytes and SHA-256 of a file as it was written."""

    name: str
    bytes: int
    sha256: str


@contextmanager
def storage_errors(failure: str) -> Iterator[None]:
    """Turns an OSError into a StoreError that begins with `failure` and suggests a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the disk and try again")
        reason = error.strerror or str(error) or type(error).__name__
        raise StoreError(f"{failure}: {reason}; {remedy}") from error


def system_error(message: str) -> OSError | None:
    """The operating system's error behind a message of a Rust library, or None.

    None is also returned for a missing file, since only the library knows whether it should exist.
    """
    match = re.search(r"\(os error (\d+)\)", message)
    number = int(match[1]) if match else errno.ENOENT
    return None if number == errno.ENOENT else OSError(number, os.strerror(number))


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Flushes a file to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries (new and renamed files) to disk."""
    if os.name == "posix":  # elsewhere folders cannot be opened and renames are synchronous
        sync_file(folder)


def walk(folder: Path) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """Yields `folder` and those below it, subfolders first, each with its entries.

    It takes a tenth of the time of building a path for each file. Folders that are gone are left
    out.
    """
    try:
        with os.scandir(folder) as reader:
            entries = list(reader)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path))
    yield folder, entries


def write_file(path: Path, write: Callable[[Path], object]) -> FileEntry:
    """Writes `path` atomically: `write` fills a temporary file, which is flushed and renamed.

    The folder is not flushed: call `sync_folder` after the last file of a change.

    Raises:
        OSError: the file cannot be written; an existing `path` is unchanged.
    """
    aside = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{path.name}")
    try:
        write(aside)
        sync_file(aside)
        entry = FileEntry(path.name, aside.stat().st_size, digest(aside))
        os.replace(aside, path)  # noqa: PTH105 (tests make it fail)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    return entry


def replace_file(path: Path, write: Callable[[Path], object]) -> FileEntry:
    """Writes `path` atomically and durably; on failure the previous file is restored.

    Raises:
        OSError: the file cannot be written; `path` is unchanged.
        StoreError: the folder cannot be flushed, and the previous file cannot be restored.
    """
    older = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-older")
    existed = path.exists()
    with suppress(OSError):  # some file systems have no links
        if existed:
            os.link(path, older)
    try:
        entry = write_file(path, write)
        try:
            sync_folder(path.parent)
        except OSError as error:
            with storage_errors(f"{path} is changed, but a power cut may undo that"):
                try:
                    if existed:
                        os.replace(older, path)  # noqa: PTH105
                    else:
                        path.unlink()
                except OSError:
                    raise error from None
            raise
    finally:
        with suppress(OSError):
            older.unlink()
    return entry


def verify(folder: Path, entry: FileEntry, remedy: str) -> Path:
    """Checks the length and SHA-256 of a file, and returns its path.

    Raises:
        FileNotFoundError: it is missing (a newer state of the store may have replaced it).
        StoreCorruptError: its length or content has changed.
    """
    path = folder / entry.name
    size = path.stat().st_size
    if size != entry.bytes:
        raise StoreCorruptError(
            f"{path} is damaged: expected {entry.bytes} bytes, found {size}; {remedy}"
        )
    if digest(path) != entry.sha256:
        raise StoreCorruptError(f"{path} is damaged: its SHA-256 has changed; {remedy}")
    return path


def make_folder(folder: Path) -> list[Path]:
    """Creates a folder and its missing parents; returns the created ones, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def remove_folders(folders: list[Path]) -> None:
    """Removes the folders created by `make_folder`, up to the first that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextmanager
def temporary_folder(
    prefix: str = "rsicd-embed-", parent: str | Path | None = None
) -> Iterator[Path]:
    """Yields a new folder that is removed after the block, also if a signal ends the process.

    Args:
        prefix: beginning of its name.
        parent: the folder to create it in; `TMPDIR` by default.
    """
    with _unwound(), tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder:
        yield Path(folder)


@contextmanager
def _unwound() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP raise SystemExit instead of ending the process at once."""
    usual = []
    if threading.current_thread() is threading.main_thread():
        usual = [n for n in _ENDING if signal.getsignal(n) == signal.SIG_DFL]
    try:
        for number in usual:
            signal.signal(number, _exit)
        yield
    finally:
        for number in usual:
            if signal.getsignal(number) == _exit:
                signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise SystemExit(128 + number)


class Closing:
    """Base class of objects that a `with` statement closes."""

    def close(self) -> None:
        """Releases files, processes and other resources."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object from a file of a model.

    Raises:
        ModelError: the file is missing or does not contain a JSON object.
    """
    if not path.is_file():
        raise ModelError(f"expected {path.name} in {path.parent}, found none")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
