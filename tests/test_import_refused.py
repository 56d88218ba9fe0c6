"""Row files that `import` refuses, leaving stores unchanged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsicd_embed.errors import FingerprintError, StoreError
from rsicd_embed.indexing import import_rows
from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import open_store
from rsicd_embed.testing.stores import DIM, batch, unit

from .helpers import SCHEMES, content, exported, filled, import_file, run

OTHER = Provenance("large", f"weights:bbb/tokenizer:t/dim:{DIM}", DIM)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_models_store_is_refused(scheme: str, file: Path, tmp_path: Path) -> None:
    exported(file)
    uri = filled(f"{scheme}:{tmp_path}/store", batch(["a"]), OTHER)
    before = content(uri)
    error = run("import", file, "--store", uri).error
    assert (
        f"{file} contains vectors of model 'small', {uri} those of 'large' (weights bbb ≠ aaa)"
        in (error)
    )
    assert "use another store" in error
    assert content(uri) == before


def test_a_given_model_must_match(
    pictures: Path, tiny_model: Path, other_model: Path, file: Path, uri: str
) -> None:
    run("embed", pictures, "-o", file, "--model", tiny_model)
    error = run("import", file, "--store", uri, "--model", other_model).error
    assert f"contains vectors of model '{tiny_model}', --model {other_model} those of" in error
    assert not Path(uri.partition(":")[2]).exists()
    assert import_file(file, uri, "--model", str(tiny_model))["imported"] == 5
    # embed treats it as a manifest of images.
    run("embed", file, "-o", file.with_name("other.parquet"), "--model", other_model)
    error = run("import", file, file.with_name("other.parquet"), "--store", uri).error
    assert f"rows.parquet those of '{tiny_model}' (weights" in error


def test_images_and_row_files_do_not_mix(
    pictures: Path, tiny_model: Path, file: Path, uri: str, tmp_path: Path
) -> None:
    exported(file)
    for sources in ((file, pictures), (pictures, file)):
        outcome = run("ingest", *sources, "--store", uri, "--model", tiny_model)
        assert outcome.status == 2
        assert f"{file} contains vectors, {pictures} does not" in outcome.stderr
        assert f"rsicd-embed import {file} --store {uri}" in " ".join(outcome.stderr.split())
        error = run("import", *sources, "--store", uri).error
        assert f"{pictures}: expected a Parquet file that export or embed wrote" in error
    assert run("ingest", file, "--store", uri, "--prune").status == 2
    assert not (tmp_path / "store").exists()


def test_ingest_names_the_command_for_rows(file: Path, uri: str, tmp_path: Path) -> None:
    exported(file)
    outcome = run("ingest", file, "--store", uri)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert outcome.stderr.splitlines()[-1] == (
        f"Error: {file} contains vectors, which need no model: import it with "
        f"rsicd-embed import {file} --store {uri}"
    )
    assert not (tmp_path / "store").exists()
    assert import_file(file, uri)["imported"] == 7


def test_files_of_other_kinds(pictures: Path, file: Path, uri: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.png"]}), file)
    for other, words in {
        pictures: "a folder",
        pictures / "a.png": "a file that cannot be read as Parquet: ",
        file: "another one",
    }.items():
        assert f"{other}: expected a Parquet file that export or embed wrote, found {words}" in (
            run("import", other, "--store", uri).error
        )
    assert not (tmp_path / "store").exists()


def damaged(file: Path) -> bytes:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 4] ^= 16
    return bytes(raw)


def with_vectors(file: Path, vectors: np.ndarray) -> None:
    table = pq.read_table(file)
    wrong = batch(["x"] * len(vectors), vectors)["vector"]
    pq.write_table(table.set_column(1, "vector", wrong), file)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda file: file.write_bytes(file.read_bytes()[:-20]),
            "a file that cannot be read as Parquet: ",
        ),
        (lambda file: file.write_bytes(damaged(file)), "cannot be read as Parquet: "),
        (lambda file: with_vectors(file, unit(7, 9)), "vectors of length 8, as its metadata says"),
        (lambda file: with_vectors(file, unit(7) * np.float32(np.nan)), "found norm nan at row 1"),
        (lambda file: with_vectors(file, unit(7) * 2), "found norm 2 at row 1; divide each"),
        (lambda file: file.unlink(), "found nothing there"),
    ],
)
def test_invalid_files_change_nothing(
    scheme: str, spoil: Any, words: str, file: Path, tmp_path: Path
) -> None:
    exported(file)
    spoil(file)
    new, old = f"{scheme}:{tmp_path}/new", filled(f"{scheme}:{tmp_path}/old", batch(["a"]))
    before = content(old)
    for uri in (new, old):
        assert words in run("import", file, "--store", uri).error
    assert not (tmp_path / "new").exists()
    assert content(old) == before


def test_columns_that_do_not_fit_the_store(file: Path, uri: str) -> None:
    filled(uri, batch(["z"], label=[1]))
    before = content(uri)
    error = run("import", exported(file), "--store", uri).error
    assert "column 'label': expected int64, found string" in error
    assert content(uri) == before


def test_rows_that_the_store_cannot_write(
    file: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    exported(file)
    filled(uri, batch(["a"]))
    before = content(uri)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device; free some" in run("import", file, "--store", uri).error
    assert content(uri) == before
    assert import_file(file, uri)["imported"] == 7


def test_refused_stores_are_closed(file: Path, uri: str) -> None:
    filled(uri, batch(["a"]), OTHER)
    (opened,) = import_rows.open_files([exported(file)])
    with pytest.raises(FingerprintError):
        import_rows.open_store_for(opened, uri)
    with open_store(uri) as store, pytest.raises(FingerprintError):
        import_rows.write_rows(import_rows.check_rows([opened]), store)
    with pytest.raises(StoreError):
        import_rows.open_store_for(opened, "nothing:here")
