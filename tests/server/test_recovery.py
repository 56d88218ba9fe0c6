"""A store that disappears, returns, grows or changes its model while it is served."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import rsicd_embed
from rsicd_embed.embedder.loading import load_for_a_query
from tests.conftest import picture
from tests.helpers import SCHEMES, run

from .conftest import Archive, make_archive

SEARCH = {"text": "a port", "k": 50}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_removed_store_comes_back(
    tmp_path: Path, tiny_model: Path, serve: Callable[[Archive], Any], scheme: str
) -> None:
    archive = make_archive(tmp_path, tiny_model, scheme, count=5)
    client = serve(archive)
    before = client.get("/api/search", params=SEARCH).json()
    store, aside = tmp_path / "store", tmp_path / "aside"
    store.rename(aside)
    for got in (
        client.get("/api/search", params=SEARCH),
        client.get("/api/pictures", params={"id": archive.ids[0]}),
        client.get("/readyz"),
    ):
        assert got.status_code == 503, got.text
        assert got.headers["retry-after"]
        assert str(tmp_path) not in got.text
    assert client.get("/healthz").status_code == 200
    aside.rename(store)
    assert client.get("/api/search", params=SEARCH).json() == before
    assert client.get("/readyz").json()["rows"] == 5
    shutil.rmtree(store)
    assert client.get("/api/search", params=SEARCH).status_code == 503
    again = make_archive(tmp_path / "again", tiny_model, scheme, count=7)
    (tmp_path / "again" / "store").rename(store)
    hits = client.get("/api/search", params=SEARCH).json()["hits"]
    assert {hit["id"] for hit in hits} == set(again.ids)


def test_store_reembedded_with_another_model(
    own_archive: Archive, other_model: Path, serve: Callable[[Archive], Any]
) -> None:
    client = serve(own_archive)
    before = client.get("/api/search", params=SEARCH).json()["hits"]
    assert run("reembed", "--store", own_archive.uri, "--model", other_model).status == 0
    after = client.get("/api/search", params=SEARCH).json()["hits"]
    assert [hit["score"] for hit in after] != [hit["score"] for hit in before]
    with rsicd_embed.open_store(own_archive.uri) as store:
        vectors = load_for_a_query(other_model).embed_texts(["a port"])
        wanted = store.search(vectors, k=50).to_pylist()
    assert [hit["id"] for hit in after] == [hit["id"] for hit in wanted]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_searches_during_writes(
    tmp_path: Path, tiny_model: Path, serve: Callable[[Archive], Any], scheme: str
) -> None:
    """Each text gets its own hits, whatever state of the store is read."""
    archive = make_archive(tmp_path, tiny_model, scheme, count=6)
    client = serve(archive)
    texts = [f"{text} number {i}" for i in range(12) for text in ("a port", "a green meadow")]
    embedder = load_for_a_query(tiny_model)
    with rsicd_embed.open_store(archive.uri) as store:
        rows = store.scan(["id", "vector"]).read_all().to_pylist()
    first = {row["id"]: row["vector"] for row in rows}
    vectors = dict(zip(texts, embedder.embed_texts(texts), strict=True))
    writing = threading.Event()

    def write() -> None:
        with rsicd_embed.open_store(archive.uri, embedder=embedder) as store:
            for i in range(8):
                extra = archive.folder / f"extra{i}.png"
                picture(100 + i).save(extra)
                rsicd_embed.ingest(rsicd_embed.open_sources([extra]), embedder, store)
        writing.set()

    def ask(text: str) -> tuple[str, Any]:
        return text, client.get("/api/search", params={"text": text, "k": 200})

    answers = 0
    with ThreadPoolExecutor(8) as pool:
        written = pool.submit(write)
        while not (writing.is_set() and answers):
            for text, got in pool.map(ask, texts):
                assert got.status_code == 200, got.text
                assert got.json()["query"] == text
                hits = {hit["id"]: hit["score"] for hit in got.json()["hits"]}
                assert set(first) <= set(hits)
                for id_, vector in first.items():
                    assert hits[id_] == pytest.approx(float(vectors[text] @ vector), abs=1e-4)
                answers += 1
            if written.done():
                written.result()
    hits = ask(texts[0])[1].json()["hits"]
    assert len(hits) == 6 + 8
