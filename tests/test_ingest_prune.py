"""Pruning: rows of vanished images are kept unless pruned by a source that covers them."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rsicd_embed
from rsicd_embed.indexing import vanished_rows

from .conftest import picture
from .helpers import IDS, Counting, counts, ingest, manifest, rows
from .other_writer import run_in_a_process


def test_a_vanished_file_stays_unless_pruned(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    ingest(embedder, each_uri, pictures)
    (pictures / "c.jpg").unlink()
    assert counts(ingest(embedder, each_uri, pictures)) == (0, 0, 4, 0, 0)
    assert sorted(rows(each_uri)) == IDS
    assert counts(ingest(embedder, each_uri, pictures, prune=True)) == (0, 0, 4, 1, 0)
    assert sorted(rows(each_uri)) == ["a.png", "b.png", "d.tif", "sub/e.png"]


def move_rows(send: Callable[..., None], uri: str, folder: Path) -> None:
    with rsicd_embed.open_store(uri) as other:
        table = other.scan(where="id IN ('b.png', 'c.jpg')").read_all()
        moved = [str(folder / id_) for id_ in table["id"].to_pylist()]
        place = table.schema.get_field_index("uri")
        other.upsert(table.set_column(place, "uri", pa.array(moved)).to_batches())


def test_rows_that_another_process_moves_are_not_pruned(
    embedder: Counting, each_uri: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(embedder, each_uri, pictures)
    for name in ("a.png", "b.png", "c.jpg"):
        (pictures / name).unlink()
    select = vanished_rows._vanished

    def select_first(*arguments: Any) -> dict[str, str]:
        gone = select(*arguments)
        run_in_a_process(move_rows, each_uri, pictures / "new")
        return gone

    monkeypatch.setattr(vanished_rows, "_vanished", select_first)
    assert ingest(embedder, each_uri, pictures, prune=True).removed == 1
    assert sorted(rows(each_uri)) == IDS[1:]


def test_a_renamed_folder_below_the_source_can_be_pruned(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    ingest(embedder, uri, pictures)
    (pictures / "sub").rename(pictures / "new")
    assert counts(ingest(embedder, uri, pictures, prune=True)) == (1, 0, 4, 1, 0)
    assert "new/e.png" in rows(uri)
    assert "sub/e.png" not in rows(uri)


def test_prune_touches_only_rows_below_the_source(
    embedder: Counting, uri: str, pictures: Path, tmp_path: Path
) -> None:
    other = tmp_path / "pictures2"  # a common prefix is not a common folder
    other.mkdir()
    for name in ("y.png", "z.png"):
        picture(5).save(other / name)
    ingest(embedder, uri, [pictures, other])
    (other / "z.png").unlink()
    (pictures / "a.png").unlink()
    assert ingest(embedder, uri, pictures, prune=True).removed == 1
    assert sorted(rows(uri)) == [*IDS[1:], "y.png", "z.png"]


def test_prune_keeps_rows_whose_image_exists(embedder: Counting, uri: str, pictures: Path) -> None:
    """A file or a manifest does not cover the other files in its folder."""
    ingest(embedder, uri, pictures)
    (pictures / "b.png").unlink()
    assert counts(ingest(embedder, uri, pictures / "a.png", prune=True)) == (0, 0, 1, 0, 0)
    table = manifest(pictures / "m.jsonl", {"id": "x", "path": "a.png"})
    assert counts(ingest(embedder, uri, table, prune=True)) == (1, 0, 0, 1, 0)
    assert sorted(rows(uri)) == ["a.png", "c.jpg", "d.tif", "sub/e.png", "x"]


def test_prune_keeps_rows_listed_in_a_manifest(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    table = manifest(pictures / "m.jsonl", {"path": "a.png"}, {"path": "b.png"})
    ingest(embedder, uri, table)
    (pictures / "b.png").unlink()
    assert counts(ingest(embedder, uri, table, prune=True)) == (0, 0, 1, 0, 1)
    assert sorted(rows(uri)) == ["a.png", "b.png"]


def test_prune_keeps_rows_in_inaccessible_folders(
    embedder: Counting, uri: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(embedder, uri, pictures)
    (pictures / "b.png").unlink()
    stat = Path.stat

    def refused(path: Path, **options: Any) -> os.stat_result:
        if path.name == "b.png":
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refused)
    assert ingest(embedder, uri, pictures, prune=True).removed == 0


def test_prune_keeps_rows_of_a_table_of_which_a_split_is_read(
    embedder: Counting, uri: str, tmp_path: Path
) -> None:
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for i, file in enumerate(files):
        picture(i).save(file)
    table = pa.table(
        {
            "id": list("abcd"),
            "image": [file.read_bytes() for file in files],
            "split": ["train", "train", "val", "val"],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    ingest(embedder, uri, tmp_path / "t.parquet")
    pq.write_table(table.slice(1), tmp_path / "t.parquet")
    chosen = rsicd_embed.open_sources([tmp_path / "t.parquet"], split="train")
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        assert rsicd_embed.ingest(chosen, embedder, store, prune=True).removed == 0
    assert sorted(rows(uri)) == list("abcd")
    assert ingest(embedder, uri, tmp_path / "t.parquet", prune=True).removed == 1


def test_prune_keeps_rows_beyond_the_damage_of_a_tar(
    embedder: Counting, uri: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(4):
            picture(i).save(tmp_path / f"{i}.png")
            tar.add(tmp_path / f"{i}.png", f"{i}.png")
    ingest(embedder, uri, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
    summary = ingest(embedder, uri, path, prune=True)
    assert len(summary.skipped) == 1 and "its end is left out" in summary.skipped[0].reason
    assert (summary.removed, len(rows(uri))) == (0, 4)
