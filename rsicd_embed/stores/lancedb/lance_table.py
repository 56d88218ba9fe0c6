"""The location of a LanceDB store: opening, creating and locking its table, and its metadata."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from rsicd_embed import files
from rsicd_embed.errors import (
    ModelError,
    RsicdEmbedError,
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreURIError,
    one_line,
)
from rsicd_embed.records import (
    VECTOR,
    Provenance,
    fingerprint_parts,
    provenance_header,
    read_header,
    row_schema,
)
from rsicd_embed.remote.failure_reasons import request_failure
from rsicd_embed.stores import opening
from rsicd_embed.stores.lancedb._lazy_lancedb import lancedb
from rsicd_embed.stores.lancedb.checksums import Checksums
from rsicd_embed.stores.uri import StoreURI

Stamp = Set[tuple[str, int]]

_KEY = b"rsicd-embed"
_FORMAT = 1
_FUNCTIONS_KEY = b"embedding_functions"
_FUNCTION = "rsicd-clip"  # name of the embedding function that `rsicd_embed.lancedb` registers
_LANCE_ERRORS = (RuntimeError, ValueError, KeyError, pa.ArrowException)
_PANICS = ("RustPanic", "PanicException")
_REMEDY = "check the location, or restore it from a backup"
_BUCKET = re.compile(r"(?:s3|gs|az)://[^/\s]+")
# LanceDB caches the list of files of every version, with which an ingest would fill its 1 GB.
_METADATA_BYTES = 32 << 20
_REMOTE = ("s3", "s3+ddb", "gs", "az", "abfss", "oss", "file")
UNFINISHED = "_rsicd_embed_"  # begins the names of columns that readers leave out
_CLOCK_S = 2.0  # file times may be this much coarser than the clock


@contextmanager
def lance_errors(doing: str, remedy: str = _REMEDY) -> Iterator[None]:
    """Turns errors of LanceDB into a one-line StoreError that starts with `doing`.

    The message ends with `remedy`, unless the disk is the cause.
    """
    try:
        with files.storage_errors(doing):
            yield
    except RsicdEmbedError:
        raise
    except BaseException as error:
        # A panic in LanceDB's Rust code is not an Exception.
        if not isinstance(error, _LANCE_ERRORS) and type(error).__name__ not in _PANICS:
            raise
        if failure := files.system_error(str(error)):
            with files.storage_errors(doing):
                raise failure from error
        place = _BUCKET.search(doing)
        if place and (refused := request_failure(str(error), place[0])):
            raise StoreError(f"{doing}: {refused.reason}") from error
        text = re.sub(r",? ?\S*/\S+\.rs:\d+:\d+", "", one_line(error))
        text = text.replace("lance error: ", "")
        raise StoreError(f"{doing}: {text[:300]}; {remedy}") from error


@dataclass(frozen=True)
class LanceLocation:
    """A table in a LanceDB database.

    Attributes:
        uri: the store's URI.
        folder: folder of the database; None if it is remote.
        checksums: those of the table's files.
    """

    uri: StoreURI
    folder: Path | None
    checksums: Checksums

    @classmethod
    def of(cls, uri: StoreURI) -> LanceLocation:
        """Parses a URI.

        Raises:
            StoreURIError: an invalid table name, or an address of an unknown kind.
            StoreError: the location is a file.
        """
        if not re.fullmatch(r"(?!\.+$)[A-Za-z0-9_.-]+", uri.table):
            raise StoreURIError(
                f"{uri}: expected a table name of letters, digits, '_', '-' and '.', not only '.', "
                f"found {uri.table!r}"
            )
        _register_function()
        scheme, separator, _ = uri.location.partition("://")
        if separator:
            if scheme not in _REMOTE:  # LanceDB would make a local folder of that name
                raise StoreURIError(
                    f"{uri}: expected a local folder, or an address of s3://, gs:// or az://, "
                    f"found {scheme}://"
                )
            return cls(uri, None, Checksums(None))
        folder = opening.local_folder(uri)
        return cls(uri, folder, Checksums(folder / f"{uri.table}.lance"))

    @property
    def database(self) -> str:
        """Location of the database, as LanceDB accepts it."""
        return self.uri.location if self.folder is None else str(self.folder)

    def open(self, provenance: Provenance | None, *, create: bool) -> Any:
        """Opens or creates the table; see `StoreType.open`."""
        with lance_errors(f"cannot open {self.uri}"):
            tables = self._tables()
            table = self._existing(tables)
        if table is None:
            if not create or provenance is None:
                raise opening.not_found(
                    self.uri, f"tables there: {opening.listing(tables)}" if tables else ""
                )
            table = self._create(provenance)
        opening.require_provenance(self.provenance(table), provenance, str(self.uri))
        return table

    def reopen(self) -> Any:
        """Opens the existing table once more."""
        return self._connect().open_table(self.uri.table)

    def overwrite(self, rows: pa.RecordBatchReader, provenance: Provenance) -> Any:
        """Replaces the table's content in a new version; only while `writing`."""
        schema = rows.schema.with_metadata(_metadata(provenance))
        failures: list[Exception] = []  # LanceDB raises their tracebacks as text

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for batch in rows:
                    yield batch.replace_schema_metadata(schema.metadata)
            except Exception as error:
                failures.append(error)
                raise

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        try:
            return self._connect().create_table(
                self.uri.table, data=reader, schema=schema, mode="overwrite"
            )
        except Exception:
            for failure in failures:
                raise failure from None
            raise

    @property
    def is_locked(self) -> bool:
        """Whether `writing` keeps other processes from writing; False for remote tables."""
        return self.folder is not None

    def stamp(self) -> Stamp | None:
        """A value that changes whenever the table gets a new version; None if there is none.

        It takes microseconds, where asking LanceDB for the newest version takes a millisecond.
        """
        if self.folder is None:
            return None
        try:
            with os.scandir(self._table_folder() / "_versions") as versions:
                return {(entry.name, entry.inode()) for entry in versions}
        except OSError:
            return None

    def provenance(self, table: Any) -> Provenance:
        """Reads the provenance of the vectors from the table's metadata.

        Raises:
            StoreError: there is none, so rsicd-embed did not create the table.
            StoreCorruptError: the metadata is damaged or of another format version.
        """
        raw = (table.schema.metadata or {}).get(_KEY)
        if raw is None:
            raise StoreError(
                f"{self.uri}: table {self.uri.table!r} was not created by rsicd-embed (it does not "
                f"say which model made its vectors); name another one: "
                f"{self.uri.scheme}:{self.uri.location}#NAME"
            )
        try:
            return read_header(raw, _FORMAT, self.uri, StoreCorruptError)[0]
        except (ValueError, KeyError, TypeError):
            raise StoreCorruptError(
                f"{self.uri}: the table's metadata is damaged; restore it from a backup"
            ) from None

    @contextmanager
    def writing(self, undo: Callable[[], bool]) -> Iterator[None]:
        """Locks a local table during a write, and syncs the written files to disk.

        Lance's own commits let two writers insert the same new id twice, and do not fsync. If
        syncing fails, `undo` is called; it returns whether the previous state is restored.
        """
        failed = f"cannot write to {self.uri}, which stays as it was"
        lock = self._lock()
        with lance_errors(failed):
            try:
                lock.__enter__()
            except Timeout:
                raise StoreLockedError(opening.locked(self.uri)) from None
        try:
            started = time.time()
            with lance_errors(failed):
                yield
            try:
                self._sync(started)
            except OSError:
                undone = False
                with suppress(Exception):
                    undone = undo()
                unsafe = f"{self.uri} is changed, but a power cut may undo that"
                with files.storage_errors(failed if undone else unsafe):
                    raise
        finally:
            lock.__exit__(None, None, None)

    def bytes(self, table: Any) -> int | None:
        """Size of the table's files, including old versions."""
        if self.folder is None:
            return int(table.stats()["total_bytes"])
        size = 0
        for path in self._table_folder().rglob("*"):
            with suppress(OSError):
                size += path.stat().st_size
        return size

    def _tables(self) -> list[str]:
        """Names of the database's tables; [] if there is no database yet."""
        if self.folder is None:
            return list(lancedb.connect(self.uri.location).list_tables().tables)
        if not self.folder.exists():
            return []
        names = opening.foreign_files(self.folder)
        tables = [name.removesuffix(".lance") for name in names if name.endswith(".lance")]
        if names and not tables:
            raise opening.not_this_kind(self.uri, self.folder, "a LanceDB database", names)
        return tables

    def _existing(self, tables: list[str]) -> Any | None:
        if self.uri.table not in tables:
            return None
        self.checksums.verify_metadata()  # opening a damaged table may crash the process
        try:
            return self.reopen()
        except ValueError as error:
            # A folder without a first version: the process that created it was interrupted.
            if "was not found" in str(error):
                return None
            raise
        except RuntimeError as error:
            if files.system_error(str(error)):
                raise
            if self.folder is None and request_failure(str(error), self.uri.location):
                raise
            raise StoreCorruptError(
                f"{self.uri} is damaged ({' '.join(str(error).split())[:200]}); "
                "restore it from a backup, or delete it and ingest again"
            ) from error

    def _create(self, provenance: Provenance) -> Any:
        schema = row_schema(provenance.dim).with_metadata(_metadata(provenance))
        created: list[Path] = []
        try:
            with lance_errors(f"cannot create a store at {self.uri}"):
                if self.folder is not None:
                    created = files.make_folder(self.folder)
                with self.writing(lambda: False):
                    table = self._existing(self._tables())  # another process may be faster
                    if table is None:
                        table = self._connect().create_table(self.uri.table, schema=schema)
                for folder in created:
                    files.sync_folder(folder.parent)
                return table
        except BaseException:
            if created:
                with suppress(OSError):
                    self._lock_path().unlink()
            files.remove_folders(created)
            raise

    def _connect(self) -> Any:
        session = lancedb.Session(metadata_cache_size_bytes=_METADATA_BYTES)
        return lancedb.connect(self.database, session=session)

    def _table_folder(self) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.uri.table}.lance"

    def _lock_path(self) -> Path:
        assert self.folder is not None
        return self.folder / f".{self.uri.table}.lock"

    def _lock(self) -> Any:
        if self.folder is None:
            return nullcontext()
        return FileLock(self._lock_path(), timeout=opening.LOCK_TIMEOUT_S)

    def _sync(self, started: float) -> None:
        """Flushes the files written since `started` (seconds) to disk."""
        if self.folder is None:
            return
        for folder, entries in files.walk(self._table_folder()):
            written = False
            for entry in entries:
                with suppress(FileNotFoundError):  # another program may clean up
                    if entry.stat().st_mtime >= started - _CLOCK_S:
                        if entry.is_file():
                            files.sync_file(Path(entry.path))
                        written = True
            if written:
                files.sync_folder(folder)
        files.sync_folder(self.folder)
        if self.uri.table in self._tables():
            self.checksums.update(int(self.reopen().version))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a table's rows, without metadata and columns whose values are being written."""
    return pa.schema(
        [
            pa.field(field.name, field.type, field.nullable)
            for field in schema
            if not field.name.startswith(UNFINISHED)
        ]
    )


def _metadata(provenance: Provenance) -> dict[bytes, bytes]:
    """Schema metadata of a table: its provenance, and its embedding function in LanceDB's format.

    With the embedding function, LanceDB's own API searches the table by text.
    """
    function = {
        "name": _FUNCTION,
        "model": {"model": provenance.model, "fingerprint": provenance.fingerprint},
        "source_column": "uri",
        "vector_column": VECTOR,
    }
    return {
        _KEY: json.dumps(provenance_header(provenance, _FORMAT)).encode(),
        _FUNCTIONS_KEY: json.dumps([function]).encode(),
    }


class WithoutModel(lancedb.embeddings.EmbeddingFunction):
    """The embedding function of tables in a process that does not import `rsicd_embed.lancedb`.

    LanceDB instantiates a table's functions for each write, so a class of that name must exist.

    Attributes:
        model, fingerprint: as in `rsicd_embed.lancedb.RsicdClip`.
    """

    model: str | None = None
    fingerprint: str = ""

    def ndims(self) -> int:
        """Length of a vector."""
        return int(fingerprint_parts(self.fingerprint)["dim"])

    def compute_query_embeddings(self, *_: Any, **__: Any) -> list[Any]:
        """Raises ModelError."""
        raise ModelError(
            "expected `import rsicd_embed.lancedb` before LanceDB's own API searches a table by "
            "text or picture, or embeds images for it; import it and open the table again"
        )

    # LanceDB's own versions would retry.
    compute_source_embeddings = compute_query_embeddings
    compute_query_embeddings_with_retry = compute_query_embeddings
    compute_source_embeddings_with_retry = compute_query_embeddings


def _register_function() -> None:
    """Registers `WithoutModel`, unless there is a function of that name already."""
    registry = lancedb.embeddings.get_registry()
    try:
        registry.get(_FUNCTION)
    except KeyError:
        registry.register(_FUNCTION)(WithoutModel)
