"""The tests that every store passes, as one class; those of columns and searches are mixed in."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from rsicd_embed.errors import (
    ArgumentError,
    FingerprintError,
    SchemaError,
    StoreError,
    StoreNotFoundError,
)
from rsicd_embed.records import FIXED_COLUMNS, Provenance
from rsicd_embed.stores.base import StoreInfo, VectorStore, open_store
from rsicd_embed.testing.stores.column_tests import ColumnTests
from rsicd_embed.testing.stores.sample_rows import (
    DIM,
    MADE_BY,
    batch,
    now_and_reopened,
    stored,
    unit,
)
from rsicd_embed.testing.stores.search_tests import SearchTests


class StoreContract(ColumnTests, SearchTests):
    """Every test uses the fixture `uri`, which a subclass must override."""

    @pytest.fixture
    def uri(self) -> str:
        """URI of a store that does not exist yet but can be created; different for each test."""
        raise NotImplementedError("a subclass provides the URI")

    @pytest.fixture
    def store(self, uri: str) -> Iterator[VectorStore]:
        """A new store at `uri`."""
        with open_store(uri, MADE_BY) as store:
            yield store

    # Opening and closing

    def test_is_a_vector_store(self, store: VectorStore, uri: str) -> None:
        """It implements `VectorStore`, and knows its URI and model."""
        assert isinstance(store, VectorStore)
        assert store.uri == uri
        assert store.provenance == MADE_BY

    def test_new_store_is_empty(self, store: VectorStore, uri: str) -> None:
        """An empty store can be reopened."""
        assert len(store) == 0
        assert store.schema.names == list(FIXED_COLUMNS)
        with open_store(uri) as again:
            assert len(again) == 0
            assert again.provenance == MADE_BY

    def test_missing_store_is_not_created_for_reading(self, uri: str) -> None:
        """Not even when it is opened twice."""
        for _ in range(2):
            with pytest.raises(StoreNotFoundError, match="no store at"):
                open_store(uri, MADE_BY, create=False)
            with pytest.raises(StoreNotFoundError, match="no store at"):
                open_store(uri)

    def test_other_model_is_refused(self, store: VectorStore, uri: str) -> None:
        """The message says which parts differ, and only those."""
        other = Provenance("large", f"weights:bbb/tokenizer:t/dim:{DIM}", DIM)
        with pytest.raises(FingerprintError, match=r"'small'.*weights aaa ≠ bbb") as caught:
            open_store(uri, other)
        assert "tokenizer" not in str(caught.value)
        with pytest.raises(FingerprintError, match="length 9"):
            open_store(uri, Provenance("small", MADE_BY.fingerprint, 9))

    def test_closed(self, store: VectorStore) -> None:
        """Every method of a closed store says so; closing twice is fine."""
        store.close()
        store.close()
        for use in (
            lambda: len(store),
            lambda: store.info(),
            lambda: store.schema,
            lambda: store.search(unit(1)),
            lambda: store.scan(),
            lambda: store.upsert([batch(["a"])]),
            lambda: store.delete(["a"]),
            lambda: store.optimize(),
        ):
            with pytest.raises(StoreError, match="is closed"):
                use()

    # Writing

    def test_rows_are_read_back(self, store: VectorStore) -> None:
        """Values are equal bit by bit, and missing ones are null."""
        vectors = unit(3)
        rows = batch(["a", "b", "c"], vectors, uri=["u", None, "w"], width=[1, 2, 3], n=[1, 2, 3])
        assert store.upsert([rows]) == 3
        for opened in now_and_reopened(store):
            assert len(opened) == 3
            got = stored(opened)
            assert got["a"] == {
                "id": "a",
                "vector": vectors[0].tobytes(),
                "uri": "u",
                "sha256": None,
                "width": 1,
                "height": None,
                "n": 1,
            }
            assert got["b"]["uri"] is None
            assert opened.schema.field("width").type == pa.int32()

    def test_upsert_replaces(self, store: VectorStore) -> None:
        """A row with a known id replaces the old row."""
        store.upsert([batch(["a", "b"], n=[1, 2])])
        vectors = unit(2, seed=5)
        assert store.upsert([batch(["b", "c"], vectors, n=[20, 30])]) == 2
        assert len(store) == 3
        got = stored(store)
        assert {key: row["n"] for key, row in got.items()} == {"a": 1, "b": 20, "c": 30}
        assert got["b"]["vector"] == vectors[0].tobytes()
        assert store.search(vectors[0], k=1)["id"].to_pylist() == ["b"]

    def test_last_of_a_repeated_id_wins(self, store: VectorStore) -> None:
        """Within a batch and across batches."""
        first, second = batch(["a", "a", "b"], n=[1, 2, 3]), batch(["b", "c"], n=[4, 5])
        assert store.upsert([first, second]) == 3
        assert {key: row["n"] for key, row in stored(store).items()} == {"a": 2, "b": 4, "c": 5}

    def test_delete_and_add_again(self, store: VectorStore) -> None:
        """Deleted rows are gone, and their ids can be used again."""
        store.upsert([batch(["a", "b", "c"], n=[1, 2, 3])])
        assert store.delete(["b", "nobody", "b"]) == 1
        assert store.delete(["b"]) == 0
        assert store.delete([]) == 0
        assert len(store) == 2
        assert set(stored(store)) == {"a", "c"}
        assert "b" not in store.search(unit(1), k=9)["id"].to_pylist()
        store.upsert([batch(["b"], n=[22])])
        assert {key: row["n"] for key, row in stored(store).items()} == {"a": 1, "b": 22, "c": 3}
        assert store.delete(iter(["a", "b", "c"])) == 3
        assert len(store) == 0
        assert store.search(unit(1), k=9).num_rows == 0
        assert store.schema.names[-1] == "n"
        store.close()
        with open_store(store.uri) as again:
            assert len(again) == 0

    def test_odd_ids(self, store: VectorStore) -> None:
        """Quotes, newlines, wildcards, an empty id, and very long ones."""
        ids = [
            "it's",
            '"',
            "a\nb",
            "é/ü.jpg",
            "木",
            "",
            "\\",
            "\\'",
            "%_",
            "a;--",
            "x" * 3000,
            "😀",
        ]
        store.upsert([batch(ids)])
        assert set(stored(store)) == set(ids)
        assert set(store.search(unit(1), k=99)["id"].to_pylist()) == set(ids)
        for count, id_ in enumerate(ids, start=1):
            assert store.delete([id_]) == 1, repr(id_)
            assert len(store) == len(ids) - count

    def test_ids_that_are_not_strings(self, store: VectorStore) -> None:
        """They are refused, and so is a string instead of a list."""
        store.upsert([batch(["1", "a"])])
        wrongs: tuple[Any, ...] = ("a", [1], [None], [b"a"])
        for wrong in wrongs:
            with pytest.raises((SchemaError, ArgumentError), match="expected"):
                store.delete(wrong)
        assert len(store) == 2

    def test_nothing_to_write(self, store: VectorStore) -> None:
        """No batches, or only empty ones."""
        assert store.upsert([]) == 0
        assert store.upsert(iter([batch([], unit(0))])) == 0
        assert len(store) == 0

    def test_failing_iterator_writes_nothing(self, store: VectorStore) -> None:
        """An upsert writes all batches or nothing."""

        def batches() -> Iterator[pa.RecordBatch]:
            yield batch(["a"])
            raise RuntimeError("reader broke")

        with pytest.raises(RuntimeError, match="reader broke"):
            store.upsert(batches())
        assert len(store) == 0

    def test_tables_and_readers_are_accepted(self, store: VectorStore) -> None:
        """Anything that yields record batches is accepted, and nothing else."""
        table = pa.Table.from_batches([batch(["a", "b"]), batch(["c", "d"])])
        assert store.upsert(table.to_reader()) == 4
        assert store.upsert(table) == 4
        assert store.upsert(batch(["e"])) == 1
        with pytest.raises(SchemaError, match="expected Arrow record batches, found dict"):
            store.upsert([{"id": "a"}])

    # Scans, info, compaction and concurrent use

    def test_scan(self, store: VectorStore) -> None:
        """Some or all columns of the rows that match a condition."""
        vectors = unit(9_000)
        store.upsert([batch([f"i{i}" for i in range(9_000)], vectors, n=list(range(9_000)))])
        store.delete(["i7"])
        reader = store.scan(["n", "id"], where="n < 10")
        assert isinstance(reader, pa.RecordBatchReader)
        table = reader.read_all()
        assert table.column_names == ["n", "id"]
        assert sorted(table["n"].to_pylist()) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
        assert store.scan(["id"]).read_all().num_rows == 8_999
        assert store.scan().schema == store.schema
        table = store.scan(["vector", "n"], where="n = 8999").read_all()
        assert table["vector"].to_pylist() == [vectors[8_999].tolist()]
        for wrong in (["nothing"], ["id", "id"]):
            with pytest.raises(SchemaError, match="column"):
                store.scan(wrong)

    def test_info(self, store: VectorStore) -> None:
        """Counts, model and columns; the store chooses the name of its index."""
        store.upsert([batch(["a", "b"], n=[1, 2])])
        info = store.info()
        assert isinstance(info, StoreInfo)
        assert (info.rows, info.dim, info.model) == (2, DIM, "small")
        assert info.fingerprint == MADE_BY.fingerprint
        assert info.index
        assert info.ann_recall is None or 0 <= info.ann_recall <= 1
        assert info.bytes is None or info.bytes > 0
        assert list(info.columns) == [*FIXED_COLUMNS, "n"]
        assert info.columns["vector"] == f"fixed_size_list<item: float>[{DIM}]"

    def test_optimize_changes_no_results(self, store: VectorStore) -> None:
        """Twice, after many small upserts."""
        store.optimize()
        for start in range(0, 60, 3):
            ids = [f"i{i}" for i in range(start, start + 4)]
            store.upsert([batch(ids, unit(4, seed=start), n=[start] * 4)])
        store.delete(["i3", "i40"])
        before, hits = stored(store), store.search(unit(3), k=20)
        for _ in range(2):
            store.optimize()
            assert stored(store) == before
            assert store.search(unit(3), k=20).equals(hits)
        store.close()
        with open_store(store.uri) as again:
            assert stored(again) == before

    def test_two_writers_in_turn(self, store: VectorStore, uri: str) -> None:
        """Each sees the other's writes, including new columns."""
        with open_store(uri) as other:
            store.upsert([batch(["a"], n=[1])])
            other.upsert([batch(["b"], label=["x"])])
            store.upsert([batch(["c"], n=[3])])
            assert other.delete(["a"]) == 1
            for opened in (store, other):
                assert set(stored(opened)) == {"b", "c"}
                assert len(opened) == 2
                assert opened.schema.names[-2:] == ["n", "label"]
                assert set(opened.search(unit(1))["id"].to_pylist()) == {"b", "c"}

    def test_another_process_reads_and_writes(self, store: VectorStore, uri: str) -> None:
        """It works, and prints nothing."""
        store.upsert([batch(["a"])])
        code = (
            "import sys, pyarrow as pa; from rsicd_embed.stores.base import open_store\n"
            "s = open_store(sys.argv[1]); row = s.scan().read_all().to_pylist()[0]\n"
            "assert len(s) == 1 and row['id'] == 'a'\n"
            "rows = s.scan(['vector']).read_all()\n"
            "rows = rows.append_column('id', pa.array(['b']))\n"
            "s.upsert(rows); s.close()"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, uri], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert len(store) == 2
        assert store.search(unit(1), k=2)["id"].to_pylist() == ["a", "b"]

    def test_threads(self, store: VectorStore) -> None:
        """Readers only see complete upserts while another thread writes."""
        store.upsert([batch([f"i{i}" for i in range(20)], n=[0] * 20)])
        problems: list[object] = []
        done = threading.Event()

        def read() -> None:
            try:
                while not done.is_set():
                    hits = store.search(unit(1), k=20)
                    if len(set(hits["n"].to_pylist())) != 1 or hits.num_rows != 20:
                        problems.append(hits)
            except BaseException as error:
                problems.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for turn in range(1, 11):
            store.upsert([batch([f"i{i}" for i in range(20)], n=[turn] * 20)])
        done.set()
        for reader in readers:
            reader.join()
        assert problems == []
