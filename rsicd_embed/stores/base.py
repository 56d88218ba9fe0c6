"""The interface of all vector stores, and `open_store`."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Iterable, Sequence, Sized
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, cast, runtime_checkable

import numpy as np
import pyarrow as pa

from rsicd_embed import plugins
from rsicd_embed.arguments import require_object
from rsicd_embed.errors import ArgumentError, StoreError, StoreURIError
from rsicd_embed.parallel import batched
from rsicd_embed.records import VECTOR, Provenance, VectorMaker, vector_matrix, with_ids
from rsicd_embed.stores.uri import StoreURI

_IDS_AT_ONCE = 10_000


@dataclass(frozen=True)
class StoreInfo:
    """A description of a store.

    Attributes:
        rows: number of live rows.
        dim: length of a vector.
        model: name of the model that made the vectors, as `--model` accepts it.
        fingerprint: `str(Fingerprint)` of that model.
        index: how vectors are searched, in words; "exact scan" if nothing is approximate.
        ann_recall: last measured overlap@10 with exact search in [0, 1]; 1.0 for an exact scan,
            None for an index that was never measured.
        bytes: size on disk; None if unknown.
        columns: name → Arrow type of every column.
        advice: how to speed up searches on this machine; None if there is no known way.
    """

    rows: int
    dim: int
    model: str
    fingerprint: str
    index: str
    ann_recall: float | None
    bytes: int | None
    columns: dict[str, str]
    advice: str | None = None

    @classmethod
    def of(
        cls,
        provenance: Provenance,
        schema: pa.Schema,
        rows: int,
        *,
        index: str,
        ann_recall: float | None,
        bytes: int | None,
    ) -> StoreInfo:
        """Describes a store with rows of `schema` whose vectors have this provenance."""
        return cls(
            rows=rows,
            dim=provenance.dim,
            model=provenance.model,
            fingerprint=provenance.fingerprint,
            index=index,
            ann_recall=ann_recall,
            bytes=bytes,
            columns={field.name: str(field.type) for field in schema},
        )


@runtime_checkable
class VectorStore(Protocol):
    """Rows with unit vectors, searched by cosine similarity, with equal results in every store.

    Every `upsert`, `delete` and `drop_columns` is atomic, and durable when it returns. A store
    object sees its own writes; another process sees the old state or the new one, never a mix.
    """

    uri: str
    provenance: Provenance

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the rows: `records.row_schema(dim, attributes)`."""
        ...

    def upsert(self, batches: Iterable[pa.RecordBatch]) -> int:
        """Inserts rows, replacing those with the same id; stores all of `batches` or nothing.

        If an id is repeated, its last row wins. Columns that a batch lacks become null; columns
        that the store lacks are added, null in older rows. Returns the number of distinct ids.

        Raises:
            SchemaError: no id or vector column, a null id, a vector of another length, not finite
                or not of unit norm, or a column of another type than the store's.
            ArgumentError: a single row.
        """
        ...

    def delete(self, ids: Iterable[str]) -> int:
        """Removes rows by id, ignoring unknown ids. Returns the number of removed rows.

        Raises:
            ArgumentError: a single id instead of a list.
            SchemaError: an id that is not a string.
        """
        ...

    def drop_columns(self, names: Sequence[str]) -> None:
        """Removes columns and their values in one step; tagged states keep them.

        Raises:
            SchemaError: an unknown column, one of the six fixed columns, or no names.
        """
        ...

    def search(self, queries: np.ndarray, k: int = 10, where: str | None = None) -> pa.Table:
        """Finds the k rows most similar to each query, among those that match `where`.

        Args:
            queries: float32 (q, dim), or (dim,) for one; they need not be normalised.
            k: number of rows per query; you get fewer only if fewer rows match.
            where: SQL condition in DataFusion's dialect, applied before top-k.

        Returns:
            Long form: query int32, rank int32 (from 1), id string, score float32 in [-1, 1], then
            every other column but the vector; sorted by query, then (-score, id).

        Raises:
            QueryError: texts or images instead of vectors, wrong shape, a NaN, infinite or zero
                query, or k < 1.
            FilterError: an invalid `where`.
        """
        ...

    def scan(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """Reads some columns (default: all) of the live rows that match `where`, in any order."""
        ...

    def optimize(self) -> None:
        """Adds new rows to the index and compacts files; search results stay the same."""
        ...

    def info(self) -> StoreInfo:
        """Describes the store."""
        ...

    def __len__(self) -> int: ...

    def close(self) -> None:
        """Frees files and memory; the store cannot be used afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class Versioned(VectorStore, Protocol):
    """A store that can tag its current state, open tagged states, and return to them."""

    def tags(self) -> dict[str, int]:
        """Tag name → number of its state."""
        ...

    def tag(self, name: str) -> None:
        """Tags the current state.

        Raises:
            StoreError: the tag exists already, or the name is invalid.
        """
        ...

    def untag(self, name: str) -> None:
        """Deletes a tag; StoreError if there is none."""
        ...

    def as_of(self, version: str) -> VectorStore:
        """Opens a tagged state read-only; StoreError if there is none.

        Some stores also accept the number of a state, as long as they keep it.
        """
        ...

    def restore(self, version: str, tag_left: str | None = None) -> None:
        """Makes a tagged state the newest again, including its model, in one step.

        Args:
            version: the tag; see `as_of`.
            tag_left: new tag of the state that is replaced; None for none.

        Raises:
            StoreError: there is no such version, or `tag_left` exists already or is invalid.
        """
        ...

    def replace(self, batches: Iterable[pa.RecordBatch], provenance: Provenance) -> int:
        """Replaces all rows with rows of another model in one step; returns their number.

        Store objects opened before must be reopened: they refuse to mix models.

        Raises:
            SchemaError: see `upsert`; or a repeated id; or, in some stores, a column that the first
                batch lacks.
        """
        ...


@runtime_checkable
class AttributeWriter(Protocol):
    """A store that can change attributes without touching vectors, and so without a new index."""

    def rewrite_attributes(
        self,
        rewrite: Callable[[pa.RecordBatch], pa.RecordBatch],
        columns: pa.Schema,
        where: str | None = None,
    ) -> None:
        """Adds columns to all rows, or replaces the values of existing ones, in one atomic step.

        Of the fixed columns, only `uri` can be replaced; the others belong to the vector.

        Only if columns of both kinds are written may others see the new ones without values first.
        A few rows selected by `where` may be replaced as by `upsert`.

        Args:
            rewrite: is called once for each batch of rows, with all columns of the store, while
                the store is locked, and returns as many rows with `columns`.
            columns: names and types of the columns.
            where: SQL condition; other rows keep their values, or have nulls in new columns.

        Raises:
            SchemaError: a fixed column other than `uri`, or an existing one of another type.
            FilterError: an invalid `where`.
        """
        ...


@runtime_checkable
class RowMerger(Protocol):
    """A store that can replace rows except for some of their values, in one atomic step."""

    def merge(self, batches: Iterable[pa.RecordBatch], keep: Collection[str] = ()) -> int:
        """Inserts rows as `upsert` does, but rows with the same id keep some of their values.

        These are the values that they have while the store is locked, so none is lost that another
        process wrote after the new rows were prepared. If a stored row has a correction of one of
        its values, in a column `{column}_corrected` that the batches lack, that is the value.

        Args:
            batches: see `VectorStore.upsert`.
            keep: columns whose stored values are kept unless they are null; those of columns that
                all batches lack are always kept.

        Returns:
            The number of distinct ids.

        Raises:
            SchemaError: see `VectorStore.upsert`.
        """
        ...


@runtime_checkable
class ConditionalDeleter(Protocol):
    """A store that can select and remove rows in one atomic step."""

    def delete_where(self, where: str) -> list[str]:
        """Removes the rows that match a condition while the store is locked; returns their ids.

        Raises:
            FilterError: an invalid `where`.
        """
        ...


def require_store(store: object) -> None:
    """Raises ArgumentError unless `store` is a store (it is not a URI, for example)."""
    require_object(store, ("search", "scan", "upsert"), "a store", "rsicd_embed.open_store")


def described(store: Sized, uri: str, provenance: Provenance) -> str:
    """The one-line `repr` of a store; it works for closed and damaged stores too."""
    try:
        rows = f"{len(store)} rows"
    except StoreError:
        rows = "closed or not readable"
    model = f"dim {provenance.dim}, model {provenance.model!r}"
    return f"<{type(store).__name__} {uri}: {rows}, {model}>"


def require_versioned(store: VectorStore) -> Versioned:
    """Returns the store as a `Versioned` one; StoreError if it has no versions."""
    if not isinstance(store, Versioned):
        raise StoreError(f"{store.uri}: stores of this kind have no versions")
    return store


def require_tag(name: str) -> str:
    """Returns the name if it is valid for a tag, or raises StoreError."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z_][A-Za-z0-9_.-]*", name):
        raise StoreError(
            f"expected a tag of letters, digits, '_', '-' and '.', with a letter, found {name!r}"
        )
    return name


def require_new_tag(name: str, tags: Container[str], store: str) -> str:
    """Returns the name if it is valid for a new tag and not in `tags`, or raises StoreError.

    Dots are as LanceDB allows them, so that all stores accept the same names.
    """
    parts = require_tag(name).split(".")
    if "" in parts or (len(parts) > 1 and parts[-1] == "lock"):
        raise StoreError(
            "expected a tag with single dots inside, if any, and not ending in .lock, found "
            f"{name!r}; choose another name"
        )
    if name in tags:
        raise StoreError(f"{store}: tag {name!r} already exists; choose another name")
    return name


class StoreType(Protocol):
    """The object that an entry point of the group `rsicd_embed.stores` refers to."""

    def open(self, uri: StoreURI, provenance: Provenance | None, *, create: bool) -> VectorStore:
        """Opens the store at `uri`, or creates it if `create` is set and `provenance` is given.

        Raises:
            StoreNotFoundError: the store does not exist and must not be created.
            FingerprintError: its vectors are not of the given `provenance`.
        """
        ...


def open_store(
    uri: str,
    provenance: Provenance | None = None,
    *,
    embedder: VectorMaker | None = None,
    create: bool = True,
) -> VectorStore:
    """Opens a store; with `embedder` or `provenance`, creates it if it does not exist.

    Args:
        uri: `scheme:location`, such as `lancedb:./tiles`; see `StoreURI`.
        provenance: the model that made the store's vectors; None accepts any model.
        embedder: the embedder that makes the store's vectors, instead of `provenance`.
        create: whether a missing store may be created.

    Raises:
        StoreURIError: not a store URI, or a scheme that no installed package provides.
        StoreNotFoundError: the store does not exist and must not be created.
        FingerprintError: its vectors were made by another model.
        StoreCorruptError: its files are damaged.
        ArgumentError: `embedder` is not an embedder, or `provenance` is given as well.
    """
    if embedder is not None:
        if provenance is not None:
            raise ArgumentError("expected provenance or embedder, found both; pass one of them")
        properties = ("name", "fingerprint", "dim")
        require_object(embedder, properties, "an embedder", "rsicd_embed.load_embedder")
        provenance = Provenance.of(embedder)
    parsed = StoreURI.parse(uri)
    store_type = plugins.load(plugins.STORES, parsed.scheme)
    if store_type is None:
        raise StoreURIError(
            f"expected a store URI with a known scheme, found {uri!r}; "
            f"known schemes: {', '.join(plugins.names(plugins.STORES))}"
        )
    create = create and provenance is not None
    return cast(StoreType, store_type).open(parsed, provenance, create=create)


def row_vectors(store: VectorStore, ids: Iterable[str]) -> dict[str, np.ndarray]:
    """The float32 (dim,) vectors of rows by id; unknown ids are absent."""
    vectors: dict[str, np.ndarray] = {}
    for block in batched(ids, _IDS_AT_ONCE):
        with store.scan(["id", VECTOR], where=with_ids(block)) as reader:
            for batch in filter(len, reader):
                rows = zip(batch["id"].to_pylist(), vector_matrix(batch[VECTOR]), strict=True)
                vectors.update(rows)
    return vectors
