"""Ingest with unreadable images and interruptions: the rows that are kept, and resuming."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from rsicd_embed.errors import ImageError
from rsicd_embed.indexing import writer

from .conftest import picture
from .helpers import IDS, Counting, counts, ingest, rows

# ------------------------------------------------------------------ unreadable images


def test_an_unreadable_image_is_reported_and_the_others_embedded(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    (pictures / "b.png").write_text("no picture")
    summary = ingest(embedder, each_uri, pictures)
    assert counts(summary) == (4, 0, 0, 0, 1)
    assert summary.skipped[0].uri == str(pictures / "b.png")
    assert summary.skipped[0].reason.startswith("not an image")
    assert "b.png" not in rows(each_uri)


def test_a_picture_that_becomes_unreadable_keeps_its_row(
    embedder: Counting, uri: str, pictures: Path
) -> None:
    ingest(embedder, uri, pictures)
    before = rows(uri)
    (pictures / "b.png").write_text("no picture")
    assert counts(ingest(embedder, uri, pictures, prune=True)) == (0, 0, 4, 0, 1)
    assert rows(uri) == before


def test_strict_keeps_what_was_embedded_before(
    embedder: Counting, each_uri: str, pictures: Path
) -> None:
    (pictures / "d.tif").write_bytes(b"")
    with pytest.raises(ImageError, match=r"d\.tif: empty file"):
        ingest(embedder, each_uri, pictures, strict=True)
    assert sorted(rows(each_uri)) == ["a.png", "b.png", "c.jpg"]
    picture(3).save(pictures / "d.tif")
    embedder.taken()
    assert counts(ingest(embedder, each_uri, pictures, strict=True)) == (2, 0, 3, 0, 0)
    assert embedder.taken() == 2


# ------------------------------------------------------------------ interruption


def _interrupt_on(call: int) -> Callable[..., None]:
    calls = itertools.count(1)

    def interrupt(*_: int) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt

    return interrupt


def test_interrupted_between_images(embedder: Counting, each_uri: str, pictures: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ingest(embedder, each_uri, pictures, progress=_interrupt_on(3))
    # The third image is already loaded, so it is embedded too.
    assert sorted(rows(each_uri)) == IDS[:3]
    assert embedder.taken() == 3
    assert counts(ingest(embedder, each_uri, pictures)) == (2, 0, 3, 0, 0)
    assert embedder.taken() == 2


def test_interrupted_while_embedding(embedder: Counting, each_uri: str, pictures: Path) -> None:
    embedder.before = _interrupt_on(2)
    with pytest.raises(KeyboardInterrupt):
        ingest(embedder, each_uri, pictures)
    assert sorted(rows(each_uri)) == IDS[:2]
    embedder.taken()
    assert counts(ingest(embedder, each_uri, pictures)) == (3, 0, 2, 0, 0)
    assert embedder.taken() == 3


def test_an_embedder_that_fails_loses_nothing(embedder: Counting, uri: str, pictures: Path) -> None:
    def fail() -> None:
        if embedder.embedded:
            raise RuntimeError("out of device memory")

    embedder.before = fail
    with pytest.raises(RuntimeError, match="device memory"):
        ingest(embedder, uri, pictures)
    assert sorted(rows(uri)) == IDS[:2]


def test_long_runs_commit_as_they_go(
    embedder: Counting, uri: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "COMMIT_ROWS", 2)
    seen = []
    embedder.before = lambda: seen.append(len(rows(uri)))
    ingest(embedder, uri, pictures)
    assert seen == [0, 2, 4]


def test_progress_counts_every_image(embedder: Counting, uri: str, pictures: Path) -> None:
    (pictures / "b.png").write_bytes(b"")
    ingest(embedder, uri, pictures / "a.png")
    done: list[int] = []
    ingest(embedder, uri, pictures, progress=done.append)
    assert done == [1] * 5
