"""Scanning, info, compaction, and others at work meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading

import pyarrow as pa
import pytest

from rsicd_embed.errors import SchemaError
from rsicd_embed.records import FIXED_COLUMNS
from rsicd_embed.stores.base import StoreInfo, VectorStore, open_store
from rsicd_embed.testing.stores.sample_rows import DIM, MADE_BY, batch, stored, unit


class Upkeep:
    """Scanning, info, compaction, and others at work meanwhile."""

    def test_scan(self, store: VectorStore) -> None:
        """Some columns, or all, of the rows that a condition accepts."""
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
        """Counts, model and columns; how the index is called is the store's business."""
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

    def test_optimize_changes_no_answer(self, store: VectorStore) -> None:
        """After many small upserts, and done twice."""
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
        """Each sees what the other wrote, new columns too."""
        with open_store(uri) as other:
            store.upsert([batch(["a"], n=[1])])
            other.upsert([batch(["b"], label=["x"])])
            store.upsert([batch(["c"], n=[3])])
            assert other.delete(["a"]) == 1
            for one in (store, other):
                assert set(stored(one)) == {"b", "c"}
                assert len(one) == 2
                assert one.schema.names[-2:] == ["n", "label"]
                assert set(one.search(unit(1))["id"].to_pylist()) == {"b", "c"}

    def test_another_process_reads_and_writes(self, store: VectorStore, uri: str) -> None:
        """And it prints nothing of its own."""
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
        """Readers always see whole upserts while another thread writes."""
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
        for one in readers:
            one.start()
        for turn in range(1, 11):
            store.upsert([batch([f"i{i}" for i in range(20)], n=[turn] * 20)])
        done.set()
        for one in readers:
            one.join()
        assert problems == []
