"""Checksums of a local LanceDB table's files, which LanceDB itself does not have.

A flipped bit in a table's file may crash the process, or change a row without an error. So each
write through rsicd-embed updates `TABLE.lance/_rsicd_embed.json`: the newest version, and the size
and CRC-32 of each file. Files that other programs add are listed after the next such write; files
that they clean up are not missed.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rsicd_embed import files
from rsicd_embed.errors import StoreCorruptError

FILE = "_rsicd_embed.json"
_TAGS = "_refs/"
_ROWS, _INDEXES = "data/", "_indices/"  # these folders may take long to read
# Suffixes of files that never change.
_SUFFIXES = (".manifest", ".txn", ".lance", ".arrow", ".bin", ".idx")
_BLOCK_BYTES = 1 << 20
_REMEDY = "restore it from a backup, or delete the table and ingest again"

_Sum = tuple[int, int]  # size and CRC-32


@dataclass(frozen=True)
class _Recorded:
    version: int
    files: Mapping[str, _Sum]


class Checksums:
    """Verifies each file of a table once."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is the table's; None for a remote table, which is not verified."""
        self._folder = folder
        self._verified: dict[str, _Sum] = {}
        self._latest: tuple[tuple[int, int, int], _Recorded] | None = None
        self._mutex = threading.RLock()

    def version(self) -> int:
        """The newest recorded version; 0 if there is none."""
        return self._read().version

    def verify_metadata(self) -> None:
        """Verifies the files that opening the table reads; StoreCorruptError if one is damaged."""
        names = self._read().files
        self._verify(name for name in names if not name.startswith((_ROWS, _INDEXES, _TAGS)))

    def verify_rows(self) -> None:
        """Verifies rows; StoreCorruptError if a file is damaged."""
        self._verify(name for name in self._read().files if name.startswith(_ROWS))

    def is_index_whole(self) -> bool:
        """Whether all recorded files of indexes are there, and none is damaged."""
        names = [name for name in self._read().files if name.startswith(_INDEXES)]
        try:
            self._verify(names, required=True)
        except StoreCorruptError:
            return False
        return True

    def verify_tags(self) -> None:
        """Verifies the tags' files; StoreCorruptError if one is damaged or missing."""
        names = [name for name in self._read().files if name.startswith(_TAGS)]
        for name in names:
            self._verified.pop(name, None)  # these files do change
        self._verify(names, required=True)

    def update(self, version: int) -> None:
        """Records the present files; the table must be locked. May raise OSError."""
        if self._folder is None:
            return
        with self._mutex:
            recorded: Mapping[str, _Sum] = {}
            with suppress(StoreCorruptError):
                recorded = self._read().files
            sums: dict[str, _Sum] = {}
            for name, entry in _entries(self._folder):
                size, known = entry.stat().st_size, recorded.get(name)
                if known and known[0] == size and not name.startswith(_TAGS):
                    sums[name] = known
                else:
                    sums[name] = self._verified[name] = _checksum(Path(entry.path))
            self._write(self._folder, _Recorded(version, sums))

    def forget_tag(self, tag: str) -> None:
        """Drops the record of a tag that is about to be deleted; see `update`."""
        with self._mutex:
            recorded, tag_file = self._read(), f"{_TAGS}tags/{tag}.json"
            if self._folder is not None and tag_file in recorded.files:
                sums = {name: value for name, value in recorded.files.items() if name != tag_file}
                self._write(self._folder, _Recorded(recorded.version, sums))

    def _write(self, folder: Path, recorded: _Recorded) -> None:
        body = {"version": recorded.version, "files": recorded.files}
        content = json.dumps({"crc32": _crc(body), "body": body}).encode()
        files.write_file(folder / FILE, lambda path: path.write_bytes(content))
        files.sync_folder(folder)

    def _verify(self, names: Iterable[str], *, required: bool = False) -> None:
        """Verifies files; a missing one counts as damage if `required`."""
        if self._folder is None:
            return
        with self._mutex:
            recorded = self._read().files
            for name in names:
                expected = recorded.get(name)
                if expected is None or self._verified.get(name) == expected:
                    continue
                path = self._folder / name
                try:
                    if path.stat().st_size != expected[0] or _checksum(path) != expected:
                        raise StoreCorruptError(
                            f"{path} is damaged: its checksum is not the recorded one; {_REMEDY}"
                        )
                except (FileNotFoundError, NotADirectoryError):
                    if required:
                        raise StoreCorruptError(f"{path} is gone; {_REMEDY}") from None
                    continue  # cleaned up; LanceDB reports it if it is needed
                self._verified[name] = expected

    def _read(self) -> _Recorded:
        if self._folder is None:
            return _Recorded(0, {})
        path = self._folder / FILE
        try:
            status = path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._latest and self._latest[0] == stamp:
                return self._latest[1]
            document = json.loads(path.read_bytes())
            body = document["body"]
            if document["crc32"] != _crc(body):
                raise ValueError("checksum")
            sums = {name: (int(size), int(crc)) for name, (size, crc) in body["files"].items()}
            recorded = _Recorded(int(body["version"]), sums)
            self._latest = stamp, recorded
            return recorded
        except (FileNotFoundError, NotADirectoryError):
            return _Recorded(0, {})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StoreCorruptError(
                f"{path} is damaged; delete it to use the table without checks"
            ) from None


def _entries(table: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The table's immutable files and its tags, by relative name."""
    start = len(str(table)) + 1
    for _, entries in files.walk(table):
        for entry in entries:
            name = entry.path[start:].replace(os.sep, "/")
            if name.endswith(_SUFFIXES) or (name.startswith(_TAGS) and entry.is_file()):
                yield name, entry


def _checksum(path: Path) -> _Sum:
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


def _crc(body: object) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())
