"""`import` of row files: the rows it writes and the rows it keeps."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsicd_embed.curation.corrections import LabelColumns, LabelState, set_label
from rsicd_embed.indexing import import_rows
from rsicd_embed.stores.base import VectorStore, open_store
from rsicd_embed.testing.stores import batch, stored, unit

from .helpers import ROWS, content, exported, filled, import_file, run


def test_only_differing_rows_are_written(
    file: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(uri)
    vectors = unit(7, seed=3)
    vectors[2] = -vectors[2]
    changed = ROWS.set_column(1, "vector", batch(["x"] * 7, vectors)["vector"])
    labels = ROWS["label"].to_pylist()
    labels[4] = "other"
    changed = changed.set_column(changed.schema.get_field_index("label"), "label", pa.array(labels))
    exported(file, changed)
    written: list[str] = []
    real = import_rows.open_store_for

    def watched(*arguments: Any) -> VectorStore:
        store = real(*arguments)
        merge = store.merge  # type: ignore[attr-defined]

        def counting(batches: Any, keep: Any) -> Any:
            given = list(batches)
            written.extend(id_ for batch in given for id_ in batch["id"].to_pylist())
            return merge(given, keep)

        store.merge = counting  # type: ignore[attr-defined]
        return store

    monkeypatch.setattr(import_rows, "open_store_for", watched)
    summary = import_file(file, uri)
    assert (summary["imported"], summary["unchanged"]) == (2, 5)
    assert sorted(written) == sorted([ROWS["id"][2].as_py(), ROWS["id"][4].as_py()])
    with open_store(uri) as store:
        assert stored(store)["a\nb"]["vector"] == vectors[2].tobytes()
        assert stored(store)[""]["label"] == "other"


def test_columns_that_the_file_lacks_are_kept(file: Path, uri: str) -> None:
    exported(file, batch(["a", "b", "c"], unit(3, seed=1), n=[1, 2, 3]))
    filled(uri, batch(["a", "b", "z"], label=["x", "y", "z"], n=[7, 7, 7]))
    summary = import_file(file, uri)
    assert (summary["imported"], summary["unchanged"]) == (3, 0)
    rows = content(uri)[2]
    assert {key: (row["n"], row["label"]) for key, row in rows.items()} == {
        "a": (1, "x"), "b": (2, "y"), "c": (3, None), "z": (7, "z"),
    }  # fmt: skip
    assert rows["b"]["vector"] == unit(3, seed=1)[1].tobytes()
    assert import_file(file, uri)["unchanged"] == 3


def test_corrected_labels_are_kept(file: Path, uri: str) -> None:
    exported(file, ROWS)
    assert import_file(file, uri)["imported"] == 7
    id_, label = (ROWS[name][0].as_py() for name in ("id", "label"))
    with open_store(uri) as store:
        said = LabelState("corrected", 1.0, "corrected")
        set_label(store, LabelColumns("label"), id_, label, said)
    assert import_file(file, uri)["unchanged"] == 7
    with open_store(uri) as store:
        row = stored(store)[id_]
    assert (row["label"], row["label_corrected"]) == ("corrected", "corrected")


def test_narrower_column_types_are_equal(file: Path, uri: str) -> None:
    filled(uri, batch(["a", "b"], n=[1, 2], at=pa.array([1, None], pa.timestamp("us"))))
    narrow = batch(
        ["a", "b"], n=pa.array([1, 2], pa.int8()), at=pa.array([1, None], pa.timestamp("us"))
    )
    assert import_file(exported(file, narrow), uri)["unchanged"] == 2


def test_new_columns_are_added(file: Path, uri: str) -> None:
    filled(uri, batch(["a", "b"], n=[1, 2]))
    exported(file, batch(["a", "b"], n=[1, 2], label=["x", None], other=pa.nulls(2, pa.int64())))
    summary = import_file(file, uri)
    assert (summary["imported"], summary["unchanged"]) == (1, 1)
    assert content(uri)[2]["a"]["label"] == "x"
    assert import_file(file, uri)["unchanged"] == 2


def test_an_interrupted_import_continues(
    file: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_rows, "_STEP_ROWS", 10)
    rows = batch([f"i{i}" for i in range(9000)], n=list(range(9000)))
    exported(file, rows)
    turns = count()
    real = import_rows._changed

    def interrupted(*arguments: Any) -> pa.Table:
        if next(turns) == 1:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(import_rows, "_changed", interrupted)
        outcome = run("import", file, "--store", uri)
    assert (outcome.status, outcome.stderr) == (
        130, "interrupted; run the same command again to continue\n",
    )  # fmt: skip
    with open_store(uri) as store:
        had = len(store)
    assert 0 < had < 9000
    summary = import_file(file, uri)
    assert (summary["imported"], summary["unchanged"]) == (9000 - had, had)


def test_several_files(file: Path, uri: str, tmp_path: Path) -> None:
    exported(file, batch(["a", "b"]))
    second = exported(tmp_path / "second.parquet", batch(["c"], label=["x"]))
    both = run("import", file, second, "--store", uri)
    assert both.stdout.startswith("3 imported, 0 unchanged, 0 removed, 0 skipped in ")
    assert both.stdout.endswith(f" rows/s); 3 rows in {uri}\n")
    exported(second, batch(["d", "b"]))
    error = run("import", file, second, "--store", uri).error
    assert f"{file} and {second} both have the id 'b'; import them one after the other" in error
    assert set(content(uri)[2]) == {"a", "b", "c"}


def test_a_manifest_with_vectors_is_a_manifest(pictures: Path, tiny_model: Path, uri: str) -> None:
    """Without our metadata, a column named vector is ignored and the images are embedded."""
    manifest = pictures / "m.parquet"
    table = pa.table({"path": ["a.png"], "vector": [[1.0, 0.0]]})
    pq.write_table(table, manifest)
    done = run("ingest", manifest, "--store", uri, "--model", tiny_model, "--json").document
    assert (done["embedded"], done["imported"]) == (1, 0)


def test_repeated_ids_are_reported(file: Path, uri: str) -> None:
    exported(file, batch(["a", "b"], n=[1, 2]))
    table = pq.read_table(file)
    later = table.slice(0, 1).set_column(6, "n", pa.array([3]))
    pq.write_table(pa.concat_tables([table, later]), file)
    assert run("import", file, "--store", uri, "--strict").error.endswith(
        "rows.parquet: row 1: a later one has the same id 'a'"
    )
    done = import_file(file, uri)
    assert done["imported"] == 2
    assert done["skipped"] == [
        {"uri": str(file), "reason": "row 1: a later one has the same id 'a'"}
    ]
    assert content(uri)[2]["a"]["n"] == 3
    assert import_file(file, uri)["unchanged"] == 2


def test_a_split(file: Path, uri: str) -> None:
    exported(file, batch(["a", "b"], split=["train", "val"]))
    assert import_file(file, uri, "--split", "val")["imported"] == 1
    assert set(content(uri)[2]) == {"b"}
    assert "found train, val" in run("import", file, "--store", uri, "--split", "test").error


def test_profile_and_progress(file: Path, uri: str) -> None:
    exported(file)
    lines = run("import", file, "--store", uri, "--profile").stderr.splitlines()
    stages = [line.split()[0] for line in lines]
    assert stages == ["check", "load", "compare", "write", "index", "limited"]
    assert lines[-1].endswith(" rows/s alone")
