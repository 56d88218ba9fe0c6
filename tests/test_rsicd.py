"""The real RSICD: figures of the bundled model, and identical hits from every store."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsicd_embed
from rsicd_embed.datasets import captioned
from rsicd_embed.datasets.base import Source
from rsicd_embed.embedder import locate
from rsicd_embed.evaluation.evaluator import Evaluator

BUNDLED = Path(locate.__file__).parent / "bundled"
STORES = ("exact", "nmslib", "lancedb")
QUERIES, K = 200, 10


@pytest.fixture(scope="module")
def embedder() -> Any:
    return rsicd_embed.load_embedder(backend="openvino")  # the fastest on a CPU


@pytest.fixture(scope="module")
def source(rsicd: Path) -> Source:
    return captioned.load(rsicd)


@pytest.mark.slow
def test_the_card_has_the_measured_figures(embedder: Any, source: Source) -> None:
    metrics = json.loads((BUNDLED / "metrics.json").read_text())
    # A fingerprint that changes with the code would lock users out of their stores.
    assert embedder.fingerprint == metrics["fingerprint"]
    figures = metrics["figures"]["RSICD val"]
    measured = Evaluator(source.split("val"))(embedder)
    # Kernels differ between machines, so a few of 1,094 images may change ranks.
    assert measured == pytest.approx(figures, abs=0.006)
    assert figures["zeroshot_top1"] > 5 / 30  # chance is 1 in 30
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    for split in metrics["figures"].values():
        for name in ("zeroshot_top1", "mr"):
            figure = f"{split[name]:.3f}"
            assert figure in card
            assert figure in page


@pytest.fixture(scope="module")
def test_split(source: Source) -> Source:
    """Every fourth image of the test split."""
    return dataclasses.replace(source, examples=source.split("test")[::4])


@pytest.fixture(scope="module")
def stores(test_split: Source, embedder: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Images are ingested into one store and imported into the others, to save time."""
    folder = tmp_path_factory.mktemp("stores")
    uris = {kind: f"{kind}:{folder / kind}" for kind in STORES}
    first = rsicd_embed.open_store(uris["exact"], embedder=embedder)
    summary = rsicd_embed.ingest([test_split], embedder, first)
    assert (summary.embedded, summary.skipped) == (274, [])
    rsicd_embed.export_rows(first, folder / "rows.parquet")
    opened = {"exact": first}
    for kind in STORES[1:]:
        assert rsicd_embed.import_rows([folder / "rows.parquet"], uris[kind]).imported == 274
        opened[kind] = rsicd_embed.open_store(uris[kind], embedder=embedder)
    yield opened
    for store in opened.values():
        store.close()


@pytest.fixture(scope="module")
def queries(test_split: Source, embedder: Any) -> np.ndarray:
    captions = sorted({caption for e in test_split.examples for caption in e.captions})
    chosen = np.random.default_rng(0).choice(captions, QUERIES, replace=False)
    return np.asarray(embedder.embed_texts(list(chosen)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nmslib", "lancedb"])
@pytest.mark.parametrize("where", [None, "label <> 'river'"])
def test_every_store_gives_the_same_hits(
    stores: Any, queries: np.ndarray, kind: str, where: str | None
) -> None:
    wanted, returned = (
        stores[name].search(queries, k=K, where=where).select(["query", "rank", "id"])
        for name in ("exact", kind)
    )
    assert wanted.num_rows == returned.num_rows == QUERIES * K
    ids = [np.array(t["id"].to_pylist()).reshape(QUERIES, K) for t in (wanted, returned)]
    same = (ids[0] == ids[1]).all(axis=1).mean()
    assert same >= 0.95


def test_words_find_matching_images(stores: Any, embedder: Any) -> None:
    """Far above chance (1 in 30), for classes with a distinct colour or shape."""
    words = {
        "desert": "desert",
        "forest": "forest",
        "farmland": "farmland",
        "beach": "beach",
        "meadow": "meadow",
        "parking lot": "parking",
    }
    hits = stores["exact"].search(embedder.embed_texts(list(words)), k=5).to_pydict()
    right = [
        list(words.values())[query] == label
        for query, label in zip(hits["query"], hits["label"], strict=True)
    ]
    assert np.mean(right) > 0.5


def test_a_picture_finds_itself(stores: Any, test_split: Source, embedder: Any) -> None:
    sample = test_split.examples[::50]
    hits = stores["nmslib"].search(embedder.embed_images([e.path for e in sample]), k=1)
    assert hits["id"].to_pylist() == [e.id for e in sample]
    assert min(hits["score"].to_pylist()) > 0.9999
