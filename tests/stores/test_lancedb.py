from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import filelock
import lancedb
import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.errors import (
    SchemaError,
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreNotFoundError,
    StoreURIError,
)
from rsicd_embed.records import row_schema
from rsicd_embed.stores import opening
from rsicd_embed.stores.base import VectorStore, open_store, require_versioned
from rsicd_embed.stores.lancedb import lance_index, lance_reader, lance_rows, large_table
from rsicd_embed.stores.lancedb.lance_table import lance_errors
from rsicd_embed.stores.rows import SeenIds

from .contract import MADE_BY, FolderContract, batch, stored, unit


class TestLance(FolderContract):
    scheme = "lancedb"


class TestLanceStreamed(FolderContract):
    """The same tests for a table too large to cache in memory."""

    scheme = "lancedb"

    @pytest.fixture(autouse=True)
    def nothing_is_held(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lance_reader, "CACHE_ROWS", -1)
        monkeypatch.setattr("rsicd_embed.stores.lancedb.lance_rows.STREAM_ROWS", 1000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_tables_are_separate(folder: Path) -> None:
    with (
        open_store(f"lancedb:{folder}", MADE_BY) as images,
        open_store(f"lancedb:{folder}#tiles-2020", MADE_BY) as tiles,
    ):
        images.upsert([batch(["a"])])
        tiles.upsert([batch(["b", "c"])])
        assert (len(images), len(tiles)) == (1, 2)
        assert tiles.uri == f"lancedb:{folder}#tiles-2020"
    with pytest.raises(StoreNotFoundError, match=r"tables there: images, tiles-2020"):
        open_store(f"lancedb:{folder}#scenes")
    for wrong in ("a b", "a/b", "../x"):
        with pytest.raises(StoreURIError, match="table name"):
            open_store(f"lancedb:{folder}#{wrong}", MADE_BY)


def test_table_of_another_program(folder: Path) -> None:
    lancedb.connect(folder).create_table("images", pa.table({"id": ["a"]}))
    with pytest.raises(StoreError, match=r"was not created by rsicd-embed.*#NAME"):
        open_store(f"lancedb:{folder}", MADE_BY)
    with open_store(f"lancedb:{folder}#mine", MADE_BY) as store:
        assert len(store) == 0


def test_interrupted_creation(folder: Path) -> None:
    (folder / "images.lance" / "data").mkdir(parents=True)
    with pytest.raises(StoreNotFoundError):
        open_store(f"lancedb:{folder}")
    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        assert store.upsert([batch(["a"])]) == 1


def test_another_format_version(folder: Path) -> None:
    schema = pa.schema([("id", pa.string())], {b"rsicd-embed": b'{"format": 2}'})
    lancedb.connect(folder).create_table("images", schema=schema)
    with pytest.raises(StoreCorruptError, match="expected format version 1, found 2"):
        open_store(f"lancedb:{folder}")


def test_damaged_files(folder: Path) -> None:
    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        store.upsert([batch(["a"])])
    (data,) = (folder / "images.lance" / "data").iterdir()
    data.write_bytes(b"garbage")
    with open_store(f"lancedb:{folder}") as store, pytest.raises(StoreError) as caught:
        store.search(unit(1))
    assert "\n" not in str(caught.value)
    for path in (folder / "images.lance" / "_versions").glob("*.manifest"):
        path.write_bytes(b"garbage")
    with pytest.raises(StoreCorruptError, match="is damaged"):
        open_store(f"lancedb:{folder}")


def test_locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LOCK_TIMEOUT_S", 0.01)
    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        with filelock.FileLock(folder / ".images.lock"):
            for write in (lambda: store.upsert([batch(["z"])]), lambda: store.delete(["i1"])):
                with pytest.raises(StoreLockedError, match="another process"):
                    write()
        assert store.upsert([batch(["z"])]) == 1


def test_each_change_is_one_commit(folder: Path) -> None:
    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        table = lancedb.connect(folder).open_table("images")
        before = len(table.list_versions())
        store.upsert([batch([f"{part}/{i}" for i in range(50)]) for part in range(5)])
        assert len(table.list_versions()) == before + 1
        store.delete([f"{part}/{i}" for i in range(50) for part in (1, 2)])
        assert len(table.list_versions()) == before + 2
        assert len(store) == 150


def test_optimize_leaves_few_files(folder: Path) -> None:
    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        for i in range(12):
            store.upsert([batch([f"i{i}"])])
        store.optimize()
        table = lancedb.connect(folder).open_table("images")
        assert table.stats()["fragment_stats"]["num_fragments"] == 1
        assert len(store) == 12


def test_rows_added_by_lancedb_itself(folder: Path) -> None:
    """They are found if their vectors have unit norm, and reported otherwise."""
    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        table = lancedb.connect(folder).open_table("images")
        blank = dict.fromkeys(["uri", "sha256", "width", "height"])
        table.add([{"id": "a", "vector": unit(1)[0].tolist(), **blank}])
        assert store.search(unit(1))["id"].to_pylist() == ["a"]
        table.add([{"id": "b", "vector": [3.0] * 8, **blank}])
        with pytest.raises(SchemaError, match="unit vectors"):
            store.search(unit(1))


def test_url_location(folder: Path) -> None:
    """The code path of object stores, with a file:// URL."""
    with open_store(f"lancedb:file://{folder}", MADE_BY) as store:
        store.upsert([batch(["a", "b"])])
        store.delete(["a"])
        store.optimize()
        assert set(stored(store)) == {"b"}
        assert store.info().bytes > 0
    with pytest.raises(StoreNotFoundError, match="tables there: images"):
        open_store(f"lancedb:file://{folder}#other")
    for scheme in ("http", "S3", "memory"):
        with pytest.raises(StoreURIError, match=f"s3://, gs:// or az://, found {scheme}://"):
            open_store(f"lancedb:{scheme}://host/store", MADE_BY)


def test_sync_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match=r"stays as it was: No space left.*; free some"):
                store.upsert([batch(["a"])])
            with pytest.raises(StoreError, match="is changed, but a power cut may undo that"):
                require_versioned(store).tag("first")
        assert len(store) == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EDQUOT, "uota exceeded; free some of your quota"),
        (errno.EROFS, "Read-only file system; use a folder on a writable"),
        (errno.EACCES, "Permission denied; make the folder writable"),
        (errno.EIO, "Input/output error; check the disk"),
    ],
)
def test_operating_system_errors_reported_by_lancedb(number: int, words: str) -> None:
    error = f"lance error: LanceError(IO): Generic LocalFileSystem error: x (os error {number}), a"
    with pytest.raises(StoreError, match=f"^cannot write: .*{words}"), lance_errors("cannot write"):
        raise RuntimeError(error)


def test_missing_files_are_not_operating_system_errors() -> None:
    with pytest.raises(StoreError, match="backup"), lance_errors("cannot read"):
        raise RuntimeError("lance error: Not found: data/x.lance: No such file (os error 2)")


def test_files_cannot_grow(folder: Path) -> None:
    """LanceDB itself meets a disk that refuses to write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        store.upsert([batch(["a"])])
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
        try:
            with pytest.raises(StoreError, match=r"stays as it was: File too large; allow larger"):
                store.upsert([batch([f"i{n}" for n in range(500)])])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert store.upsert([batch(["b"])]) == 1
        assert set(stored(store)) == {"a", "b"}


def test_column_that_lance_cannot_read(folder: Path) -> None:
    """Earlier versions wrote such columns: the error names them, and they can be dropped."""
    open_store(f"lancedb:{folder}", MADE_BY).close()
    database = lancedb.connect(folder)
    fixed = database.open_table("images").schema
    odd = [("nothing", pa.struct([])), ("words", pa.list_(pa.string()))]
    schema = pa.schema([*fixed, *(pa.field(*column) for column in odd)], fixed.metadata)
    rows = pa.Table.from_pylist(
        [{"id": id_, "vector": unit(1)[0], "nothing": {}, "words": [id_]} for id_ in "ab"], schema
    )
    database.create_table("images", data=rows, schema=schema, mode="overwrite")
    with open_store(f"lancedb:{folder}") as store:
        with pytest.raises(StoreError, match=r"types back \(nothing\): .* store drop-column"):
            store.scan().read_all()
        store.drop_columns(["nothing"])
        assert {key: row["words"] for key, row in stored(store).items()} == {"a": ["a"], "b": ["b"]}
        assert store.upsert([batch(["b"], words=[["new"]])]) == 1
        assert stored(store)["b"]["words"] == ["new"]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_few_rows_of_a_large_table_are_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Fetching matching rows gives the same result as streaming all rows."""
    queries = unit(3, seed=7)
    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        for part in range(3):
            ids = [f"{part}-{i}" for i in range(100)]
            store.upsert([batch(ids, unit(100, seed=part), n=list(range(100)))])
        store.delete([f"1-{i}" for i in range(50)])
        expected = {
            where: store.search(queries, k=5, where=where)
            for where in ("n < 10", "n >= 60", "n < 0", "id LIKE '1-%'")
        }
        monkeypatch.setattr(lance_reader, "CACHE_ROWS", 0)
        monkeypatch.setattr(large_table, "_MOST_FETCHED", share)
        monkeypatch.setattr(lance_rows, "STREAM_ROWS", 7)
        for where, hits in expected.items():
            assert store.search(queries, k=5, where=where) == hits


@pytest.mark.parametrize(("dim", "rows"), [(2, 16_384), (256, 16_384), (1152, 3640), (10**7, 1)])
def test_long_vectors_are_read_in_smaller_batches(dim: int, rows: int) -> None:
    assert lance_rows.stream_rows(row_schema(dim, pa.schema([]))) == rows


@pytest.mark.parametrize(
    ("rows", "dim", "rate"),
    [(10**6, 256, 256), (10**6, 1152, 58), (10**7, 256, 82), (10**8, 4096, 40)],
)
def test_training_an_index_takes_bounded_memory(rows: int, dim: int, rate: int) -> None:
    assert lance_index.samples_per_partition(rows, dim) == rate


def test_streamed_search_drops_worse_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(3000, seed=4)
    queries = unit(20, seed=5)
    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        store.upsert([batch([f"i{i}" for i in range(3000)], vectors)])
        expected = store.search(queries, k=4)
        monkeypatch.setattr(lance_reader, "CACHE_ROWS", 0)
        monkeypatch.setattr("rsicd_embed.stores.lancedb.lance_rows.STREAM_ROWS", 100)
        monkeypatch.setattr(lance_rows, "_SPARE_ROWS", 10)
        assert store.search(queries, k=4).equals(expected)


def test_process_exits_without_output(folder: Path) -> None:
    code = (
        "import sys; from rsicd_embed.stores.base import open_store\n"
        "s = open_store(sys.argv[1]); list(s.scan()); print(len(s), end='')"
    )
    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        store.upsert([batch(["a"])])
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, f"lancedb:{folder}"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1", "")


def test_new_version_is_noticed(folder: Path) -> None:
    with open_store(f"lancedb:{folder}", MADE_BY) as store:
        store.upsert([batch(["a"])])
        assert isinstance(store, VectorStore)
        assert store.search(np.ones(8), k=5).num_rows == 1
        lancedb.connect(folder).open_table("images").delete("id = 'a'")
        assert store.search(np.ones(8), k=5).num_rows == 0


def test_ids_of_other_writers_are_replaced(folder: Path) -> None:
    """Rows with new ids are appended, but writes by another object and restores are noticed."""
    store = open_store(f"lancedb:{folder}", MADE_BY)
    store.upsert([batch(["a", "b"], n=[1, 1])])
    with open_store(f"lancedb:{folder}") as other:
        other.upsert([batch(["c"], n=[2])])
        store.upsert([batch(["c", "d"], n=[3, 3])])
        other.upsert([batch(["d", "e"], n=[4, 4])])
    versioned = require_versioned(store)
    versioned.tag("before")
    store.delete(["a", "b", "c", "d", "e"])
    store.upsert([batch(["a"], n=[5])])
    versioned.restore("before")
    store.upsert([batch(["b", "f"], n=[6, 6])])
    store.optimize()
    store.upsert([batch(["f", "g"], n=[7, 7])])
    expected = {"a": 1, "b": 6, "c": 3, "d": 4, "e": 4, "f": 7, "g": 7}
    assert {id_: row["n"] for id_, row in stored(store).items()} == expected
    assert len(store) == len(expected)


def test_seen_ids() -> None:
    seen = SeenIds(1)
    assert not seen.may_have(pa.chunked_array([["a"]]))
    seen.add(pa.chunked_array([["b", "a"]]))
    seen.add(pa.chunked_array([["c"], ["a"]]))
    assert not seen.may_have(pa.chunked_array([["d", "e"]]))
    for known in "abc":
        assert seen.may_have(pa.chunked_array([["d", known]]))
