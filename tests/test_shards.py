"""`embed --shard` and the import of its parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rsicd_embed
from rsicd_embed.errors import ArgumentError
from rsicd_embed.indexing.shards import Shard, write_shard

from .helpers import Counting, counts, rows, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")

OF = 3


def embed(pictures: Path, folder: Path, model: Path, shard: str, *options: str) -> str:
    done = run("embed", pictures, "--shard", shard, "-o", folder, "--model", model, *options)
    assert done.status == 0, done
    return done.stdout


@pytest.fixture
def parts(pictures: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """All parts of a job over `pictures`, one of which cannot be read."""
    (pictures / "b.png").write_text("broken")
    folder = tmp_path / "parts"
    for number in range(OF):
        embed(pictures, folder, tiny_model, f"{number}/{OF}")
    return folder


@given(st.text(), st.integers(1, 50))
def test_an_id_has_exactly_one_shard(id_: str, of: int) -> None:
    assert sum(Shard(number, of).has(id_) for number in range(of)) == 1


def test_shards_are_of_similar_size() -> None:
    ids = [f"scene/{i}.png" for i in range(4000)]
    sizes = [sum(map(Shard(number, 4).has, ids)) for number in range(4)]
    assert max(abs(size - 1000) for size in sizes) < 100


@pytest.mark.parametrize("text", ["3/3", "-1/3", "0/0", "1", "1/x", "1/3/4", ""])
def test_a_shard_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"expected a shard such as 0/16"):
        Shard.parse(text)


def test_parts_give_the_store_of_one_ingest(
    parts: Path, pictures: Path, tiny_model: Path, each_uri: str, tmp_path: Path
) -> None:
    assert run("import", parts, "--store", each_uri).status == 0
    whole = f"exact:{tmp_path / 'whole'}"
    assert run("ingest", pictures, "--store", whole, "--model", tiny_model).status == 0
    assert len(rows(whole)) == 4
    assert rows(each_uri) == rows(whole)
    again = run("import", parts, "--store", each_uri, "--json").document
    assert (again["imported"], again["unchanged"]) == (0, 4)
    assert sorted(path.suffix for path in parts.iterdir()) == [".json"] * OF + [".parquet"] * OF


def test_each_unreadable_image_is_reported_by_its_shard(parts: Path, pictures: Path) -> None:
    skipped = [
        skip["uri"]
        for path in sorted(parts.glob("*.json"))
        for skip in json.loads(path.read_text())["skipped"]
    ]
    assert skipped == [str(pictures / "b.png")]


def test_a_complete_part_is_not_embedded_again(
    parts: Path, pictures: Path, tiny_model: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert "0 vectors" in embed(pictures, parts, tiny_model, f"1/{OF}")
    assert {path: path.stat().st_mtime_ns for path in parts.iterdir()} == before


def test_an_interrupted_shard_continues(
    pictures: Path, embedder: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = rsicd_embed.open_sources([pictures])
    folder = tmp_path / "parts"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("rsicd_embed.indexing.shards.rowfile.write", stop)
        with pytest.raises(KeyboardInterrupt):
            write_shard(sources, embedder, folder, Shard(0, 1))
    assert embedder.taken() == 5
    (pictures / "a.png").unlink()  # removed in the meantime
    summary = write_shard(rsicd_embed.open_sources([pictures]), embedder, folder, Shard(0, 1))
    assert (embedder.taken(), counts(summary)[2]) == (0, 4)
    uri = f"exact:{tmp_path / 'store'}"
    rsicd_embed.import_rows([folder], uri)
    assert sorted(rows(uri)) == ["b.png", "c.jpg", "d.tif", "sub/e.png"]
    assert not (folder / f".{Shard(0, 1).name}").exists()


def test_more_shards_than_images(pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder, uri = tmp_path / "parts", f"lancedb:{tmp_path / 'store'}"
    for number in range(12):
        embed(pictures, folder, tiny_model, f"{number}/12")
    assert run("import", folder, "--store", uri, "--json").document["imported"] == 5


def test_damaged_and_incomplete_parts_are_refused(
    parts: Path, pictures: Path, tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    store = f"exact:{tmp_path / 'store'}"
    first, second = (parts / f"part-0000{number}-of-00003" for number in (0, 1))

    def refused() -> str:
        return run("import", parts, "--store", store).error

    described = second.with_suffix(".json").read_text()
    second.with_suffix(".json").unlink()
    assert "expected 3 parts, found 2; missing: 1; complete them with" in refused()
    for damaged in (described[:-20], "[" * 100_000):
        second.with_suffix(".json").write_text(damaged)
        assert "found damaged JSON; remove it and embed this shard again" in refused()
    second.with_suffix(".json").write_text(described)

    content = first.with_suffix(".parquet").read_bytes()
    first.with_suffix(".parquet").write_bytes(content[:-1])
    assert (
        f"expected {len(content)} bytes, found {len(content) - 1}; remove part-00000" in refused()
    )
    first.with_suffix(".parquet").unlink()
    assert "expected part-00000-of-00003.parquet beside" in refused()
    first.with_suffix(".parquet").write_bytes(content)

    embed(pictures, parts, tiny_model, "0/2")
    assert "found parts of 2 and of 3; use one folder per job" in refused()
    for path in parts.glob("*-of-00002*"):
        path.unlink()

    again = ("embed", pictures, "--shard", "0/3", "-o", parts, "--model")
    assert "is a part of another model or other images" in run(*again, other_model).error
    for suffix in (".json", ".parquet"):
        first.with_suffix(suffix).unlink()
    assert run(*again, other_model).status == 0
    assert "contains vectors of model" in refused()
    for suffix in (".json", ".parquet"):
        first.with_suffix(suffix).unlink()
    (pictures / "a.png").unlink()
    embed(pictures, parts, tiny_model, "0/3")
    assert "was made from another list of images than part 0" in refused()
    assert not (tmp_path / "store").exists()


def test_outputs_that_do_not_fit(pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    sharded = run("embed", pictures, "--shard", "0/2", "-o", file, "--model", tiny_model)
    assert (sharded.status, file.read_text()) == (2, "mine")
    assert "expected a folder for the parts of --shard" in sharded.stderr
    empty = tmp_path / "folder"
    empty.mkdir()
    assert "found a folder" in run("import", empty, "--store", f"exact:{tmp_path / 's'}").error
