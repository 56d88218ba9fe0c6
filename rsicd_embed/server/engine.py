"""A store with the model that made it, and what is asked of them; opened again when they change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import FilterError, QueryError, RequestError, StoreError
from rsicd_embed.files import Closing
from rsicd_embed.records import VECTOR, python_rows, require_same_model
from rsicd_embed.server import attributes, conditions
from rsicd_embed.server.conditions import Condition
from rsicd_embed.stores.base import VectorStore, open_store

T = TypeVar("T")

# Embedders that compile do so for these numbers of texts and pictures; more of the latter are rare.
_WARM_SIZES = (1, 4, 16, 64)
_MOST_WARM_PICTURES = 16
# Texts are padded to few lengths; these are of the two that nearly all have.
_WARM_TEXTS = (
    "a port",
    "a large port with many white boats near a long beach and some green trees",
)


@dataclass(frozen=True)
class Ask:
    """A search: by a text, by pixels that the model's `preprocess` gave, or by a stored id."""

    k: int
    text: str | None = None
    pixels: np.ndarray | None = None
    id: str | None = None
    filters: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class File:
    """What a store knows of a picture's file."""

    uri: str | None
    sha256: str | None


@dataclass(frozen=True)
class Opened:
    """A store, and the model whose vectors it holds."""

    store: VectorStore
    embedder: Embedder


Hits = list[dict[str, Any]]


class Engine(Closing):
    """Answers in batches. What it opens stays open until the store changes its model or is gone."""

    def __init__(self, uri: str, load: Callable[[str], Embedder], model: str | None = None) -> None:
        """`load` makes the embedder of a name; `model` is one instead of what the store names."""
        self.uri = uri
        self._load, self._model = load, model
        self._opened: Opened | None = None
        self._held: Embedder | None = None  # outlives a store that is gone for a while
        self._mutex = threading.RLock()

    def open(self) -> Opened:
        """What is open already, or is now.

        Raises:
            StoreError: the store is not there, or cannot be read.
            ModelError: the model cannot be loaded.
            FingerprintError: the model that was named did not make the store.
        """
        with self._mutex:
            if self._opened is None:
                store = open_store(self.uri)
                try:
                    self._opened = Opened(store, self._embedder_of(store))
                except BaseException:
                    store.close()
                    raise
            return self._opened

    def _embedder_of(self, store: VectorStore) -> Embedder:
        if self._held is None or self._held.fingerprint != store.provenance.fingerprint:
            embedder = self._load(self._model or store.provenance.model)
            require_same_model(store.provenance, provenance(embedder), self.uri)
            self._held = embedder
        return self._held

    def close(self) -> None:
        """Frees what is open; the next question opens it again."""
        with self._mutex:
            opened, self._opened = self._opened, None
            if opened is not None:
                opened.store.close()

    def warm(self) -> None:
        """Runs every program that searches will run, so that none is compiled for the first."""
        opened = self.open()
        pixels = opened.embedder.preprocess(Image.new("RGB", (64, 64)))
        for size in (one for one in _WARM_SIZES if one <= opened.embedder.batch_size):
            if size <= _MOST_WARM_PICTURES:
                opened.embedder.embed_pixels(np.stack([pixels] * size))
            for text in _WARM_TEXTS:
                opened.embedder.embed_texts([text] * size)
        self.search([Ask(1, text="a port")])

    def search(self, asks: Sequence[Ask]) -> list[Hits | Exception]:
        """The hits of each search, or the reason why there are none.

        Each hit has rank, id, score and the attributes of its row. A search by an id leaves out
        that row.
        """
        return self._twice(lambda opened: _answers(opened, asks))

    def files(self, ids: Sequence[str]) -> list[File | Exception]:
        """The files of rows; RequestError 404 for an id that is not there."""

        def look(opened: Opened) -> list[File | Exception]:
            rows = {row["id"]: row for row in _rows(opened.store, ids, ["id", "uri", "sha256"])}
            return [
                File(rows[id_]["uri"], rows[id_]["sha256"]) if id_ in rows else _unknown(id_)
                for id_ in ids
            ]

        return self._twice(look)

    def columns(self) -> dict[str, Any]:
        """See `attributes.describe`."""
        return self._twice(lambda opened: attributes.describe(opened.store))

    def rows(self) -> int:
        """How many rows there are."""
        return self._twice(lambda opened: len(opened.store))

    def _twice(self, ask: Callable[[Opened], T]) -> T:
        """Asks; once more of a store that is opened anew, where it is not what it was."""
        opened = self.open()
        try:
            return ask(opened)
        except StoreError:
            self._drop(opened)
            return ask(self.open())

    def _drop(self, opened: Opened) -> None:
        with self._mutex:
            if self._opened is opened:
                self.close()


def _answers(opened: Opened, asks: Sequence[Ask]) -> list[Hits | Exception]:
    found: list[Hits | Exception] = [[] for _ in asks]
    vectors = _vectors(opened, asks)
    groups: dict[str | None, list[int]] = {}
    schema = opened.store.schema
    for i, ask in enumerate(asks):
        if vectors[i] is None:
            found[i] = _unknown(str(ask.id))
            continue
        try:
            groups.setdefault(conditions.where(ask.filters, schema), []).append(i)
        except RequestError as error:
            found[i] = error
    for where, members in groups.items():
        # One more for searches by an id, which will be left out.
        k = max(asks[i].k + (asks[i].id is not None) for i in members)
        try:
            table = opened.store.search(np.stack([vectors[i] for i in members]), k=k, where=where)
        except (FilterError, QueryError) as error:
            for i in members:
                found[i] = RequestError(422, str(error))
            continue
        for i, hits in zip(members, _split(table, len(members)), strict=True):
            found[i] = _trimmed(hits, asks[i])
    return found


def _vectors(opened: Opened, asks: Sequence[Ask]) -> list[Any]:
    """float32 (dim,) for each search; None for an id that is not there."""
    vectors: list[Any] = [None] * len(asks)
    texts = list(dict.fromkeys(ask.text for ask in asks if ask.text is not None))
    by_text = dict(zip(texts, opened.embedder.embed_texts(texts) if texts else (), strict=True))
    pixels = [ask.pixels for ask in asks if ask.pixels is not None]
    by_pixels = iter(opened.embedder.embed_pixels(np.stack(pixels)) if pixels else ())
    ids = [ask.id for ask in asks if ask.id is not None]
    by_id = {
        row["id"]: np.asarray(row[VECTOR], np.float32)
        for row in (_rows(opened.store, ids, ["id", VECTOR]) if ids else ())
    }
    for i, ask in enumerate(asks):
        if ask.text is not None:
            vectors[i] = by_text[ask.text]
        elif ask.pixels is not None:
            vectors[i] = next(by_pixels)
        else:
            vectors[i] = by_id.get(str(ask.id))
    return vectors


def _rows(store: VectorStore, ids: Sequence[str], columns: list[str]) -> Hits:
    # Doubling quotes is all the escaping that a SQL string needs.
    listed = ", ".join("'" + one.replace("'", "''") + "'" for one in dict.fromkeys(ids))
    with store.scan(columns, where=f"id IN ({listed})") as reader:
        rows: Hits = python_rows(reader.read_all())
    return rows


def _split(table: pa.Table, queries: int) -> list[Hits]:
    """Hits in long form → those of each query."""
    hits: list[Hits] = [[] for _ in range(queries)]
    for hit in python_rows(table):
        hits[hit["query"]].append(hit)
    return hits


def _trimmed(hits: Hits, ask: Ask) -> Hits:
    chosen = [hit for hit in hits if ask.id is None or hit["id"] != ask.id][: ask.k]
    return [
        {name: value for name, value in hit.items() if name != "query"} | {"rank": rank}
        for rank, hit in enumerate(chosen, start=1)
    ]


def _unknown(id_: str) -> RequestError:
    return RequestError(404, f"no row with the id {id_[:200]!r} in the store")
