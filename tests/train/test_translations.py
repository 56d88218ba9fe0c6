"""The translation cache: persistence, atomic writes, and errors."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rsicd_embed.errors import StoreCorruptError, StoreError
from rsicd_embed.train.backtranslation.marian import Translations

KILLED = """
import os, signal, sys
from pathlib import Path
from rsicd_embed.train.backtranslation.marian import Translations

class Dying(dict):
    def items(self):
        for i in range(20_000):  # more than SQLite buffers before writing
            yield f"text {i}", "texte " * 30
        print(Path(sys.argv[1]).stat().st_size, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

translations = Translations(Path(sys.argv[1]))
translations.add("m", {"whole": "entier"})
translations.add("m", Dying())
"""


def test_translations_are_stored_by_model(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "t.sqlite"
    with Translations(path) as first:
        first.add("m", {"a": "un", "b": "", "": "x", "é\0\n": "ü"})
        first.add("n", {"a": "uno"})
        first.add("m", {"a": "une"})
    with Translations(path) as again:
        assert again.find("m", ["b", "a", "z", "é\0\n"]) == {"b": "", "a": "une", "é\0\n": "ü"}
        assert again.find("n", ["a", "b"]) == {"a": "uno"}
        assert again.find("o", ["a"]) == {}


def test_two_connections_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with Translations(path) as first, Translations(path) as second:
        first.add("m", {"a": "1"})
        second.add("m", {"b": "2"})
        assert first.find("m", ["a", "b"]) == second.find("m", ["a", "b"]) == {"a": "1", "b": "2"}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_writer_leaves_no_partial_batch(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, check=False
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert int(child.stdout) > 1_000_000  # part of it was in the file
    with Translations(path) as translations:
        texts = ["whole", *(f"text {i}" for i in range(20_000))]
        assert translations.find("m", texts) == {"whole": "entier"}
        translations.add("m", {"text 1": "texte"})
        assert translations.find("m", ["text 1"]) == {"text 1": "texte"}


def test_a_full_disk(tmp_path: Path) -> None:
    with Translations(tmp_path / "t.sqlite") as translations:
        translations.add("m", {"a": "un"})
        # SQLite's file size limit fails like a full disk.
        translations._connection.execute("PRAGMA max_page_count = 4")
        with pytest.raises(StoreError, match=r"t\.sqlite: .*is full; free some space and run"):
            translations.add("m", {"b": "x" * 50_000, "c": "deux"})
        assert translations.find("m", ["a", "b", "c"]) == {"a": "un"}


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    path.write_text("hello" * 100)
    with pytest.raises(StoreCorruptError, match=r"t\.sqlite is not a file of .*; delete it"):
        Translations(path)
    assert path.read_text() == "hello" * 100
    second = tmp_path / "other.sqlite"
    with sqlite3.connect(second) as connection:
        connection.execute("CREATE TABLE translations (a)")
    connection.close()
    with pytest.raises(StoreError, match="no such column: model"):
        Translations(second)


def test_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with Translations(path) as translations:
        translations.add("m", {f"text {i}": "texte" * 20 for i in range(2_000)})
    data = bytearray(path.read_bytes())
    data[8192:-8192] = b"\xff" * (len(data) - 16384)
    path.write_bytes(data)
    with pytest.raises(StoreCorruptError, match="delete it"), Translations(path) as translations:
        translations.find("m", [f"text {i}" for i in range(2_000)])


def test_impossible_paths(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create"):
        Translations(tmp_path / "file" / "t.sqlite")
    with pytest.raises(StoreError, match="unable to open"):
        Translations(tmp_path)
