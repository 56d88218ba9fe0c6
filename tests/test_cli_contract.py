"""Commands on stores that are missing, invalid or of another model fail with one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import picture
from .helpers import SCHEMES, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")

# Commands that read a store, without their --store.
READING = {
    "search": ["search", "port"],
    "search, json": ["search", "port", "--json"],
    "search, as of": ["search", "port", "--as-of", "autumn"],
    "sql": ["sql", "SELECT count(*) FROM images"],
    "info": ["info"],
    "info, json": ["info", "--json"],
    "export": ["export", "-o", "rows.parquet"],
    "store tag": ["store", "tag", "autumn"],
    "store untag": ["store", "untag", "autumn"],
    "store tags": ["store", "tags", "--json"],
    "store restore": ["store", "restore", "autumn"],
    "reembed": ["reembed", "--model", "model"],
    "serve": ["serve"],
}


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with an image and a model."""
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "model").symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def content(folder: Path) -> dict[Path, bytes]:
    """The bytes of all files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", READING)
def test_missing_store(name: str, scheme: str, folder: Path) -> None:
    error = run(*READING[name], "--store", f"{scheme}:absent").error
    assert error.startswith(f"error: no store at {scheme}:absent")
    assert f"rsicd-embed ingest SOURCE --store {scheme}:absent" in error
    assert not (folder / "absent").exists()
    assert not (folder / "rows.parquet").exists()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", [*READING, "ingest"])
def test_folder_that_is_not_a_store(name: str, scheme: str, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    before = content(other)
    command = READING.get(name, ["ingest", "a.png", "--model", "model"])
    assert "other" in run(*command, "--store", f"{scheme}:other").error
    assert content(other) == before


@pytest.mark.parametrize("scheme", SCHEMES)
def test_store_of_another_model(
    scheme: str, folder: Path, tiny_model: Path, other_model: Path
) -> None:
    uri = f"{scheme}:store"
    assert run("ingest", "a.png", "--store", uri, "--model", "model").status == 0
    for command in (
        ["search", "port", "--model", other_model],
        ["search", "port", "--json", "--model", other_model],
        ["sql", "SELECT similarity('a') FROM images", "--model", other_model],
        ["ingest", "a.png", "--model", other_model],
    ):
        error = run(*command, "--store", uri).error
        assert f"contains vectors of model '{tiny_model}'" in error
        assert f"pass --model {tiny_model}" in error
    assert run("info", "--store", uri, "--json").document["rows"] == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_store_opened_with_another_scheme(scheme: str, folder: Path) -> None:
    assert run("ingest", "a.png", "--store", f"{scheme}:store", "--model", "model").status == 0
    before = content(folder / "store")
    for other in SCHEMES:
        if other != scheme:
            assert "store" in run("info", "--store", f"{other}:store").error
            assert run("search", "port", "--store", f"{other}:store").status == 1
    assert content(folder / "store") == before
