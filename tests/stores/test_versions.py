"""Tags, older states, and replacing all rows by those of another model, in every store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rsicd_embed.errors import FingerprintError, SchemaError, StoreError
from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import Versioned, open_store, require_versioned
from tests.other_writer import before_the_lock

from .contract import MADE_BY, batch, stored, unit

OTHER = Provenance("other", MADE_BY.fingerprint.replace("dim:", "dim:1"), 5)
EYE = np.eye(OTHER.dim, dtype=np.float32)


@pytest.fixture(params=["exact", "nmslib", "lancedb"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}:{tmp_path / 'store'}"


@pytest.fixture
def store(uri: str) -> Iterator[Versioned]:
    with open_store(uri, MADE_BY) as opened:
        opened.upsert([batch(["a", "b"], label=["x", "y"])])
        yield require_versioned(opened)


def ids(store: object) -> set[str]:
    return set(stored(store))  # type: ignore[arg-type]


def test_tag_keeps_a_state(store: Versioned, uri: str) -> None:
    before = stored(store)
    store.tag("first")
    store.upsert([batch(["b", "c"], unit(2, seed=3), height=[1, 2])])
    store.delete(["a"])
    store.optimize()
    assert list(store.tags()) == ["first"]
    for opened in (store, require_versioned(open_store(uri))):
        assert ids(opened) == {"b", "c"}
        with opened.as_of("first") as old:
            assert stored(old) == before
            assert old.search(unit(1), k=5)["id"].to_pylist()
            assert old.info().rows == len(old) == 2
            for change in (
                lambda old=old: old.upsert([batch(["z"])]),
                lambda old=old: old.delete(["a"]),
                lambda old=old: old.optimize(),
            ):
                with pytest.raises(StoreError, match="read only; restore it first"):
                    change()


def test_tag_keeps_dropped_columns(store: Versioned, uri: str) -> None:
    before = stored(store)
    store.tag("first")
    store.drop_columns(["label"])
    store.upsert([batch(["b"], label=[2])])
    store.optimize()
    assert {id_: row["label"] for id_, row in stored(store).items()} == {"a": None, "b": 2}
    with store.as_of("first") as old:
        assert stored(old) == before
        with pytest.raises(StoreError, match="read only; restore it first"):
            old.drop_columns(["label"])
    store.restore("first")
    with open_store(uri) as again:
        assert stored(again) == before


def test_restore_can_be_undone(store: Versioned, uri: str) -> None:
    before = stored(store)
    store.tag("first")
    store.upsert([batch(["c"])])
    store.tag("second")
    store.restore("first")
    assert stored(store) == before
    store.upsert([batch(["d"])])
    with open_store(uri, MADE_BY) as again:
        assert ids(again) == {"a", "b", "d"}
    store.restore("second")
    assert ids(store) == {"a", "b", "c"}


def add_z(send: Callable[..., None], uri: str) -> None:
    with open_store(uri) as other:
        other.upsert([batch(["z"])])


def test_restore_tags_the_state_that_it_replaces(
    store: Versioned, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the rows that another process adds just before."""
    store.tag("first")
    for tag, message in (("first", "already exists"), ("a b", "expected a tag of letters")):
        with pytest.raises(StoreError, match=message):
            store.restore("first", tag)
    with pytest.raises(StoreError, match="no version 'other'"):
        store.restore("other", "left")
    assert list(store.tags()) == ["first"]
    before_the_lock(monkeypatch, add_z, uri)
    store.restore("first", "left")
    assert (ids(store), sorted(store.tags())) == ({"a", "b"}, ["first", "left"])
    with store.as_of("left") as left:
        assert ids(left) == {"a", "b", "z"}


def test_untag_removes_files(store: Versioned, uri: str) -> None:
    store.tag("first")
    store.delete(["a", "b"])
    store.untag("first")
    store.upsert([batch(["c"])])
    assert store.tags() == {}
    with pytest.raises(StoreError, match=r"no version 'first'; tags: none"):
        store.as_of("first")
    folder = Path(uri.partition(":")[2])
    if not uri.startswith("lancedb"):
        assert len(list(folder.glob("rows-*"))) == 1


@pytest.mark.parametrize("name", ["", "7", "a b", "../x", "a/b", "ä"])
def test_invalid_tag_names(store: Versioned, name: str) -> None:
    with pytest.raises(StoreError, match="expected a tag of letters"):
        store.tag(name)


def test_dots_in_tag_names(store: Versioned) -> None:
    """All stores accept the names that LanceDB does."""
    for name in (".a", "a.", "a..b", "a.lock"):
        with pytest.raises(StoreError, match="a tag with single dots inside, if any, and not end"):
            store.tag(name)
    store.tag("v1.2.lock-x")
    assert list(store.tags()) == ["v1.2.lock-x"]


def test_unknown_and_repeated_tags(store: Versioned) -> None:
    store.tag("here")
    with pytest.raises(StoreError, match="'here' already exists"):
        store.tag("here")
    for doing in (store.as_of, store.restore, store.untag):
        with pytest.raises(StoreError, match=r"no version 'gone'; tags: here"):
            doing("gone")


def test_versions_by_number_in_lancedb(tmp_path: Path) -> None:
    with open_store(f"lancedb:{tmp_path / 'store'}", MADE_BY) as opened:
        store = require_versioned(opened)
        store.upsert([batch(["a"])])
        number = store.as_of("2")
        store.upsert([batch(["b"])])
        assert ids(number) == {"a"}
        store.tag("now")
        for _ in range(3):
            store.upsert([batch(["c"])])
            store.optimize()  # LanceDB refuses to while an old version has a tag
        assert ids(store.as_of("now")) == {"a", "b"}


def test_replace_with_rows_of_another_model(store: Versioned, uri: str) -> None:
    before = stored(store)
    store.tag("old")
    other = require_versioned(open_store(uri))
    count = store.replace(
        (batch([f"{i}"], unit(1, OTHER.dim, seed=i), label=["n"]) for i in range(3)), OTHER
    )
    assert count == 3
    assert store.provenance == OTHER
    assert ids(store) == {"0", "1", "2"}
    assert store.search(unit(1, OTHER.dim, seed=1), k=1)["id"].to_pylist() == ["1"]
    for doing in (
        lambda: other.search(unit(1)),
        lambda: other.upsert([batch(["z"])]),
        lambda: len(other),
        lambda: open_store(uri, MADE_BY),
    ):
        with pytest.raises(FingerprintError, match="contains vectors of model 'other'"):
            doing()
    with open_store(uri, OTHER) as again:
        assert ids(again) == {"0", "1", "2"}
    store.restore("old")
    assert store.provenance == MADE_BY
    assert stored(store) == before
    assert stored(other) == before


def test_failed_replace_changes_nothing(store: Versioned) -> None:
    before = stored(store)
    with pytest.raises(Exception, match=re.escape("unit vectors")):
        store.replace([batch(["x"], np.full((1, OTHER.dim), 3, np.float32))], OTHER)
    assert stored(store) == before
    assert store.provenance == MADE_BY


@pytest.mark.parametrize("first", [["x", "y"], ["x", "x"]])
def test_replace_takes_each_id_once(store: Versioned, first: list[str]) -> None:
    """Also if it recurs in a later batch, which is written on its own."""
    before = stored(store)
    batches = [batch(first, EYE[:2]), batch(["x"], EYE[:1])]
    with pytest.raises(SchemaError, match=r"^expected each id once in all batches, found some"):
        store.replace(batches, OTHER)
    assert stored(store) == before


def test_replace_with_later_columns(store: Versioned) -> None:
    """Either the column is stored, or the error names it."""
    batches = [batch(["x"], EYE[:1]), batch(["y"], EYE[:1], late=["z"])]
    try:
        assert store.replace(batches, OTHER) == 2
    except SchemaError as error:
        assert str(error).endswith("found also late; add them to the first, with nulls")
        return
    assert [stored(store)[id_]["late"] for id_ in "xy"] == [None, "z"]


def test_replace_with_no_rows(store: Versioned) -> None:
    assert store.replace([], OTHER) == 0
    assert len(store) == 0
