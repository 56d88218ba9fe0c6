"""Sources of an ingest: one split, repeated sources, several sources, conflicts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import rsicd_embed
from rsicd_embed.errors import DatasetError, SchemaError

from .conftest import picture
from .helpers import IDS, Counting, counts, ingest, manifest, rows


def test_one_split_of_a_source(embedder: Counting, uri: str, pictures: Path) -> None:
    entries = [{"path": name, "split": "test" if name < "c" else "train"} for name in IDS]
    source = manifest(pictures / "m.jsonl", *entries)
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        rsicd_embed.ingest(rsicd_embed.open_sources([source], split="test"), embedder, store)
    assert sorted(rows(uri)) == ["a.png", "b.png"]
    with pytest.raises(DatasetError, match="the split 'val', found test, train"):
        rsicd_embed.open_sources([source], split="val")


def test_the_same_source_twice_is_embedded_once(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    assert counts(ingest(embedder, uri, [pictures, pictures / ".." / pictures.name])) == (
        5, 0, 5, 0, 0,
    )  # fmt: skip
    assert embedder.taken() == 5
    assert rows(uri)["a.png"]["uri"] == str(pictures / "a.png")


def test_a_source_given_again_is_embedded_once(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    (source,) = rsicd_embed.open_sources([pictures])
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        summary = rsicd_embed.ingest([source, source], embedder, store)
    assert (summary.embedded, summary.unchanged, embedder.taken()) == (5, 5, 5)


def test_displaced_rows_are_reported(
    embedder: Counting, uri: str, pictures: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    picture(7).save(other / "a.png")
    picture(8).save(other / "f.png")
    assert ingest(embedder, uri, pictures).displaced == []
    (displaced,) = ingest(embedder, uri, other).displaced
    assert (displaced.id, displaced.uri) == ("a.png", str(pictures / "a.png"))
    assert displaced.by == str(other / "a.png") == rows(uri)["a.png"]["uri"]
    (pictures / "b.png").rename(tmp_path / "b.png")  # the file was moved
    picture(9).save(other / "b.png")
    assert ingest(embedder, uri, other).displaced == []


def test_relative_sources_are_stored_as_absolute_paths(
    embedder: Counting, uri: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures / "sub")
    assert counts(ingest(embedder, uri, Path(".."))) == (5, 0, 0, 0, 0)
    monkeypatch.chdir(pictures)
    assert counts(ingest(embedder, uri, Path())) == (0, 0, 5, 0, 0)
    assert rows(uri)["sub/e.png"]["uri"] == str(pictures / "sub" / "e.png")


def test_several_sources(embedder: Counting, each_uri: str, pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    picture(7).save(other / "z.png")
    ints = manifest(tmp_path / "ints.jsonl", {"id": "i", "path": "pictures/a.png", "v": 1})
    floats = manifest(tmp_path / "floats.jsonl", {"id": "f", "path": "other/z.png", "v": 1.5})
    # The column is float in both, so the order of the sources does not matter.
    summary = ingest(embedder, each_uri, [other, pictures / "a.png", ints, floats])
    assert counts(summary) == (4, 0, 0, 0, 0)
    assert {id_: row["v"] for id_, row in rows(each_uri).items()} == {
        "z.png": None, "a.png": None, "i": 1.0, "f": 1.5,
    }  # fmt: skip


def test_sources_with_conflicting_ids_are_refused(
    embedder: Counting, uri: str, pictures: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(pictures, tmp_path / "copy")
    with pytest.raises(DatasetError, match=r"both get the id 'a\.png'"):
        ingest(embedder, uri, [pictures, copy])
    assert embedder.taken() == 0


def test_columns_that_differ_in_type_are_refused_before_anything_is_embedded(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    texts = manifest(pictures / "a.jsonl", {"path": "a.png", "v": "x"})
    numbers = manifest(pictures / "b.jsonl", {"path": "b.png", "v": [1]})
    with pytest.raises(DatasetError, match="differ in type"):
        ingest(embedder, each_uri, [texts, numbers])
    ingest(embedder, each_uri, texts)
    assert embedder.taken() == 1
    before = rows(each_uri)
    with pytest.raises(SchemaError, match="'v'"):
        ingest(embedder, each_uri, numbers)
    reserved = manifest(pictures / "c.jsonl", {"path": "b.png", "score": 1})
    with pytest.raises(SchemaError, match="'score' is reserved"):
        ingest(embedder, each_uri, reserved)
    assert embedder.taken() == 0
    assert rows(each_uri) == before
