"""Translations that were made once, on disk: a run that was stopped goes on where it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rsicd_embed.errors import StoreCorruptError, StoreError
from rsicd_embed.files import Closing, make_folder, storage_errors

_TABLE = """
CREATE TABLE IF NOT EXISTS translations (
    model TEXT NOT NULL, text TEXT NOT NULL, translation TEXT NOT NULL,
    PRIMARY KEY (model, text)
) WITHOUT ROWID
"""
_WAIT_S = 60.0  # another process may be writing; a batch is written in milliseconds


class Translations(Closing):
    """A SQLite file that several processes may use at once.

    What `add` was given is on the disk when it returns, whole; a process that is killed in the
    middle of it leaves nothing of it.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file; makes it, and its folder, where they are absent.

        Raises:
            StoreError: the file cannot be made or written.
            StoreCorruptError: it is no such file, or is damaged.
        """
        self.path = path
        with storage_errors(f"{path.parent} cannot be made"):
            make_folder(path.parent)
        with self._errors():
            self._connection = sqlite3.connect(path, timeout=_WAIT_S)
            try:
                # After a power cut too: Python's SQLite may have been built otherwise.
                self._connection.execute("PRAGMA synchronous = FULL")
                with self._connection:
                    self._connection.execute(_TABLE)
                    self._connection.execute("SELECT model, text, translation FROM translations")
            except BaseException:
                self._connection.close()
                raise

    def find(self, model: str, texts: Sequence[str]) -> dict[str, str]:
        """The translations by `model` that are known, by text."""
        query = "SELECT translation FROM translations WHERE model = ? AND text = ?"
        found = {}
        with self._errors():
            for text in texts:
                row = self._connection.execute(query, (model, text)).fetchone()
                if row is not None:
                    found[text] = row[0]
        return found

    def add(self, model: str, translations: Mapping[str, str]) -> None:
        """Keeps translations by `model`, all or none; they are on the disk when this returns.

        Raises:
            StoreError: from the disk, such as a full one.
        """
        insert = "INSERT OR REPLACE INTO translations VALUES (?, ?, ?)"
        with self._errors(), self._connection:
            self._connection.executemany(
                insert, ((model, text, translation) for text, translation in translations.items())
            )

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            remedy = (
                "free some space and run the same command again"
                if error.sqlite_errorcode == sqlite3.SQLITE_FULL
                else "check the disk and its permissions, or choose another file"
            )
            raise StoreError(
                f"translations cannot be kept in {self.path}: {error}; {remedy}"
            ) from (error)
        except sqlite3.DatabaseError as error:
            raise StoreCorruptError(
                f"{self.path} is no file of translations, or is damaged ({error}); "
                "delete it, and its texts are translated anew"
            ) from error
