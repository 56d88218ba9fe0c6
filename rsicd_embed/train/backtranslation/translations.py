"""A cache of translations on disk, so that an interrupted run can resume."""

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
_WAIT_S = 60.0  # for another process to finish writing


class Translations(Closing):
    """A SQLite file that several processes may use at the same time.

    `add` is atomic: its translations are on disk when it returns, and none are if it is killed.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, creating it and its folder if absent."""
        self.path = path
        with storage_errors(f"cannot create {path.parent}"):
            make_folder(path.parent)
        with self._errors():
            self._connection = sqlite3.connect(path, timeout=_WAIT_S)
            try:
                # Survive a power cut too, whatever the default of this SQLite build.
                self._connection.execute("PRAGMA synchronous = FULL")
                with self._connection:
                    self._connection.execute(_TABLE)
                    self._connection.execute("SELECT model, text, translation FROM translations")
            except BaseException:
                self._connection.close()
                raise

    def find(self, model: str, texts: Sequence[str]) -> dict[str, str]:
        """Returns the cached translations by `model`, by text."""
        query = "SELECT translation FROM translations WHERE model = ? AND text = ?"
        translations = {}
        with self._errors():
            for text in texts:
                row = self._connection.execute(query, (model, text)).fetchone()
                if row is not None:
                    translations[text] = row[0]
        return translations

    def add(self, model: str, translations: Mapping[str, str]) -> None:
        """Stores translations by `model`, by text."""
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
                f"cannot store translations in {self.path}: {error}; {remedy}"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreCorruptError(
                f"{self.path} is not a file of translations, or is damaged ({error}); "
                "delete it, and its texts are translated again"
            ) from error
