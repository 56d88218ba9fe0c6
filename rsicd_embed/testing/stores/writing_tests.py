"""Upserts and deletes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from rsicd_embed.errors import ArgumentError, SchemaError
from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.testing.stores.sample_rows import batch, now_and_reopened, stored, unit


class Writing:
    """Upserts and deletes."""

    def test_rows_come_back(self, store: VectorStore) -> None:
        """Bit by bit, with null for what was not given."""
        vectors = unit(3)
        rows = batch(["a", "b", "c"], vectors, uri=["u", None, "w"], width=[1, 2, 3], n=[1, 2, 3])
        assert store.upsert([rows]) == 3
        for one in now_and_reopened(store):
            assert len(one) == 3
            got = stored(one)
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
            assert one.schema.field("width").type == pa.int32()

    def test_upsert_replaces(self, store: VectorStore) -> None:
        """A row with a known id takes the place of the old one."""
        store.upsert([batch(["a", "b"], n=[1, 2])])
        vectors = unit(2, seed=5)
        assert store.upsert([batch(["b", "c"], vectors, n=[20, 30])]) == 2
        assert len(store) == 3
        got = stored(store)
        assert {key: row["n"] for key, row in got.items()} == {"a": 1, "b": 20, "c": 30}
        assert got["b"]["vector"] == vectors[0].tobytes()
        assert store.search(vectors[0], k=1)["id"].to_pylist() == ["b"]

    def test_last_of_a_repeated_id_wins(self, store: VectorStore) -> None:
        """Within a batch, and between batches."""
        first, second = batch(["a", "a", "b"], n=[1, 2, 3]), batch(["b", "c"], n=[4, 5])
        assert store.upsert([first, second]) == 3
        assert {key: row["n"] for key, row in stored(store).items()} == {"a": 2, "b": 4, "c": 5}

    def test_delete_and_add_again(self, store: VectorStore) -> None:
        """Deleted rows are gone, and their ids free."""
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
        """Quotes, newlines, wildcards, nothing at all, and very long ones."""
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
        for count, one in enumerate(ids, start=1):
            assert store.delete([one]) == 1, repr(one)
            assert len(store) == len(ids) - count

    def test_ids_that_are_not_strings(self, store: VectorStore) -> None:
        """They are refused, a string in place of a list too."""
        store.upsert([batch(["1", "a"])])
        wrongs: tuple[Any, ...] = ("a", [1], [None], [b"a"])
        for wrong in wrongs:
            with pytest.raises((SchemaError, ArgumentError), match="expected"):
                store.delete(wrong)
        assert len(store) == 2

    def test_nothing_to_write(self, store: VectorStore) -> None:
        """No batches, or none with rows."""
        assert store.upsert([]) == 0
        assert store.upsert(iter([batch([], unit(0))])) == 0
        assert len(store) == 0

    def test_failing_iterator_writes_nothing(self, store: VectorStore) -> None:
        """All of `batches` or nothing."""

        def batches() -> Iterator[pa.RecordBatch]:
            yield batch(["a"])
            raise RuntimeError("reader broke")

        with pytest.raises(RuntimeError, match="reader broke"):
            store.upsert(batches())
        assert len(store) == 0

    def test_tables_and_readers_are_taken(self, store: VectorStore) -> None:
        """Whatever gives record batches; nothing else."""
        table = pa.Table.from_batches([batch(["a", "b"]), batch(["c", "d"])])
        assert store.upsert(table.to_reader()) == 4
        assert store.upsert(table) == 4
        assert store.upsert(batch(["e"])) == 1
        with pytest.raises(SchemaError, match="expected Arrow record batches, found dict"):
            store.upsert([{"id": "a"}])
