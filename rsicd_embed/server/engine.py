"""A store and its model, and the queries that they answer; reopened when the store changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from rsicd_embed.curation.corrections import (
    LabelColumns,
    LabelState,
    corrected_labels,
    label_columns,
    set_label,
)
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import (
    FilterError,
    FingerprintError,
    QueryError,
    RequestError,
    StoreError,
)
from rsicd_embed.files import Closing
from rsicd_embed.query.area import Area
from rsicd_embed.query.composed import Part, Query, query_vectors
from rsicd_embed.query.search import condition, hits, select
from rsicd_embed.records import python_rows, require_same_model, with_ids
from rsicd_embed.server import attributes, conditions, overview
from rsicd_embed.server.conditions import Condition
from rsicd_embed.stores.base import VectorStore, open_store

if TYPE_CHECKING:
    from rsicd_embed.server.page_schemas import Overview, StoreColumns

T = TypeVar("T")

# Batch sizes for which embedders compile; larger batches of images are rare.
_WARM_SIZES = (1, 4, 16, 64)
_MOST_WARM_IMAGES = 16
_LABEL_ATTEMPTS = 3
# Columns with paths of images and of the scenes that they are windows of.
PATHS = ("uri", "scene")
# Texts are padded to a few lengths; nearly all texts have one of these two.
_WARM_TEXTS = (
    "a port",
    "a large port with many white boats near a long beach and some green trees",
)


@dataclass(frozen=True)
class SearchQuery:
    """A composed query, and conditions from a client that all hits meet."""

    query: Query
    filters: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class SearchResult:
    """A hit.

    Attributes:
        rank: its rank, from 1.
        id: the id of its row.
        score: its cosine similarity with the query.
        attributes: the other columns of its row, `uri` among them.
    """

    rank: int
    id: str
    score: float
    attributes: dict[str, Any]

    def as_json(self, *, with_paths: bool) -> dict[str, Any]:
        """The hit as a JSON object."""
        shown = {n: v for n, v in self.attributes.items() if with_paths or n not in PATHS}
        return {"rank": self.rank, "id": self.id, "score": self.score, **shown}


@dataclass(frozen=True)
class StoredFile:
    """An image's file, as its row describes it."""

    uri: str | None
    sha256: str | None


@dataclass(frozen=True)
class ServedStore:
    """An open store and the model that made its vectors."""

    store: VectorStore
    embedder: Embedder


class Engine(Closing):
    """Answers batches of queries. The store stays open until it is gone or its model changes."""

    def __init__(self, uri: str, load: Callable[[str], Embedder], model: str | None = None) -> None:
        """Creates an engine; `open` opens its store.

        Args:
            uri: the store.
            load: loads an embedder by name.
            model: name of the model; None for the name in the store.
        """
        self.uri = uri
        self._load, self._model = load, model
        self._served: ServedStore | None = None
        self._embedder: Embedder | None = None  # kept while a store is temporarily gone
        self._mutex = threading.RLock()
        self._writing = threading.Lock()

    def open(self) -> ServedStore:
        """Opens the store and loads its model, unless they are open.

        Raises:
            StoreError: the store does not exist or cannot be read.
            ModelError: the model cannot be loaded.
            FingerprintError: the named model did not make the store.
        """
        with self._mutex:
            if self._served is None:
                store = open_store(self.uri)
                try:
                    self._served = ServedStore(store, self._embedder_of(store))
                except BaseException:
                    store.close()
                    raise
            return self._served

    def _embedder_of(self, store: VectorStore) -> Embedder:
        if self._embedder is None or self._embedder.fingerprint != store.provenance.fingerprint:
            embedder = self._load(self._model or store.provenance.model)
            require_same_model(store.provenance, provenance(embedder), self.uri, for_queries=True)
            self._embedder = embedder
        return self._embedder

    def close(self) -> None:
        """Closes the store; the next query opens it again."""
        with self._mutex:
            served, self._served = self._served, None
            if served is not None:
                served.store.close()

    def warm(self) -> None:
        """Runs the model at every batch size, so that no search waits for compilation."""
        embedder = self.open().embedder
        pixels = embedder.preprocess(Image.new("RGB", (64, 64)))
        for size in (size for size in _WARM_SIZES if size <= embedder.batch_size):
            if size <= _MOST_WARM_IMAGES:
                embedder.embed_pixels(np.stack([pixels] * size))
            for text in _WARM_TEXTS:
                embedder.embed_texts([text] * size)
        self.search([SearchQuery(Query([Part("a port")], k=1))])

    def search(self, queries: Sequence[SearchQuery]) -> list[list[SearchResult] | Exception]:
        """Returns the hits of each query, or the error that explains why there are none."""
        return self._with_retry(lambda served: _search(served, queries))

    def files(self, ids: Sequence[str]) -> list[StoredFile | Exception]:
        """Returns the file of each row, or a RequestError 404 for an unknown id."""

        def look_up(served: ServedStore) -> list[StoredFile | Exception]:
            rows = {row["id"]: row for row in _rows(served.store, ids, ["id", "uri", "sha256"])}
            return [
                StoredFile(rows[id_]["uri"], rows[id_]["sha256"]) if id_ in rows else _unknown(id_)
                for id_ in ids
            ]

        return self._with_retry(look_up)

    def columns(self) -> StoreColumns:
        """Describes the columns; see `attributes.describe`."""
        return self._with_retry(lambda served: attributes.describe(served.store))

    def overview(self, k: int, filters: Sequence[Condition], areas: Sequence[Area]) -> Overview:
        """Summarises the rows that meet conditions in all areas; see `overview.summarise`.

        Raises:
            RequestError: 422: an invalid filter.
            QueryError: rows have no coordinates.
        """

        def summarise(served: ServedStore) -> Overview:
            schema = served.store.schema
            where = [conditions.where(filters, schema), *(a.condition(schema) for a in areas)]
            given = [f"({condition})" for condition in where if condition]
            try:
                return overview.summarise(served.store, k, " AND ".join(given) or None)
            except FilterError as error:
                raise RequestError(422, str(error)) from error

        return self._with_retry(summarise)

    def label_columns(self) -> LabelColumns | None:
        """The store's column of labels with probabilities, if there is one."""
        return self._with_retry(lambda served: label_columns(served.store.schema))

    def set_label(
        self, columns: LabelColumns, id_: str, was: str | None, state: LabelState
    ) -> LabelState:
        """Writes a row's label through a store object of its own; see `corrections.set_label`.

        If the store is embedded again meanwhile, the row is read again.
        """
        with self._writing:
            for attempt in range(_LABEL_ATTEMPTS):
                with open_store(self.uri) as store:
                    try:
                        return set_label(store, columns, id_, was, state)
                    except FingerprintError:
                        if attempt == _LABEL_ATTEMPTS - 1:
                            raise
        raise AssertionError

    def corrected_labels(self, columns: LabelColumns) -> dict[str, str]:
        """The corrected labels by id."""
        return self._with_retry(lambda served: corrected_labels(served.store, columns))

    def rows(self) -> int:
        """The number of rows."""
        return self._with_retry(lambda served: len(served.store))

    def _with_retry(self, query: Callable[[ServedStore], T]) -> T:
        """Runs a query; after a StoreError, reopens the store and runs it again."""
        served = self.open()
        try:
            return query(served)
        except StoreError:
            with self._mutex:
                if self._served is served:
                    self.close()
            return query(self.open())


def _search(
    served: ServedStore, queries: Sequence[SearchQuery]
) -> list[list[SearchResult] | Exception]:
    results: list[list[SearchResult] | Exception] = [[] for _ in queries]
    vectors = query_vectors([item.query for item in queries], served.store, lambda: served.embedder)
    groups: dict[str | None, dict[int, np.ndarray]] = {}  # queries with the same `where`
    schema = served.store.schema
    for i, (item, vector) in enumerate(zip(queries, vectors, strict=True)):
        if isinstance(vector, QueryError):
            results[i] = vector
            continue
        try:
            where = conditions.where(item.filters, schema)
            if item.query.hybrid or item.query.merge is not None:
                results[i] = _results(hits(replace(item.query, where=where), vector, served.store))
                continue
            groups.setdefault(condition(replace(item.query, where=where), schema), {})[i] = vector
        except (RequestError, QueryError, FilterError) as error:
            results[i] = error
    for where, members in groups.items():
        depth = max(queries[i].query.depth for i in members)
        try:
            stacked = np.stack(list(members.values()))
            table = served.store.search(stacked, k=depth, where=where)
        except (FilterError, QueryError) as error:
            for i in members:
                results[i] = RequestError(422, str(error))
            continue
        starts = np.searchsorted(table["query"].to_numpy(), np.arange(len(members) + 1))
        for i, start, end in zip(members, starts, starts[1:], strict=False):
            results[i] = _results(select(table.slice(start, end - start), queries[i].query))
    return results


def _rows(store: VectorStore, ids: Sequence[str], columns: list[str]) -> list[dict[str, Any]]:
    with store.scan(columns, where=with_ids(ids)) as reader:
        return python_rows(reader.read_all())


def _results(table: pa.Table) -> list[SearchResult]:
    fields = ("query", "rank", "id", "score")
    return [
        SearchResult(
            hit["rank"], hit["id"], hit["score"], {n: v for n, v in hit.items() if n not in fields}
        )
        for hit in python_rows(table)
    ]


def _unknown(id_: str) -> RequestError:
    return RequestError(404, f"no row with the id {id_[:200]!r} in the store")
