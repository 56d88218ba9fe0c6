"""`export`: the rows it writes and the files it replaces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsicd_embed.stores.base import open_store, require_versioned
from rsicd_embed.testing.stores import MADE_BY, batch

from .helpers import content, exported, filled, import_file, run


def test_where(file: Path, uri: str) -> None:
    filled(uri)
    export = ("export", "--store", uri, "-o", file, "--where")
    assert run(*export, "label = 'it''s'", "--json").document["rows"] == 1
    assert pq.read_table(file)["id"].to_pylist() == ["木/é.jpg"]
    nothing = run(*export, "width > 999")
    assert (nothing.status, nothing.stdout[:7]) == (0, "0 rows ")
    assert nothing.stderr == "no rows: the store is empty, or no row matches --where\n"
    assert "no column wide" in run(*export, "wide > 1").error
    assert len(pq.read_table(file)) == 0


def test_an_older_state(file: Path, uri: str) -> None:
    filled(uri, batch(["a"]))
    with open_store(uri) as store:
        require_versioned(store).tag("first")
    filled(uri, batch(["b"]))
    run("export", "--store", uri, "-o", file, "--as-of", "first")
    assert pq.read_table(file)["id"].to_pylist() == ["a"]
    run("export", "--store", uri, "-o", file)
    assert sorted(pq.read_table(file)["id"].to_pylist()) == ["a", "b"]
    assert "'second'" in run("export", "--store", uri, "-o", file, "--as-of", "second").error


def test_an_empty_store_gives_an_empty_file(file: Path, uri: str, tmp_path: Path) -> None:
    open_store(uri, MADE_BY).close()
    assert run("export", "--store", uri, "-o", file, "--json").document["rows"] == 0
    other = f"nmslib:{tmp_path}/other"
    summary = import_file(file, other)
    assert (summary["imported"], summary["unchanged"]) == (0, 0)
    assert content(other) == content(uri)


def test_only_an_earlier_export_is_replaced(file: Path, uri: str) -> None:
    filled(uri)
    export = ("export", "--store", uri, "-o", file)
    assert [run(*export).status for _ in range(2)] == [0, 0]
    for foreign in (b"garbage", b""):
        file.write_bytes(foreign)
        assert "exists and was not written by rsicd-embed" in run(*export).error
        assert file.read_bytes() == foreign
    pq.write_table(pa.table({"path": ["a.png"]}), file)
    assert "choose another file, or remove it" in run(*export).error
    assert pq.read_table(file).column_names == ["path"]


def test_impossible_output_paths_are_refused(tmp_path: Path, uri: str) -> None:
    filled(uri)
    nowhere = tmp_path / "none" / "rows.parquet"
    assert "its folder does not exist; create it first" in (
        run("export", "--store", uri, "-o", nowhere).error
    )
    assert not nowhere.parent.exists()
    for wrong in ("rows.xlsx", "rows", "rows.npy"):
        outcome = run("export", "--store", uri, "-o", tmp_path / wrong)
        assert outcome.status == 2
        assert "expected an output named *.parquet" in outcome.stderr
    assert run("export", "--store", uri, "-o", tmp_path).status == 2
    assert run("export", "--store", uri, "-o", "x.parquet", "--format", "csv").status == 2
    assert run("export", "--store", uri).status == 2


def test_no_such_store(file: Path, tmp_path: Path) -> None:
    assert "no store at exact:" in run("export", "--store", f"exact:{tmp_path}/x", "-o", file).error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk(file: Path, uri: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    exported(file)
    before = file.read_bytes()
    filled(uri, batch(["a"]))
    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        error = run("export", "--store", uri, "-o", file).error
    assert error.endswith("rows.parquet: No space left on device; free some space and try again")
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["rows.parquet", "store"]


def test_a_read_only_folder(file: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.parent == file.parent:
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    filled(uri)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        error = run("export", "--store", uri, "-o", file).error
    assert error.endswith(
        "rows.parquet: Permission denied; make the folder writable or use another one"
    )
    assert not file.exists()
