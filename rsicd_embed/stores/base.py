"""The one interface of every vector store, its URIs, and how a store is opened."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Sequence, Sized
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, cast, runtime_checkable

import numpy as np
import pyarrow as pa

from rsicd_embed import plugins
from rsicd_embed.arguments import require_object, shown
from rsicd_embed.errors import StoreError, StoreURIError
from rsicd_embed.records import Provenance


@dataclass(frozen=True)
class StoreURI:
    """`scheme:location[?option=value&…][#table]`, for example `lancedb:./tiles#images`."""

    scheme: str
    location: str
    table: str = "images"
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> StoreURI:
        """Splits a store URI.

        Raises:
            StoreURIError: not a string, no scheme, no path, or an empty table name.
        """
        if not isinstance(text, str):
            raise StoreURIError(
                f"expected a store URI such as 'lancedb:./tiles', found {shown(text)}"
            )
        scheme, colon, rest = text.partition(":")
        location, hash_, table = rest.partition("#")
        if not (scheme and colon and location) or (hash_ and not table):
            raise StoreURIError(
                f"expected a store URI such as lancedb:./tiles or nmslib:./index, found {text!r}; "
                f"known schemes: {', '.join(plugins.names(plugins.STORES))}"
            )
        if location.startswith("//.") or location != location.strip():
            raise StoreURIError(
                f"expected a path after {scheme}:, as in {scheme}:./tiles, found {location!r}; "
                "leave out slashes and blanks before it"
            )
        # Only what cannot but be options is taken for them: a path may have a question mark.
        found = re.fullmatch(r"(.+?)\?(\w+=[\w.]+(?:&\w+=[\w.]+)*)", location)
        options: list[tuple[str, str]] = []
        if found:
            location = found[1]
            pairs = (one.partition("=") for one in found[2].split("&"))
            options = [(name, value) for name, _, value in pairs]
        return cls(scheme, location, table or "images", tuple(options))

    def __str__(self) -> str:
        options = "&".join(f"{name}={value}" for name, value in self.options)
        suffix = "" if self.table == "images" else f"#{self.table}"
        return f"{self.scheme}:{self.location}{'?' if options else ''}{options}{suffix}"

    def numbers(self, **limits: tuple[float, float]) -> dict[str, float]:
        """The options that are given, of those that a store knows: name=(least, most).

        Raises:
            StoreURIError: one that it does not know, or of another value.
        """
        found: dict[str, float] = {}
        for name, value in self.options:
            if name not in limits:
                known = ", ".join(limits) or "none"
                raise StoreURIError(f"{self}: no option {name!r} in {self.scheme} stores; {known}")
            least, most = limits[name]
            try:
                found[name] = float(value)
            except ValueError:
                found[name] = math.nan
            if not least <= found[name] <= most:
                raise StoreURIError(
                    f"{self}: expected {name} from {least:g} to {most:g}, found {value!r}"
                )
        return found


@dataclass(frozen=True)
class StoreInfo:
    """What is in a store.

    Attributes:
        rows: live rows.
        dim: length of a vector.
        model: name of the model that made the vectors, as `--model` takes it.
        fingerprint: `str(Fingerprint)` of what made the vectors.
        index: how vectors are searched, in words; "exact scan" where nothing is approximate.
        ann_recall: last measured overlap@10 with exact search in [0, 1]; 1.0 for an exact scan,
            None where an index was never measured.
        bytes: size on disk, None where not known.
        columns: name → Arrow type of every column.
        advice: what would make searches faster on this machine; None where nothing is known to.
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
        """That of a store whose vectors have this provenance, and whose rows this schema."""
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
    """Rows with unit vectors, found by cosine similarity. The same answers in every store.

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
        """Inserts rows, replacing those with the same id; all of `batches` or nothing.

        A repeated id: the last wins. Columns the store has and a batch lacks become null; columns
        it lacks are added, null in older rows. Returns the number of distinct ids written.

        Raises:
            SchemaError: no id or vector, a vector of another length, not finite or not of unit
                norm, a null id, or a column of another type than the store's.
            ArgumentError: a single row.
        """
        ...

    def delete(self, ids: Iterable[str]) -> int:
        """Removes rows by id; unknown ids are ignored. Returns the number removed.

        Raises:
            ArgumentError: a single id, which belongs in a list.
            SchemaError: an id that is not a string.
        """
        ...

    def drop_columns(self, names: Sequence[str]) -> None:
        """Removes columns with all their values, in one step; tagged states keep them.

        Raises:
            SchemaError: a column that is not there, one of the six fixed ones, or no names.
        """
        ...

    def search(self, queries: np.ndarray, k: int = 10, where: str | None = None) -> pa.Table:
        """The k rows of highest cosine similarity to each query, among those `where` accepts.

        Args:
            queries: float32 (q, dim), or (dim,) for one; they need not be normalised.
            k: rows for each query; fewer come back only where fewer match.
            where: SQL predicate (DataFusion's dialect), applied before top-k.

        Returns:
            Long form: query int32, rank int32 (from 1), id string, score float32 in [-1, 1], then
            every other column but the vector; sorted by query, then (-score, id).

        Raises:
            QueryError: texts or images instead of vectors, wrong shape, NaN, infinite or zero
                query, or k < 1.
            FilterError: `where` cannot be understood.
        """
        ...

    def scan(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """All live rows, or some columns of those that `where` accepts, in no particular order."""
        ...

    def optimize(self) -> None:
        """Folds what was added into the index and compacts files; answers stay the same."""
        ...

    def info(self) -> StoreInfo:
        """What is in the store."""
        ...

    def __len__(self) -> int: ...

    def close(self) -> None:
        """Frees files and memory; the store is not usable afterwards."""
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
    """A store that can keep its present state under a name, show it, and go back to it."""

    def tags(self) -> dict[str, int]:
        """Name → number of the state, of each tag."""
        ...

    def tag(self, name: str) -> None:
        """Keeps the present state.

        Raises:
            StoreError: there is such a tag already, or that is no name for one.
        """
        ...

    def untag(self, name: str) -> None:
        """Lets go of what a tag keeps; StoreError where there is none."""
        ...

    def as_of(self, version: str) -> VectorStore:
        """The state that a tag keeps, to be read only; StoreError where there is none.

        Some stores take the number of a state too, as long as they have it.
        """
        ...

    def restore(self, version: str) -> None:
        """Makes that state the newest again, model and all, in one step."""
        ...

    def replace(self, batches: Iterable[pa.RecordBatch], provenance: Provenance) -> int:
        """Puts rows of another model in place of all there are, in one step; returns how many.

        Store objects that were open before must be opened again: they refuse to mix the models.
        """
        ...


def require_store(store: object) -> None:
    """Refuses the URI of a store, say, in the place of a store; ArgumentError."""
    require_object(store, ("search", "scan", "upsert"), "a store", "rsicd_embed.open_store")


def described(store: Sized, uri: str, made_by: Provenance) -> str:
    """The `repr` of a store in one line: its kind, URI, rows, dimension and model; never fails."""
    try:
        rows = f"{len(store)} rows"
    except StoreError:
        rows = "closed or not readable"
    return f"<{type(store).__name__} {uri}: {rows}, dim {made_by.dim}, model {made_by.model!r}>"


def require_versioned(store: VectorStore) -> Versioned:
    """The store, if it keeps versions.

    Raises:
        StoreError: it does not.
    """
    if not isinstance(store, Versioned):
        raise StoreError(f"{store.uri}: stores of this kind keep no versions")
    return store


def require_tag(name: str) -> str:
    """The name, if a tag may have it.

    Raises:
        StoreError: it may not.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z_][A-Za-z0-9_.-]*", name):
        raise StoreError(
            f"expected a tag of letters, digits, '_', '-' and '.', with a letter, found {name!r}"
        )
    return name


def require_new_tag(name: str, tags: Container[str], store: str) -> str:
    """The name, if a tag may have it and none has.

    Raises:
        StoreError: it may not, or one has.
    """
    if require_tag(name) in tags:
        raise StoreError(f"{store}: tag {name!r} is there already; take another name")
    return name


class StoreType(Protocol):
    """What an entry point of group `rsicd_embed.stores` refers to."""

    def open(self, uri: StoreURI, provenance: Provenance | None, *, create: bool) -> VectorStore:
        """Opens the store at `uri`.

        With `provenance`, a store of another fingerprint is refused (FingerprintError). Where none
        exists yet, one is made if `create` is set, which needs `provenance`; otherwise
        StoreNotFoundError.
        """
        ...


def open_store(
    uri: str, provenance: Provenance | None = None, *, create: bool = True
) -> VectorStore:
    """Opens the store at `uri`; with `provenance` and `create`, makes it where it is absent.

    Raises:
        StoreURIError: not a store URI, or a scheme that nothing installed provides.
        StoreNotFoundError: there is none, and none is to be made.
        FingerprintError: its vectors were made by another model.
        StoreCorruptError: its files are not what was written.
    """
    parsed = StoreURI.parse(uri)
    kind = plugins.load(plugins.STORES, parsed.scheme)
    if kind is None:
        raise StoreURIError(
            f"no store {parsed.scheme!r} in {uri!r}; "
            f"known schemes: {', '.join(plugins.names(plugins.STORES))}"
        )
    return cast(StoreType, kind).open(parsed, provenance, create=create and provenance is not None)
