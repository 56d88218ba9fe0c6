"""Public functions refuse a single item instead of a list, or a name instead of an object.

`test_table_covers_the_public_functions` checks that the table is complete.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsicd_embed as r
from rsicd_embed.datasets.base import Source
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import RsicdEmbedError
from rsicd_embed.evaluation import metrics, zeroshot
from rsicd_embed.stores.base import VectorStore

from .helpers import SCHEMES, filled


@dataclass(frozen=True)
class Context:
    """The objects used by the calls."""

    embedder: Any
    store: VectorStore
    picture: Path


PICTURE = Image.new("RGB", (8, 8))
# A call, and part of the expected message.
CALLS: dict[str, tuple[Callable[[Context], object], str]] = {
    "embed_texts, a text": (lambda c: c.embedder.embed_texts("a river"), "put it in a list"),
    "embed_texts, bytes": (lambda c: c.embedder.embed_texts(b"a river"), "list of texts"),
    "embed_texts, None": (lambda c: c.embedder.embed_texts(None), "list of texts, found None"),
    "embed_texts, numbers": (lambda c: c.embedder.embed_texts(["a", 1]), "found 1 at position 1"),
    "embed_texts, an iterator of numbers": (
        lambda c: c.embedder.embed_texts(iter([1])),
        "found 1 at position 0",
    ),
    "embed_texts, lone surrogate": (
        lambda c: c.embedder.embed_texts(["a", "a \ud800"]),
        "a lone surrogate in 'a \\ud800' at position 1",
    ),
    "open_sources, a column type": (
        lambda c: r.open_sources([c.picture.parent], column_types="taken"),
        "expected column types such as",
    ),
    "embed_images, a name": (lambda c: c.embedder.embed_images("a.png"), "put it in a list"),
    "embed_images, a path": (lambda c: c.embedder.embed_images(c.picture), "put it in a list"),
    "embed_images, bytes": (lambda c: c.embedder.embed_images(b"\x89PNG"), "put it in a list"),
    "embed_images, a picture": (lambda c: c.embedder.embed_images(PICTURE), "put it in a list"),
    "embed_images, arrays": (
        lambda c: c.embedder.embed_images([np.zeros((8, 8, 3), np.uint8)]),
        "found an object of type ndarray at position 0",
    ),
    "search, a text": (
        lambda c: c.store.search("a river"),
        "embed it first: store.search(embedder.embed_texts(['a river']))",
    ),
    "search, texts": (lambda c: c.store.search(["a", "b"]), "embedder.embed_texts(['a'])"),
    "search, a path": (lambda c: c.store.search(c.picture), "embedder.embed_images(["),
    "search, a picture": (lambda c: c.store.search(PICTURE), "expected quer"),
    "search, None": (lambda c: c.store.search(None), "expected query vectors"),
    "search, where": (lambda c: c.store.search(unit(c), where=["a"]), "a SQL condition as where"),
    "search, k": (lambda c: c.store.search(unit(c), k="3"), "expected k to be a whole number"),
    "scan, a column": (lambda c: c.store.scan("id"), "list of names of columns, found 'id'"),
    "scan, where": (lambda c: c.store.scan(None, ["id"]), "a SQL condition as where"),
    "delete, an id": (lambda c: c.store.delete("a"), "list of ids, found 'a'; put it in a list"),
    "drop_columns, a name": (lambda c: c.store.drop_columns("label"), "list of names of columns"),
    "delete, a number": (lambda c: c.store.delete(5), "list of ids, found 5"),
    "upsert, a row": (lambda c: c.store.upsert({"id": "a"}), "list of Arrow record batches"),
    "upsert, rows": (lambda c: c.store.upsert([{"id": "a"}]), "RecordBatch.from_pylist(rows)"),
    "upsert, a path": (lambda c: c.store.upsert("rows.parquet"), "list of Arrow record batches"),
    "upsert, None": (lambda c: c.store.upsert(None), "list of Arrow record batches, found None"),
    "open_sources, a folder": (lambda c: r.open_sources("tiles"), "list of paths, found 'tiles'"),
    "open_sources, a path": (lambda c: r.open_sources(c.picture), "put it in a list"),
    "open_sources, numbers": (lambda c: r.open_sources([5]), "found 5 at position 0"),
    "ingest, a folder": (lambda c: r.ingest("tiles", c.embedder, c.store), "list of sources"),
    "ingest, folders": (
        lambda c: r.ingest(["tiles"], c.embedder, c.store),
        "found 'tiles'; pass rsicd_embed.open_sources(",
    ),
    "ingest, a source": (lambda c: r.ingest(source(c), c.embedder, c.store), "put it in a list"),
    "ingest, a URI": (
        lambda c: r.ingest([source(c)], c.embedder, "exact:./x"),
        "found 'exact:./x'; pass rsicd_embed.open_store('exact:./x')",
    ),
    "ingest, a model": (
        lambda c: r.ingest([source(c)], "bundled", c.store),
        "found 'bundled'; pass rsicd_embed.load_embedder('bundled')",
    ),
    "export_rows, a URI": (lambda c: r.export_rows("exact:./x", "a.parquet"), "open_store("),
    "import_rows, a file": (lambda c: r.import_rows("a.parquet", "exact:./x"), "list of paths"),
    "import_rows, a store": (
        lambda c: r.import_rows([exported(c)], c.store),
        "expected a store URI such as 'lancedb:./tiles', found an object of type ",
    ),
    "show, a name": (lambda c: r.show("tiles"), "expected an Arrow table of hits"),
    "sql, a URI": (lambda c: r.sql("SELECT 1", "exact:./x"), "rsicd_embed.open_store('exact:./x')"),
    "sql, a model": (lambda c: r.sql("SELECT 1", c.store, "bundled"), "load_embedder('bundled')"),
    "sql, queries": (lambda c: r.sql(["SELECT 1"], c.store), "a SQL query as a string"),
    "open_store, a path": (lambda c: r.open_store(c.picture), "expected a store URI"),
    "open_store, a model": (lambda c: r.open_store("exact:x", embedder="clip"), "load_embedder("),
    "open_store, both": (
        lambda c: r.open_store("exact:x", c.store.provenance, embedder=c.embedder),
        "provenance or embedder, found both; pass one",
    ),
    "load_embedder, a number": (lambda c: r.load_embedder(5), "name or directory of a model"),
    "load_embedder, a batch": (lambda c: r.load_embedder(batch_size="64"), "a batch size ≥ 1"),
    "class_names, a name": (lambda c: zeroshot.class_names("port"), "list of class names"),
    "class_vectors, a name": (
        lambda c: zeroshot.class_vectors(c.embedder, "port", ["a {category}"]),
        "list of class names",
    ),
    "class_vectors, a prompt": (
        lambda c: zeroshot.class_vectors(c.embedder, ["port"], "a {category}"),
        "list of prompts",
    ),
    "require_prompts, a prompt": (lambda c: zeroshot.require_prompts("a"), "list of prompts"),
    "topk_accuracy, a k": (
        lambda c: metrics.topk_accuracy(np.eye(2), np.arange(2), 5),
        "list of cut-offs, found 5; put it in a list",
    ),
    "retrieval_metrics, a text": (
        lambda c: metrics.retrieval_metrics(np.ones(2), np.ones(2), "15"),
        "list of cut-offs",
    ),
}


def unit(context: Context) -> np.ndarray:
    """A query vector."""
    return np.eye(1, context.store.provenance.dim, dtype=np.float32)


def source(context: Context) -> Source:
    """A source with one image."""
    return r.open_sources([context.picture])[0]


def exported(context: Context) -> Path:
    """An exported row file."""
    file = context.picture.with_name("rows.parquet")
    r.export_rows(context.store, file)
    return file


@pytest.fixture(scope="module", params=SCHEMES)
def context(
    request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Context]:
    folder = tmp_path_factory.mktemp("arguments")
    picture = folder / "a.png"
    PICTURE.save(picture)
    embedder = r.load_embedder(tiny_model, backend="numpy")
    with r.open_store(filled(f"{request.param}:{folder / 'store'}")) as store:
        yield Context(embedder, store, picture)


@pytest.mark.parametrize("name", CALLS)
def test_wrong_types_are_refused_in_one_line(context: Context, name: str) -> None:
    call, message = CALLS[name]
    rows = len(context.store)
    with pytest.raises(RsicdEmbedError) as caught:
        call(context)
    text = str(caught.value)
    assert message in text
    assert text.startswith("expected ")
    assert "\n" not in text
    assert len(text) < 300
    assert len(context.store) == rows


def test_wrong_types_are_type_errors(context: Context) -> None:
    with pytest.raises(TypeError, match="open_store"):
        r.ingest([source(context)], context.embedder, "exact:./x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="put it in a list"):
        context.embedder.embed_texts("a river")


def test_table_covers_the_public_functions() -> None:
    """A new public function or method needs a row in the table, or an exemption."""
    public = {name for name in r.__all__ if inspect.isfunction(getattr(r, name))}
    methods = {
        name
        for protocol in (VectorStore, Embedder)
        for name, method in vars(protocol).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }
    checked = {name.partition(",")[0] for name in CALLS}
    # These take arrays or nothing.
    exempt = {"preprocess", "embed_pixels", "optimize", "info", "close"}
    assert (public | methods) - checked - exempt == set()


def test_iterators_are_accepted(context: Context) -> None:
    """Any iterable of items is accepted, such as a generator or an array of texts."""
    texts = ["a river", "a port"]
    expected = context.embedder.embed_texts(texts)
    for several in (tuple(texts), iter(texts), np.array(texts), dict.fromkeys(texts).keys()):
        np.testing.assert_array_equal(context.embedder.embed_texts(several), expected)
    images = context.embedder.embed_images(image for image in [PICTURE, context.picture])
    assert images.shape == (2, context.embedder.dim)
    assert context.store.delete(id_ for id_ in ["nobody"]) == 0
