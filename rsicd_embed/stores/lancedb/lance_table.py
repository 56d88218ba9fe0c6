"""Where a LanceDB store is: its database, its table, and what the table says about itself."""

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
    RsicdEmbedError,
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreURIError,
    one_line,
)
from rsicd_embed.records import Provenance, provenance_header, read_header, row_schema
from rsicd_embed.stores import opening
from rsicd_embed.stores.base import StoreURI
from rsicd_embed.stores.lancedb import lance_function
from rsicd_embed.stores.lancedb._lazy_lancedb import lancedb
from rsicd_embed.stores.lancedb.checksums import Checks
from rsicd_embed.stores.lancedb.lance_async import SearchedTable

Stamp = Set[tuple[str, int]]

_KEY = b"rsicd-embed"
_FORMAT = 1
_LANCE_ERRORS = (RuntimeError, ValueError, KeyError, pa.ArrowException)
_PANICS = ("RustPanic", "PanicException")
_REMEDY = "check the location, or restore it from a backup"
_CLOCK_S = 2.0  # file times may be this much coarser than the clock


@contextmanager
def lance_errors(doing: str, remedy: str = _REMEDY) -> Iterator[None]:
    """Turns what LanceDB raises into a one-line StoreError that starts with `doing`.

    `remedy` is what to do unless the disk is to blame.
    """
    try:
        with files.storage_errors(doing):
            yield
    except RsicdEmbedError:
        raise
    except BaseException as error:
        # A panic of LanceDB's own code is no Exception.
        if not isinstance(error, _LANCE_ERRORS) and type(error).__name__ not in _PANICS:
            raise
        if failure := files.system_error(str(error)):
            with files.storage_errors(doing):
                raise failure from error
        text = re.sub(r",? ?\S*/\S+\.rs:\d+:\d+", "", one_line(error))
        text = text.replace("lance error: ", "")
        raise StoreError(f"{doing}: {text[:300]}; {remedy}") from error


@dataclass(frozen=True)
class LanceLocation:
    """A table of a LanceDB database.

    Attributes:
        uri: as it was given.
        folder: of the database; None where it is remote.
        checks: of the table's files.
    """

    uri: StoreURI
    folder: Path | None
    checks: Checks

    @classmethod
    def of(cls, uri: StoreURI) -> LanceLocation:
        """The location that a URI names; StoreError where a file is in the way."""
        remote = "://" in uri.location
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", uri.table):
            raise StoreURIError(
                f"{uri}: expected a table name of letters, digits, '_', '-' and '.', "
                f"found {uri.table!r}"
            )
        lance_function.register()
        if remote:
            return cls(uri, None, Checks(None))
        folder = opening.local_folder(uri)
        return cls(uri, folder, Checks(folder / f"{uri.table}.lance"))

    def open(self, provenance: Provenance | None, *, create: bool) -> Any:
        """The table, made where it is absent; see `StoreType.open` for what it raises."""
        with lance_errors(f"cannot open {self.uri}"):
            found = self._tables()
            table = self._existing(found)
        if table is None:
            if not create or provenance is None:
                raise opening.not_found(
                    self.uri, f"tables there: {opening.listing(found)}" if found else ""
                )
            table = self._create(provenance)
        opening.require_provenance(self.provenance(table), provenance, str(self.uri))
        return table

    @property
    def is_locked(self) -> bool:
        """Whether `writing` keeps other processes from writing: not where the table is remote."""
        return self.folder is not None

    def stamp(self) -> Stamp | None:
        """Something that is another once the table has a new version; None where nothing tells.

        It takes some microseconds; asking LanceDB for the newest version takes a millisecond.
        """
        if self.folder is None:
            return None
        try:
            with os.scandir(self._table_folder() / "_versions") as versions:
                return {(one.name, one.inode()) for one in versions}
        except OSError:
            return None

    def provenance(self, table: Any) -> Provenance:
        """What the table's metadata says of its vectors.

        Raises:
            StoreError: it says nothing, so rsicd-embed did not make it.
            StoreCorruptError: it is of a later version, or cannot be read.
        """
        raw = (table.schema.metadata or {}).get(_KEY)
        if raw is None:
            raise StoreError(
                f"{self.uri}: table {self.uri.table!r} was not made by rsicd-embed (it does not "
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
        """Holds the lock of a local table while it is written to, and syncs what was written.

        Lance's own commits let two writers insert the same new id twice, and do not fsync. Where
        that fails, `undo` is called; it returns whether all is as it was.
        """
        lock = self._lock()
        with lance_errors(f"cannot write to {self.uri}, which stays as it was"):
            try:
                lock.__enter__()
            except Timeout:
                raise StoreLockedError(
                    f"{self.uri} is being written to by another process "
                    f"(waited {opening.LOCK_TIMEOUT_S:g} s); try again when it is done"
                ) from None
        try:
            started = time.time()
            with lance_errors(f"cannot write to {self.uri}, which stays as it was"):
                yield
            try:
                self._sync(started)
            except OSError:
                undone = False
                with suppress(Exception):
                    undone = undo()
                said = (
                    f"cannot write to {self.uri}, which stays as it was"
                    if undone
                    else f"{self.uri} is changed, but a power cut may undo that"
                )
                with files.storage_errors(said):
                    raise
        finally:
            lock.__exit__(None, None, None)

    def bytes(self, table: Any) -> int | None:
        """Size of the table's files, old versions included."""
        if self.folder is None:
            return int(table.stats()["total_bytes"])
        sizes = 0
        for path in self._table_folder().rglob("*"):
            with suppress(OSError):
                sizes += path.stat().st_size
        return sizes

    def _tables(self) -> list[str]:
        """Names of the tables that are there; [] where there is no database yet."""
        if self.folder is None:
            return list(lancedb.connect(self.uri.location).list_tables().tables)
        if not self.folder.exists():
            return []
        found = opening.strangers(self.folder)
        tables = [name.removesuffix(".lance") for name in found if name.endswith(".lance")]
        if found and not tables:
            raise StoreError(
                f"{self.uri}: {self.folder} is not a LanceDB database "
                f"(it holds {opening.listing(found)}); name a new or an empty folder"
            )
        return tables

    def _existing(self, tables: list[str]) -> Any | None:
        if self.uri.table not in tables:
            return None
        self.checks.small()  # some damage would stop the process
        try:
            return self._connect().open_table(self.uri.table)
        except ValueError as error:
            # A folder without a first version: its maker was stopped half-way.
            if "was not found" in str(error):
                return None
            raise
        except RuntimeError as error:
            if files.system_error(str(error)):
                raise
            raise StoreCorruptError(
                f"{self.uri} is damaged ({' '.join(str(error).split())[:200]}); "
                "restore it from a backup, or delete it and ingest again"
            ) from error

    def table(self) -> Any:
        """The table, opened once more."""
        return self._connect().open_table(self.uri.table)

    def overwrite(self, rows: pa.RecordBatchReader, provenance: Provenance) -> Any:
        """A new version with nothing but these rows; only while `writing`."""
        schema = rows.schema.with_metadata(_metadata(provenance))
        said = pa.RecordBatchReader.from_batches(
            schema, (batch.replace_schema_metadata(schema.metadata) for batch in rows)
        )
        return self._connect().create_table(
            self.uri.table, data=said, schema=schema, mode="overwrite"
        )

    def _create(self, provenance: Provenance) -> Any:
        schema = row_schema(provenance.dim).with_metadata(_metadata(provenance))
        made: list[Path] = []
        try:
            with lance_errors(f"cannot make a store at {self.uri}"):
                if self.folder is not None:
                    made = files.make_folder(self.folder)
                with self.writing(lambda: False):
                    table = self._existing(self._tables())  # another process may be faster
                    if table is None:
                        table = self._connect().create_table(self.uri.table, schema=schema)
                for folder in made:
                    files.sync_folder(folder.parent)
                return table
        except BaseException:
            if made and self.folder is not None:
                with suppress(OSError):
                    self._lock_path().unlink()
            files.remove_folders(made)
            raise

    def searched(self) -> SearchedTable:
        """The table, to be searched by its index."""
        return SearchedTable(self._location, self.uri.table)

    @property
    def _location(self) -> str:
        return self.uri.location if self.folder is None else str(self.folder)

    def _connect(self) -> Any:
        return lancedb.connect(self._location)

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
        """Brings the files that were written since `started` (seconds) to the disk."""
        if self.folder is None:
            return
        for folder, _, names in os.walk(self._table_folder(), topdown=False):
            written = False
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):  # another program may tidy up
                    if path.stat().st_mtime >= started - _CLOCK_S:
                        files.sync_file(path)
                        written = True
            if written:
                files.sync_folder(Path(folder))
        files.sync_folder(self.folder)
        if self.uri.table in self._tables():
            self.checks.renew(int(self.table().version))


def _metadata(provenance: Provenance) -> dict[bytes, bytes]:
    header = json.dumps(provenance_header(provenance, _FORMAT)).encode()
    return {_KEY: header, **lance_function.metadata(provenance)}


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """A table's schema without metadata."""
    return pa.schema([pa.field(one.name, one.type, one.nullable) for one in schema])
