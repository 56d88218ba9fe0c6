"""Checksums of a local LanceDB table's files, which LanceDB itself does not keep.

A changed bit in a file of a table may stop the process, or change a row, without a word. So each
write through rsicd-embed leaves `TABLE.lance/_rsicd_embed.json`: the newest version, and the length
and CRC-32 of each file. Files that other programs add are not in it until the next such write, and
those that they tidy away are not missed.
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
_LARGE = ("data/", "_indices/")  # parts that may take long to read
_SUFFIXES = {".manifest", ".txn", ".lance", ".arrow", ".bin", ".idx"}  # which never change
_BLOCK_BYTES = 1 << 20
_REMEDY = "restore it from a backup, or delete the table and ingest again"

_Sum = tuple[int, int]  # length and CRC-32


@dataclass(frozen=True)
class _Known:
    version: int
    files: Mapping[str, _Sum]


class Checks:
    """Verifies a table's files, each once."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is the table's own; None where it is remote, and nothing is verified."""
        self._folder = folder
        self._verified: dict[str, _Sum] = {}
        self._mutex = threading.RLock()

    def version(self) -> int:
        """The newest version that is known of; 0 where none is."""
        return self._read().version

    def small(self) -> None:
        """Verifies what is read whenever a table is opened.

        Raises:
            StoreCorruptError: a file is not what was written.
        """
        names = self._read().files
        self._verify(name for name in names if not name.startswith((*_LARGE, _TAGS)))

    def large(self) -> None:
        """Verifies rows and indexes; see `small`."""
        self._verify(name for name in self._read().files if name.startswith(_LARGE))

    def tags(self) -> None:
        """Verifies what tags say, and that none is gone; see `small`."""
        names = [name for name in self._read().files if name.startswith(_TAGS)]
        for name in names:
            self._verified.pop(name, None)  # these files do change
        self._verify(names, gone=True)

    def renew(self, version: int) -> None:
        """Takes down the files that are there now; only while the table is locked.

        Raises:
            OSError: from the disk.
        """
        if self._folder is None:
            return
        with self._mutex:
            older: Mapping[str, _Sum] = {}
            with suppress(StoreCorruptError):
                older = self._read().files
            found: dict[str, _Sum] = {}
            for name, path in _paths(self._folder):
                size = path.stat().st_size
                if name in older and older[name][0] == size and not name.startswith(_TAGS):
                    found[name] = older[name]
                else:
                    found[name] = self._verified[name] = _sum(path)
            self._write(self._folder, _Known(version, found))

    def forget_tag(self, tag: str) -> None:
        """Lets a tag's file go, before it does; only while the table is locked.

        Raises:
            OSError: from the disk.
        """
        with self._mutex:
            known = self._read()
            left = {name: one for name, one in known.files.items() if name != _tag_file(tag)}
            if self._folder is not None and len(left) < len(known.files):
                self._write(self._folder, _Known(known.version, left))

    def _write(self, folder: Path, known: _Known) -> None:
        body = {"version": known.version, "files": known.files}
        content = json.dumps({"crc32": _crc(body), "body": body}).encode()
        files.write_file(folder / FILE, lambda path: path.write_bytes(content))
        files.sync_folder(folder)

    def _verify(self, names: Iterable[str], *, gone: bool = False) -> None:
        """`gone` says whether a file that is gone is damage too."""
        if self._folder is None:
            return
        with self._mutex:
            known = self._read().files
            for name in names:
                wanted = known.get(name)
                if wanted is None or self._verified.get(name) == wanted:
                    continue
                path = self._folder / name
                try:
                    if path.stat().st_size != wanted[0] or _sum(path) != wanted:
                        raise StoreCorruptError(
                            f"{path} is damaged: it is not what was written; {_REMEDY}"
                        )
                except (FileNotFoundError, NotADirectoryError):
                    if gone:
                        raise StoreCorruptError(f"{path} is gone; {_REMEDY}") from None
                    continue  # tidied away; LanceDB tells where it is needed
                self._verified[name] = wanted

    def _read(self) -> _Known:
        if self._folder is None:
            return _Known(0, {})
        path = self._folder / FILE
        try:
            whole = json.loads(path.read_bytes())
            body = whole["body"]
            if whole["crc32"] != _crc(body):
                raise ValueError("checksum")
            sums = {name: (int(size), int(crc)) for name, (size, crc) in body["files"].items()}
            return _Known(int(body["version"]), sums)
        except (FileNotFoundError, NotADirectoryError):
            return _Known(0, {})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StoreCorruptError(
                f"{path} is damaged; delete it to use the table without checks"
            ) from None


def _paths(table: Path) -> Iterator[tuple[str, Path]]:
    """The files of a table that never change, and those of tags, by their path in it."""
    for folder, _, names in os.walk(table):
        for name in names:
            path = Path(folder, name)
            within = path.relative_to(table).as_posix()
            if path.suffix in _SUFFIXES or within.startswith(_TAGS):
                yield within, path


def _tag_file(tag: str) -> str:
    return f"{_TAGS}tags/{tag}.json"


def _sum(path: Path) -> _Sum:
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


def _crc(body: object) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())
