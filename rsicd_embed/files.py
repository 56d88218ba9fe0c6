"""Files that are there whole or not at all: write aside, fsync, rename, fsync the folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rsicd_embed.errors import ModelError, StoreCorruptError, StoreError

TEMPORARY = ".tmp-"

_REMEDIES = {
    errno.ENOSPC: "free some space and try again",
    errno.EDQUOT: "free some of your quota and try again",
    errno.EACCES: "make the folder writable or use another one",
    errno.EPERM: "make the folder writable or use another one",
    errno.EROFS: "use a folder on a writable file system",
    errno.EFBIG: "allow larger files (ulimit -f) or use another file system",
    errno.EMFILE: "allow more open files (ulimit -n) and try again",
}


def cache_folder() -> Path:
    """Where what can be made again is kept between runs: `$XDG_CACHE_HOME/rsicd-embed`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rsicd-embed"


@dataclass(frozen=True)
class FileEntry:
    """A file of a store as it was written: its name in the folder, length and SHA-256."""

    name: str
    bytes: int
    sha256: str


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turns an OSError into a one-line StoreError that starts with `doing` and says what to do."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the disk and try again")
        reason = error.strerror or str(error) or type(error).__name__
        raise StoreError(f"{doing}: {reason}; {remedy}") from error


def system_error(message: str) -> OSError | None:
    """The error of the operating system that a library in Rust reports; None for any other.

    A file that is missing counts as another: only the library knows whether it should be there.
    """
    found = re.search(r"\(os error (\d+)\)", message)
    number = int(found[1]) if found else errno.ENOENT
    return None if number == errno.ENOENT else OSError(number, os.strerror(number))


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Returns once the file's bytes are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Returns once the folder's names (renames, new files) are on the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened, and renames are synchronous
        sync_file(folder)


def write_file(path: Path, write: Callable[[Path], object]) -> FileEntry:
    """Makes `path` in one step: `write` fills a file beside it, which is synced and renamed.

    The folder itself is not synced: call `sync_folder` once the last file of a change is there.

    Raises:
        OSError: from the disk; nothing is left behind and an older `path` stays as it was.
    """
    aside = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{path.name}")
    try:
        write(aside)
        sync_file(aside)
        entry = FileEntry(path.name, aside.stat().st_size, digest(aside))
        os.replace(aside, path)  # noqa: PTH105 (one name for the tests to make fail)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    return entry


def replace_file(path: Path, write: Callable[[Path], object]) -> FileEntry:
    """`write_file`, then the folder synced; where that fails, what was there before is put back.

    Raises:
        OSError: from the disk; `path` is as it was.
        StoreError: from the disk, which did not let it be put back either.
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
    """The path of a file that is still what was written.

    Raises:
        FileNotFoundError: it is gone (a newer state of the store may have replaced it).
        StoreCorruptError: its length or content has changed.
    """
    path = folder / entry.name
    size = path.stat().st_size
    if size != entry.bytes:
        raise StoreCorruptError(
            f"{path} is damaged: expected {entry.bytes} bytes, found {size}; {remedy}"
        )
    if digest(path) != entry.sha256:
        raise StoreCorruptError(f"{path} is damaged: its SHA-256 is not what was written; {remedy}")
    return path


def make_folder(folder: Path) -> list[Path]:
    """Makes `folder` and its missing parents; returns those it made, the innermost first."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def remove_folders(made: list[Path]) -> None:
    """Takes back what `make_folder` made, as far as it is still empty."""
    with suppress(OSError):
        for folder in made:
            folder.rmdir()


class Closing:
    """What has a `close` can be used in a `with` statement."""

    def close(self) -> None:
        """Lets go of what is held."""

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
    """A JSON object from a file.

    Raises:
        ModelError: it is missing or is no JSON object.
    """
    if not path.is_file():
        raise ModelError(f"expected {path.name} in {path.parent}, found none")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
