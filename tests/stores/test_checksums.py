"""Our checksums detect damage that LanceDB does not notice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import lancedb
import pytest

from rsicd_embed.errors import StoreCorruptError, StoreError
from rsicd_embed.stores.base import open_store, require_versioned
from rsicd_embed.stores.lancedb import checksums

from .contract import MADE_BY, batch, stored, unit


@pytest.fixture
def uri(tmp_path: Path) -> str:
    uri = f"lancedb:{tmp_path / 'store'}"
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch([f"i{i}" for i in range(40)], unit(40), n=list(range(40)))])
        store.delete(["i3"])
    return uri


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "store" / "images.lance"


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 4
    path.write_bytes(raw)


@pytest.mark.parametrize("part", ["data/*", "_versions/*.manifest", "_deletions/*"])
def test_flipped_bits(uri: str, table: Path, part: str) -> None:
    for path in table.glob(part):
        whole = path.read_bytes()
        flip(path)
        with pytest.raises(
            StoreCorruptError, match="is damaged: its checksum is not the recorded one"
        ):
            stored(open_store(uri))
        path.write_bytes(whole)
    assert len(stored(open_store(uri))) == 39


def test_newest_version_is_missing(uri: str, table: Path) -> None:
    min(table.glob("_versions/*.manifest")).unlink()
    with pytest.raises(StoreCorruptError, match="version 4 is gone, the newest one left is 3"):
        len(open_store(uri))


def test_swapped_and_missing_tags(uri: str, table: Path) -> None:
    with open_store(uri) as opened:
        store = require_versioned(opened)
        store.tag("one")
        store.upsert([batch(["z"])])
        store.tag("two")
        first_path, second_path = (
            table / "_refs" / "tags" / f"{name}.json" for name in ("one", "two")
        )
        first, second = first_path.read_bytes(), second_path.read_bytes()
        first_path.write_bytes(second)
        second_path.write_bytes(first)
        uses: list[Callable[[], object]] = [store.tags, lambda: store.as_of("one")]
        for use in uses:
            with pytest.raises(StoreCorruptError, match="is damaged"):
                use()
        first_path.write_bytes(first)
        second_path.unlink()
        with pytest.raises(StoreCorruptError, match="is gone"):
            store.tags()


def test_other_programs_may_write_and_clean_up(uri: str, table: Path) -> None:
    other = lancedb.connect(str(table.parent)).open_table("images")
    other.delete("id = 'i5'")
    other.optimize(cleanup_older_than=timedelta(milliseconds=1))
    with open_store(uri) as store:
        assert len(stored(store)) == 38
        store.upsert([batch(["z"])])
    assert len(stored(open_store(uri))) == 39


def test_missing_and_damaged_checksums(uri: str, table: Path) -> None:
    path = table / checksums.FILE
    flip(path)
    with pytest.raises(StoreCorruptError, match="delete it to use the table without checks"):
        open_store(uri)
    path.unlink()
    assert len(stored(open_store(uri))) == 39


def test_failed_sync_undoes_the_change(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsicd_embed import files

    def fails(path: Path) -> None:
        raise OSError(5, "Input/output error")

    with open_store(uri) as store:
        before = stored(store)
        with monkeypatch.context() as patch:
            patch.setattr(files, "sync_file", fails)
            with pytest.raises(StoreError, match=r"stays as it was: Input/output error"):
                store.upsert([batch(["z"])])
        assert stored(store) == before
        store.upsert([batch(["z"])])
        assert set(stored(open_store(uri))) == set(before) | {"z"}


def test_interrupted_deletion_of_a_tag(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process stops before the checksums are updated."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with open_store(uri) as opened:
        store = require_versioned(opened)
        store.tag("one")
        with monkeypatch.context() as patch:
            patch.setattr(checksums.Checksums, "update", stopped)
            with pytest.raises(KeyboardInterrupt):
                store.untag("one")
        assert require_versioned(open_store(uri)).tags() == {}
