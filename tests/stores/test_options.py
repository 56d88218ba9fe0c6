"""Options in store URIs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lancedb
import pytest

from rsicd_embed.errors import StoreURIError
from rsicd_embed.stores.base import open_store
from rsicd_embed.stores.lancedb import lance_index, lance_reader, large_table
from rsicd_embed.stores.lancedb.lance_searcher import SearchedTable
from rsicd_embed.stores.uri import StoreURI

from .contract import MADE_BY, batch, unit


@pytest.mark.parametrize(
    ("text", "location", "options"),
    [
        ("nmslib:./a?M=32", "./a", (("M", "32"),)),
        ("nmslib:./a?M=32&recall=0.9", "./a", (("M", "32"), ("recall", "0.9"))),
        ("nmslib:./what?", "./what?", ()),
        ("nmslib:./what?M=32/b", "./what?M=32/b", ()),
        ("nmslib:./a?b&c=1", "./a?b&c=1", ()),
        ("lancedb:s3://b/c?recall=1#t", "s3://b/c", (("recall", "1"),)),
    ],
)
def test_parse_and_str(text: str, location: str, options: tuple[tuple[str, str], ...]) -> None:
    uri = StoreURI.parse(text)
    assert (uri.location, uri.options) == (location, options)
    assert str(uri) == text


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("exact:{}?M=3", "exact stores have no option 'M'; known options: none"),
        (
            "nmslib:{}?m=3",
            "nmslib stores have no option 'm'; known options: M, efConstruction, efSearch, recall",
        ),
        ("nmslib:{}?M=1", "expected M from 2 to 256, found '1'"),
        ("nmslib:{}?recall=high", "expected recall from 0.1 to 1, found 'high'"),
        ("lancedb:{}?recall=1.5", "expected recall from 0.1 to 1, found '1.5'"),
        ("lancedb:{}?nprobes=0", "expected nprobes from 1 to 100000, found '0'"),
        ("exact://./tiles", "a path after exact:, as in exact:./tiles, found '//./tiles'"),
        ("lancedb: {}", "remove the slashes or spaces before it"),
        (
            "lancedb:{}?M=5",
            "lancedb stores have no option 'M'; known options: recall, nprobes, refine",
        ),
    ],
)
def test_invalid_options_create_nothing(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(StoreURIError, match=message):
        open_store(uri.format(tmp_path / "store"), MADE_BY)
    assert list(tmp_path.iterdir()) == []


def test_graph_options(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    rows = [batch([f"{i}" for i in range(1200)], unit(1200))]
    with open_store(f"nmslib:{folder}?M=7&efConstruction=50&efSearch=90", MADE_BY) as store:
        store.upsert(rows)
        store.optimize()
        assert "M=7, efConstruction=50, efSearch=90" in store.info().index
    with open_store(f"nmslib:{folder}", MADE_BY) as again:
        assert "M=7, efConstruction=50, efSearch=90" in again.info().index
        assert again.search(unit(1200)[5], k=1)["id"].to_pylist() == ["5"]


def test_index_is_tuned_to_the_recall_goal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance_index, "INDEX_ROWS", 1000)
    monkeypatch.setattr(lance_reader, "CACHE_ROWS", 1000)
    monkeypatch.setattr(lance_index, "_LADDER", (1, 32))
    monkeypatch.setattr(lancedb.index, "IvfSq", partial(lancedb.index.IvfSq, num_partitions=32))
    for goal, setting in (("0.1", "nprobes=1,"), ("1", "nprobes=32")):
        with open_store(f"lancedb:{tmp_path / goal}?recall={goal}", MADE_BY) as store:
            store.upsert([batch([f"{i}" for i in range(3000)], unit(3000))])
            store.optimize()
            assert setting in store.info().index


def test_index_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance_index, "INDEX_ROWS", 1000)
    monkeypatch.setattr(lance_reader, "CACHE_ROWS", 1000)
    monkeypatch.setattr(large_table, "_CODES_SHARE", 0.0)  # search by the index
    searched = []
    refined = SearchedTable.refined

    def watched(self: SearchedTable, *arguments: Any) -> Any:
        searched.append(arguments[-2:])
        return refined(self, *arguments)

    with open_store(f"lancedb:{tmp_path}", MADE_BY) as store:
        store.upsert([batch([f"{i}" for i in range(3000)], unit(3000))])
        store.optimize()
    monkeypatch.setattr(SearchedTable, "refined", watched)
    for options in ("", "?nprobes=3", "?refine=7", "?nprobes=3&refine=7"):
        with open_store(f"lancedb:{tmp_path}{options}", MADE_BY) as store:
            store.search(unit(3000)[5], k=1)
    (usual, *rest) = searched
    assert rest == [(3, usual[1]), (usual[0], 7), (3, 7)]
