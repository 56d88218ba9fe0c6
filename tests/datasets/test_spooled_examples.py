"""Examples in a file behave like those in memory, and are read in batches."""

from __future__ import annotations

import gc
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from rsicd_embed.datasets import spooled_examples
from rsicd_embed.datasets.base import Example
from rsicd_embed.datasets.sources import open_source, open_sources
from rsicd_embed.datasets.spooled_examples import Digests, SpooledExamples, collect
from rsicd_embed.errors import DatasetError
from rsicd_embed.indexing.shards import Shard
from rsicd_embed.testing.embedders import picture

from ..helpers import Counting, counts, ingest, rows

COLUMNS = pa.schema([("label", pa.string()), ("captions", pa.list_(pa.string()))])


@pytest.fixture
def all_spooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spools every source with more than one example, in batches of two."""
    monkeypatch.setattr(spooled_examples, "MOST_IN_MEMORY", 1)
    monkeypatch.setattr(spooled_examples, "_BATCH_ROWS", 2)


def example(number: int) -> Example:
    return Example(f"{number}", f"/x/{number}.png", {"label": None, "captions": [f"a {number}"]})


@pytest.mark.usefixtures("all_spooled")
def test_sequence() -> None:
    expected = tuple(map(example, range(7)))
    spooled = collect(iter(expected), COLUMNS)
    assert isinstance(spooled, SpooledExamples)
    assert (len(spooled), tuple(spooled), tuple(spooled)) == (7, expected, expected)
    assert [spooled[n] for n in range(-7, 7)] == [*expected, *expected]
    assert spooled[2:5] == expected[2:5]
    with pytest.raises(IndexError):
        spooled[7]
    path = Path(spooled._path)
    assert path.exists()
    del spooled
    gc.collect()
    assert not path.exists()
    assert collect(expected[:1], COLUMNS) == expected[:1]


def test_digests() -> None:
    digests = Digests(["a", "b", "a", "c"])
    assert digests.have(["a", "x", "c"]).tolist() == [True, False, True]
    assert digests.repeated().have(["a", "b", "c"]).tolist() == [True, False, False]
    assert Digests([]).have(["a"]).tolist() == [False]
    assert len(Digests([]).repeated()) == 0


@pytest.mark.usefixtures("all_spooled")
def test_folders_are_in_the_order_of_ids(tmp_path: Path) -> None:
    names = ["a.png", "a/b.png", "a-b.png", "a/b/c.png", "b.png", "a0.png", "a/b-c.png", "B.png"]
    for name in names:
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.png").touch()
    (tmp_path / "root" / "a" / "link").symlink_to(elsewhere)
    source = open_source(tmp_path / "root")
    assert isinstance(source.examples, SpooledExamples)
    ids = [example.id for example in source.examples]
    assert sorted(ids) == sorted([*names, "a/link/x.png"])
    assert all(first < second for first, second in pairwise(ids))


@pytest.mark.usefixtures("all_spooled")
def test_ingest(embedder: Counting, uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number, label in enumerate(["port", "farm", "port", "farm", "port"]):
        (folder / "train" / label).mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / "train" / label / f"{number}.png")
    assert counts(ingest(embedder, uri, folder)) == (5, 0, 0, 0, 0)
    labels = {row["label"] for row in rows(uri).values()}
    assert (labels, {row["split"] for row in rows(uri).values()}) == ({"port", "farm"}, {"train"})
    (folder / "train" / "port" / "0.png").unlink()
    picture(9).save(folder / "train" / "farm" / "1.png")
    assert counts(ingest(embedder, uri, folder, prune=True)) == (1, 0, 3, 1, 0)
    parts = [Shard(n, 2).select(open_sources([folder])) for n in range(2)]
    assert sum(len(source.examples) for part in parts for source in part) == 4
    assert len(open_sources([folder], split="train")[0].examples) == 4


@pytest.mark.usefixtures("all_spooled")
def test_an_id_of_two_images_is_found(tmp_path: Path) -> None:
    for name in ("1/a.png", "1/b.png", "2/b.png", "2/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=r"1/b\.png and .*2/b\.png would both get the id"):
        open_sources([tmp_path / "1", tmp_path / "2"])
