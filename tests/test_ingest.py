"""Ingest: what is embedded, what is kept, and what happens when it is interrupted."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rsicd_embed
from rsicd_embed.errors import DatasetError, ImageError, SchemaError
from rsicd_embed.indexing import Summary, writer
from rsicd_embed.parallel import batched, ordered_map

from .conftest import picture
from .helpers import SCHEMES, Counting, rows

IDS = ["a.png", "b.png", "c.jpg", "d.tif", "sub/e.png"]


@pytest.fixture(params=SCHEMES)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}:{tmp_path / 'store'}"


@pytest.fixture
def exact(tmp_path: Path) -> str:
    return f"exact:{tmp_path / 'store'}"


@pytest.fixture(scope="session")
def _loaded(tiny_model: Path) -> Any:
    return rsicd_embed.load_embedder(tiny_model)


@pytest.fixture
def embedder(_loaded: Any) -> Counting:
    return Counting(_loaded)


def ingest(embedder: Counting, uri: str, sources: Path | Sequence[Path], **options: Any) -> Summary:
    paths = [sources] if isinstance(sources, Path) else sources
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        return rsicd_embed.ingest(rsicd_embed.open_sources(paths), embedder, store, **options)


def counts(summary: Summary) -> tuple[int, int, int, int, int]:
    """embedded, updated, unchanged, removed, skipped."""
    return (
        summary.embedded,
        summary.updated,
        summary.unchanged,
        summary.removed,
        len(summary.skipped),
    )


def manifest(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


# ------------------------------------------------------------------ what is embedded, and when


def test_a_second_run_embeds_nothing(embedder: Counting, uri: str, pictures: Path) -> None:
    assert counts(ingest(embedder, uri, pictures)) == (5, 0, 0, 0, 0)
    assert embedder.taken() == 5
    before = rows(uri)
    assert sorted(before) == IDS
    assert counts(ingest(embedder, uri, pictures)) == (0, 0, 5, 0, 0)
    assert embedder.taken() == 0
    assert rows(uri) == before


def test_rows_tell_where_the_image_is_and_what_it_looks_like(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    summary = ingest(embedder, uri, pictures)
    stored = rows(uri)
    expected = embedder.embed_images([pictures / id_ for id_ in IDS])
    found = np.array([stored[id_]["vector"] for id_ in IDS], np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert stored["sub/e.png"]["uri"] == str(pictures / "sub" / "e.png")
    assert (stored["a.png"]["width"], stored["a.png"]["height"]) == (40, 36)
    assert len({row["sha256"] for row in stored.values()}) == 5
    assert summary.images_per_s == pytest.approx(5 / summary.seconds)


def test_a_changed_file_alone_is_embedded_again(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    ingest(embedder, uri, pictures)
    before = rows(uri)
    embedder.taken()
    picture(99).save(pictures / "b.png")
    assert counts(ingest(embedder, uri, pictures)) == (1, 0, 4, 0, 0)
    assert embedder.taken() == 1
    after = rows(uri)
    assert {id_ for id_ in IDS if after[id_] != before[id_]} == {"b.png"}


def test_a_touched_file_is_not_embedded_again(embedder: Counting, uri: str, pictures: Path) -> None:
    ingest(embedder, uri, pictures)
    os.utime(pictures / "a.png", (1, 1))
    assert counts(ingest(embedder, uri, pictures)) == (0, 0, 5, 0, 0)


def test_a_moved_folder_is_followed_without_embedding(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    ingest(embedder, uri, pictures)
    embedder.taken()
    moved = pictures.rename(pictures.with_name("moved"))
    assert counts(ingest(embedder, uri, moved)) == (0, 5, 0, 0, 0)
    assert embedder.taken() == 0
    assert {row["uri"] for row in rows(uri).values()} == {str(moved / id_) for id_ in IDS}


def test_new_attributes_are_written_without_embedding(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    ingest(embedder, uri, pictures)
    embedder.taken()
    table = manifest(pictures / "m.jsonl", {"path": "a.png", "label": "port", "cloud": 0.5})
    assert counts(ingest(embedder, uri, table)) == (0, 1, 0, 0, 0)
    assert counts(ingest(embedder, uri, table)) == (0, 0, 1, 0, 0)
    manifest(table, {"path": "a.png", "label": "beach", "cloud": None})
    assert counts(ingest(embedder, uri, table)) == (0, 1, 0, 0, 0)
    assert embedder.taken() == 0
    stored = rows(uri)
    assert (stored["a.png"]["label"], stored["a.png"]["cloud"]) == ("beach", None)
    assert stored["b.png"]["label"] is None


def test_a_changed_image_keeps_what_another_source_said_of_it(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    said = [{"path": name, "label": f"label of {name}", "lat": 1.5} for name in IDS]
    ingest(embedder, uri, manifest(pictures / "m.jsonl", *said))
    before = rows(uri)["a.png"]
    picture(50).save(pictures / "a.png")
    picture(51).save(pictures / "new.png")
    assert counts(ingest(embedder, uri, pictures)) == (2, 0, 4, 0, 0)
    after = rows(uri)
    assert after["a.png"]["sha256"] != before["sha256"]
    assert (after["a.png"]["label"], after["a.png"]["lat"]) == ("label of a.png", 1.5)
    assert (after["new.png"]["label"], after["new.png"]["lat"]) == (None, None)


def test_one_split_of_a_source(embedder: Counting, exact: str, pictures: Path) -> None:
    said = [{"path": name, "split": "test" if name < "c" else "train"} for name in IDS]
    source = manifest(pictures / "m.jsonl", *said)
    with rsicd_embed.open_store(exact, embedder=embedder) as store:
        rsicd_embed.ingest(rsicd_embed.open_sources([source], split="test"), embedder, store)
    assert sorted(rows(exact)) == ["a.png", "b.png"]
    with pytest.raises(DatasetError, match="the split 'val', found test, train"):
        rsicd_embed.open_sources([source], split="val")


def test_rows_that_a_source_has_no_word_on_are_not_written_again(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    """NaN, an all-null column and empty lists are no change either."""
    table = pictures / "m.parquet"
    columns = {"path": ["a.png", "b.png"], "cloud": [math.nan, 0.25], "note": [None, None]}
    pyarrow.parquet.write_table(pa.table(columns), table)
    lists = manifest(pictures / "n.jsonl", {"path": "c.jpg", "tags": [], "scores": [1.5, None]})
    assert counts(ingest(embedder, uri, [table, lists])) == (3, 0, 0, 0, 0)
    assert counts(ingest(embedder, uri, [table, lists])) == (0, 0, 3, 0, 0)
    assert counts(ingest(embedder, uri, pictures)) == (2, 0, 3, 0, 0)
    stored = rows(uri)
    assert math.isnan(stored["a.png"]["cloud"])
    assert stored["b.png"]["cloud"] == 0.25


def test_the_same_source_twice_is_embedded_once(
    embedder: Counting, exact: str, pictures: Path
) -> None:
    assert counts(ingest(embedder, exact, [pictures, pictures / ".." / pictures.name])) == (
        5, 0, 5, 0, 0,
    )  # fmt: skip
    assert embedder.taken() == 5
    assert rows(exact)["a.png"]["uri"] == str(pictures / "a.png")


def test_relative_sources_are_stored_as_absolute_paths(
    embedder: Counting, exact: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures / "sub")
    assert counts(ingest(embedder, exact, Path(".."))) == (5, 0, 0, 0, 0)
    monkeypatch.chdir(pictures)
    assert counts(ingest(embedder, exact, Path())) == (0, 0, 5, 0, 0)
    assert rows(exact)["sub/e.png"]["uri"] == str(pictures / "sub" / "e.png")


def test_several_sources(embedder: Counting, uri: str, pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    picture(7).save(other / "z.png")
    ints = manifest(tmp_path / "ints.jsonl", {"id": "i", "path": "pictures/a.png", "v": 1})
    floats = manifest(tmp_path / "floats.jsonl", {"id": "f", "path": "other/z.png", "v": 1.5})
    # The column is one of floats in both, so that the order of the sources does not matter.
    summary = ingest(embedder, uri, [other, pictures / "a.png", ints, floats])
    assert counts(summary) == (4, 0, 0, 0, 0)
    assert {id_: row["v"] for id_, row in rows(uri).items()} == {
        "z.png": None, "a.png": None, "i": 1.0, "f": 1.5,
    }  # fmt: skip


def test_sources_whose_ids_meet_are_refused(
    embedder: Counting, exact: str, pictures: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(pictures, tmp_path / "copy")
    with pytest.raises(DatasetError, match=r"both get the id 'a\.png'"):
        ingest(embedder, exact, [pictures, copy])
    assert embedder.taken() == 0


def test_columns_that_differ_in_type_are_refused_before_anything_is_embedded(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    texts = manifest(pictures / "a.jsonl", {"path": "a.png", "v": "x"})
    numbers = manifest(pictures / "b.jsonl", {"path": "b.png", "v": [1]})
    with pytest.raises(DatasetError, match="differ in type"):
        ingest(embedder, uri, [texts, numbers])
    ingest(embedder, uri, texts)
    assert embedder.taken() == 1
    before = rows(uri)
    with pytest.raises(SchemaError, match="'v'"):
        ingest(embedder, uri, numbers)
    reserved = manifest(pictures / "c.jsonl", {"path": "b.png", "score": 1})
    with pytest.raises(SchemaError, match="'score' is reserved"):
        ingest(embedder, uri, reserved)
    assert embedder.taken() == 0
    assert rows(uri) == before


# ------------------------------------------------------------------ what vanishes


def test_a_vanished_file_stays_unless_pruned(embedder: Counting, uri: str, pictures: Path) -> None:
    ingest(embedder, uri, pictures)
    (pictures / "c.jpg").unlink()
    assert counts(ingest(embedder, uri, pictures)) == (0, 0, 4, 0, 0)
    assert sorted(rows(uri)) == IDS
    assert counts(ingest(embedder, uri, pictures, prune=True)) == (0, 0, 4, 1, 0)
    assert sorted(rows(uri)) == ["a.png", "b.png", "d.tif", "sub/e.png"]


def test_a_renamed_folder_below_the_source_can_be_pruned(
    embedder: Counting, exact: str, pictures: Path
) -> None:
    ingest(embedder, exact, pictures)
    (pictures / "sub").rename(pictures / "new")
    assert counts(ingest(embedder, exact, pictures, prune=True)) == (1, 0, 4, 1, 0)
    assert "new/e.png" in rows(exact)
    assert "sub/e.png" not in rows(exact)


def test_prune_touches_only_rows_below_the_source(
    embedder: Counting, exact: str, pictures: Path, tmp_path: Path
) -> None:
    other = tmp_path / "pictures2"  # the same first letters are not the same folder
    other.mkdir()
    for name in ("y.png", "z.png"):
        picture(5).save(other / name)
    ingest(embedder, exact, [pictures, other])
    (other / "z.png").unlink()
    (pictures / "a.png").unlink()
    assert ingest(embedder, exact, pictures, prune=True).removed == 1
    assert sorted(rows(exact)) == [*IDS[1:], "y.png", "z.png"]


def test_prune_removes_no_row_whose_image_is_there(
    embedder: Counting, exact: str, pictures: Path
) -> None:
    """One file, or a manifest of some files, says nothing about the others of its folder."""
    ingest(embedder, exact, pictures)
    (pictures / "b.png").unlink()
    assert counts(ingest(embedder, exact, pictures / "a.png", prune=True)) == (0, 0, 1, 0, 0)
    table = manifest(pictures / "m.jsonl", {"id": "x", "path": "a.png"})
    assert counts(ingest(embedder, exact, table, prune=True)) == (1, 0, 0, 1, 0)
    assert sorted(rows(exact)) == ["a.png", "c.jpg", "d.tif", "sub/e.png", "x"]


def test_prune_keeps_what_a_manifest_still_lists(
    embedder: Counting, exact: str, pictures: Path
) -> None:
    table = manifest(pictures / "m.jsonl", {"path": "a.png"}, {"path": "b.png"})
    ingest(embedder, exact, table)
    (pictures / "b.png").unlink()
    assert counts(ingest(embedder, exact, table, prune=True)) == (0, 0, 1, 0, 1)
    assert sorted(rows(exact)) == ["a.png", "b.png"]


def test_prune_keeps_what_may_not_be_looked_at(
    embedder: Counting, exact: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(embedder, exact, pictures)
    (pictures / "b.png").unlink()
    stat = Path.stat

    def refused(path: Path, **options: Any) -> os.stat_result:
        if path.name == "b.png":
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refused)
    assert ingest(embedder, exact, pictures, prune=True).removed == 0


# ------------------------------------------------------------------ unreadable images


def test_an_unreadable_image_is_told_and_the_others_are_embedded(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    (pictures / "b.png").write_text("no picture")
    summary = ingest(embedder, uri, pictures)
    assert counts(summary) == (4, 0, 0, 0, 1)
    assert summary.skipped[0].uri == str(pictures / "b.png")
    assert summary.skipped[0].reason.startswith("not a picture")
    assert "b.png" not in rows(uri)


def test_a_picture_that_breaks_keeps_its_row(
    embedder: Counting, exact: str, pictures: Path
) -> None:
    ingest(embedder, exact, pictures)
    before = rows(exact)
    (pictures / "b.png").write_text("no picture")
    assert counts(ingest(embedder, exact, pictures, prune=True)) == (0, 0, 4, 0, 1)
    assert rows(exact) == before


def test_strict_keeps_what_was_embedded_before(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    (pictures / "d.tif").write_bytes(b"")
    with pytest.raises(ImageError, match=r"d\.tif: empty file"):
        ingest(embedder, uri, pictures, strict=True)
    assert sorted(rows(uri)) == ["a.png", "b.png", "c.jpg"]
    picture(3).save(pictures / "d.tif")
    embedder.taken()
    assert counts(ingest(embedder, uri, pictures, strict=True)) == (2, 0, 3, 0, 0)
    assert embedder.taken() == 2


# ------------------------------------------------------------------ interruption


def _interrupt_on(call: int) -> Callable[..., None]:
    calls = itertools.count(1)

    def interrupt(*_: int) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt

    return interrupt


def test_interrupted_between_images(embedder: Counting, uri: str, pictures: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ingest(embedder, uri, pictures, progress=_interrupt_on(3))
    # The third is loaded already, so it is embedded too.
    assert sorted(rows(uri)) == IDS[:3]
    assert embedder.taken() == 3
    assert counts(ingest(embedder, uri, pictures)) == (2, 0, 3, 0, 0)
    assert embedder.taken() == 2


def test_interrupted_while_embedding(embedder: Counting, uri: str, pictures: Path) -> None:
    embedder.before = _interrupt_on(2)
    with pytest.raises(KeyboardInterrupt):
        ingest(embedder, uri, pictures)
    assert sorted(rows(uri)) == IDS[:2]
    embedder.taken()
    assert counts(ingest(embedder, uri, pictures)) == (3, 0, 2, 0, 0)
    assert embedder.taken() == 3


def test_an_embedder_that_fails_loses_nothing(
    embedder: Counting, exact: str, pictures: Path
) -> None:
    def fail() -> None:
        if embedder.embedded:
            raise RuntimeError("out of device memory")

    embedder.before = fail
    with pytest.raises(RuntimeError, match="device memory"):
        ingest(embedder, exact, pictures)
    assert sorted(rows(exact)) == IDS[:2]


def test_long_runs_commit_as_they_go(
    embedder: Counting, exact: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "COMMIT_ROWS", 2)
    seen = []
    embedder.before = lambda: seen.append(len(rows(exact)))
    ingest(embedder, exact, pictures)
    assert seen == [0, 2, 4]


def test_progress_counts_every_image(embedder: Counting, exact: str, pictures: Path) -> None:
    (pictures / "b.png").write_bytes(b"")
    ingest(embedder, exact, pictures / "a.png")
    done: list[int] = []
    ingest(embedder, exact, pictures, progress=done.append)
    assert done == [1] * 5


# ------------------------------------------------------------------ threads, in order


@given(st.lists(st.integers(), max_size=50), st.integers(1, 8), st.integers(1, 4))
def test_ordered_map_is_map(items: list[int], ahead: int, threads: int) -> None:
    assert list(ordered_map(str, items, ahead=ahead, threads=threads)) == [str(i) for i in items]


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 8))
def test_ordered_map_raises_at_its_place(length: int, bad: int, ahead: int) -> None:
    got: list[int] = []

    def reciprocal(value: int) -> float:
        return 1 / (value - bad)

    if bad < length:
        with pytest.raises(ZeroDivisionError):
            got.extend(ordered_map(reciprocal, range(length), ahead=ahead, threads=2))
    for index, value in enumerate(ordered_map(reciprocal, range(min(bad, length)), ahead=ahead)):
        assert value == 1 / (index - bad)


@given(st.integers(0, 40), st.integers(1, 6))
def test_ordered_map_takes_no_more_than_ahead(length: int, ahead: int) -> None:
    taken, lock = 0, threading.Lock()

    def source() -> Any:
        nonlocal taken
        for item in range(length):
            with lock:
                taken += 1
            yield item

    for index, _ in enumerate(ordered_map(str, source(), ahead=ahead, threads=2)):
        assert taken <= index + 1 + ahead


@given(st.lists(st.integers(), max_size=50), st.integers(1, 10))
def test_batched_cuts_without_loss(items: list[int], size: int) -> None:
    batches = list(batched(items, size))
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(1 <= len(batch) <= size for batch in batches)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="found 0"):
        next(ordered_map(str, [1], ahead=0))
    with pytest.raises(ValueError, match="found 0"):
        next(batched([1], 0))
