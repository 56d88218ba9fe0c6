"""The example store, installed like a package, passes the contract of all stores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsicd_embed.errors import StoreError, StoreURIError
from rsicd_embed.stores.base import open_store
from rsicd_embed.testing.stores import MADE_BY, StoreContract, batch, unit
from rsicd_embed.testing.stores.state_machine import SETTINGS, StoreMachine
from tests.helpers import run

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An installed distribution on the path of this process and its children."""
    folder = tmp_path_factory.mktemp("site")
    about = folder / "store_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: store-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[rsicd_embed.stores]\narrow = examples.store_plugin:ArrowStore\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(PROJECT)]))
        yield


class TestExample(StoreContract):
    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return f"arrow:{tmp_path}/tiles.arrow"


class ExampleAgrees(StoreMachine):
    tolerance = 0

    def uris(self, folder: Path) -> list[str]:
        return [f"arrow:{folder}/tiles.arrow"]


class TestExampleAgrees(ExampleAgrees.TestCase):
    settings = SETTINGS


def test_length_is_as_documented() -> None:
    assert len((PROJECT / "examples" / "store_plugin.py").read_text().splitlines()) < 90


def test_scheme_is_found(tmp_path: Path) -> None:
    with pytest.raises(StoreURIError, match="known schemes: arrow, exact, lancedb, nmslib"):
        open_store("nothing:x")


def test_commands_accept_the_scheme(pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    uri = f"arrow:{tmp_path}/tiles.arrow"
    ingest = ("ingest", pictures, "--store", uri, "--model", tiny_model, "--json")
    assert run(*ingest).document["embedded"] == 5
    assert run(*ingest).document["unchanged"] == 5
    hits = run("search", "--image", pictures / "c.jpg", "--store", uri, "-k", 1, "--json").document
    assert [hit["id"] for hit in hits["hits"]] == ["c.jpg"]
    assert run("info", "--store", uri, "--json").document["rows"] == 5


def test_writes_are_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with open_store(f"arrow:{tmp_path}/tiles.arrow", MADE_BY) as store:
        store.upsert([batch(["a"])])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match="No space left on device; free some space"):
                store.upsert([batch(["b"])])
        assert store.search(unit(1))["id"].to_pylist() == ["a"]
