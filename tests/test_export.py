"""`export`, and `ingest` of what it and `embed` write: rows into any store, bit by bit."""

from __future__ import annotations

import datetime as dt
import os
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rsicd_embed
from rsicd_embed.errors import DatasetError, FingerprintError, StoreError
from rsicd_embed.indexing import importing
from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import VectorStore, open_store, require_versioned
from rsicd_embed.testing.stores import DIM, MADE_BY, batch, stored, unit

from .helpers import SCHEMES, run

OTHER = Provenance("large", f"weights:bbb/tokenizer:t/dim:{DIM}", DIM)
ROWS = batch(
    ["it's", '"', "a\nb", "木/é.jpg", "", "x" * 3000, "%_"],
    unit(7, seed=3),
    uri=["/a", None, "/c", "/d", "/e", "/f", "/g"],
    sha256=["0" * 64, *[None] * 6],
    width=pa.array([224, None, 3, 4, 5, 6, 7], pa.int32()),
    label=["port", None, "", "it's", "x" * 100_000, "é", "f"],
    captions=[["a", "b"], None, [], [None], ["\n"], ["x"], ["y"]],
    at=pa.array([dt.datetime(2020, 1, 1), *[None] * 6], pa.timestamp("us", "UTC")),
    share=pa.array([0.1, -0.0, None, 1e-300, np.inf, 2, 3]),
    box=pa.array([[1.0, 2.0, 3.0, 4.0], *[None] * 6], pa.list_(pa.float64())),
    geo=[{"lon": 1.5, "name": "x"}, None, {"lon": None, "name": None}, None, None, None, None],
    flag=pa.array([True, False, *[None] * 5]),
    nothing=pa.nulls(7, pa.int16()),
    raw=pa.array([b"\x00\xff", *[None] * 6]),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.parquet"


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"exact:{tmp_path / 'store'}"


def filled(uri: str, rows: pa.RecordBatch = ROWS, made_by: Provenance = MADE_BY) -> str:
    with open_store(uri, made_by) as store:
        store.upsert([rows])
    return uri


def content(uri: str) -> tuple[Any, ...]:
    """All that a store holds, vectors as bytes."""
    with open_store(uri) as store:
        return store.provenance, store.schema.to_string(), stored(store)


def ingest(file: Path, uri: str, *options: str) -> Any:
    return run("ingest", file, "--store", uri, "--json", *options).document


def exported(file: Path, rows: pa.RecordBatch = ROWS, made_by: Provenance = MADE_BY) -> Path:
    """A file of these rows."""
    with TemporaryDirectory() as folder:
        uri = filled(f"exact:{folder}/store", rows, made_by)
        assert run("export", "--store", uri, "-o", file).status == 0
    return file


# ------------------------------------------------------------------ there and back


@pytest.mark.parametrize("source", SCHEMES)
@pytest.mark.parametrize("target", SCHEMES)
def test_any_store_into_any_other(source: str, target: str, tmp_path: Path, file: Path) -> None:
    one, other = f"{source}:{tmp_path}/one", f"{target}:{tmp_path}/other"
    filled(one)
    with open_store(one) as store:
        store.upsert([batch(["gone", "late"], label=["x", "y"])])
        store.delete(["gone"])
    done = run("export", "--store", one, "-o", file, "--json").document
    assert done == {
        "store": one,
        "output": str(file),
        "model": "small",
        "fingerprint": MADE_BY.fingerprint,
        "dim": DIM,
        "rows": 8,
        "bytes": file.stat().st_size,
        "sha256": done["sha256"],
        "seconds": done["seconds"],
        "rows_per_s": done["rows_per_s"],
    }
    first = ingest(file, other)
    assert (first["imported"], first["unchanged"], first["embedded"]) == (8, 0, 0)
    assert set(first) >= {"removed", "skipped", "seconds", "images_per_s"}
    assert content(other) == content(one)
    before = content(other)
    again = ingest(file, other)
    assert (again["imported"], again["unchanged"], again["skipped"]) == (0, 8, [])
    assert content(other) == before
    back = tmp_path / "back.parquet"
    run("export", "--store", other, "-o", back)
    assert ingest(back, one)["unchanged"] == 8


VALUES = {
    "text": st.none() | st.text(max_size=20),
    "texts": st.none() | st.lists(st.none() | st.text(max_size=5), max_size=3),
    "at": st.none() | st.datetimes(),
    "day": st.none() | st.dates(),
    "number": st.none() | st.integers(-(2**63), 2**63 - 1),
    "share": st.none() | st.floats(),
    "shares": st.none() | st.lists(st.floats(width=32), max_size=3),
    "raw": st.none() | st.binary(max_size=5),
    "geo": st.none() | st.fixed_dictionaries({"lon": st.none() | st.floats(), "tag": st.text()}),
    "flag": st.none() | st.booleans(),
}
TYPES = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "at": pa.timestamp("us"),
    "day": pa.date32(),
    "number": pa.int64(),
    "share": pa.float64(),
    "shares": pa.list_(pa.float32()),
    "raw": pa.binary(),
    "geo": pa.struct([("lon", pa.float64()), ("tag", pa.string())]),
    "flag": pa.bool_(),
}
CASES = st.lists(
    st.fixed_dictionaries({"id": st.text(max_size=8), **VALUES}), min_size=1, max_size=6
)


@settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(cases=CASES, schemes=st.permutations(SCHEMES))
def test_whatever_is_in_a_row(cases: list[dict[str, Any]], schemes: list[str]) -> None:
    columns = {name: pa.array([case[name] for case in cases], kind) for name, kind in TYPES.items()}
    rows = batch([case["id"] for case in cases], **columns)
    with TemporaryDirectory() as name:
        folder = Path(name)
        uris = [f"{scheme}:{folder / scheme}" for scheme in schemes[:2]]
        filled(uris[0], rows)
        with open_store(uris[0]) as store:
            rsicd_embed.export_rows(store, folder / "rows.parquet")
        rsicd_embed.import_rows([folder / "rows.parquet"], uris[1])
        (made_by, schema, was), (_, _, now) = content(uris[0]), content(uris[1])
        assert content(uris[1])[:2] == (made_by, schema)
        assert repr(now) == repr({key: was[key] for key in now})  # NaN equals nothing
        assert set(now) == set(was)
        again = rsicd_embed.import_rows([folder / "rows.parquet"], uris[1])
        assert (again.imported, again.unchanged) == (0, len(now))


def test_what_embed_writes(
    pictures: Path, tiny_model: Path, file: Path, uri: str, tmp_path: Path
) -> None:
    run("embed", pictures, "-o", file, "--model", tiny_model)
    assert ingest(file, uri)["imported"] == 5
    other = f"exact:{tmp_path}/other"
    run("ingest", pictures, "--store", other, "--model", tiny_model)
    assert content(uri) == content(other)
    # … and the images themselves are known then.
    again = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--json").document
    assert (again["embedded"], again["unchanged"]) == (0, 5)


def test_the_model_is_not_needed(
    pictures: Path, tiny_model: Path, file: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("embed", pictures, "-o", file, "--model", tiny_model)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("rsicd_embed.embedder.loading.load_embedder", refuse)
    monkeypatch.setattr(rsicd_embed, "load_embedder", refuse)
    assert ingest(file, uri)["imported"] == 5


def test_python(file: Path, uri: str, tmp_path: Path) -> None:
    with open_store(filled(uri)) as store:
        done = rsicd_embed.export_rows(store, str(file), where="width > 3")
    assert (done.rows, done.bytes) == (5, file.stat().st_size)
    summary = rsicd_embed.import_rows([str(file)], f"lancedb:{tmp_path}/lance")
    assert (summary.imported, summary.unchanged, summary.removed) == (5, 0, 0)
    with pytest.raises(DatasetError, match="that export or embed wrote, found nothing there"):
        rsicd_embed.import_rows([tmp_path / "none.parquet"], uri)
    pq.write_table(pa.table({"path": ["a.png"]}), file)
    with pytest.raises(DatasetError, match="that export or embed wrote, found another one"):
        rsicd_embed.import_rows([file], uri)
    with pytest.raises(DatasetError, match="found none"):
        rsicd_embed.import_rows([], uri)


# ------------------------------------------------------------------ export


def test_where(file: Path, uri: str) -> None:
    filled(uri)
    export = ("export", "--store", uri, "-o", file, "--where")
    assert run(*export, "label = 'it''s'", "--json").document["rows"] == 1
    assert pq.read_table(file)["id"].to_pylist() == ["木/é.jpg"]
    nothing = run(*export, "width > 999")
    assert (nothing.status, nothing.stdout[:7]) == (0, "0 rows ")
    assert nothing.stderr == "no rows: the store is empty, or none matches --where\n"
    assert "no column wide" in run(*export, "wide > 1").error
    assert len(pq.read_table(file)) == 0


def test_an_older_state(file: Path, uri: str) -> None:
    filled(uri, batch(["a"]))
    with open_store(uri) as store:
        require_versioned(store).tag("first")
    filled(uri, batch(["b"]))
    run("export", "--store", uri, "-o", file, "--as-of", "first")
    assert pq.read_table(file)["id"].to_pylist() == ["a"]
    run("export", "--store", uri, "-o", file)
    assert sorted(pq.read_table(file)["id"].to_pylist()) == ["a", "b"]
    assert "'second'" in run("export", "--store", uri, "-o", file, "--as-of", "second").error


def test_an_empty_store_makes_an_empty_one(file: Path, uri: str, tmp_path: Path) -> None:
    open_store(uri, MADE_BY).close()
    assert run("export", "--store", uri, "-o", file, "--json").document["rows"] == 0
    other = f"nmslib:{tmp_path}/other"
    summary = ingest(file, other)
    assert (summary["imported"], summary["unchanged"]) == (0, 0)
    assert content(other) == content(uri)


def test_an_older_export_is_replaced_and_nothing_else(file: Path, uri: str) -> None:
    filled(uri)
    export = ("export", "--store", uri, "-o", file)
    assert [run(*export).status for _ in range(2)] == [0, 0]
    for foreign in (b"garbage", b""):
        file.write_bytes(foreign)
        assert "exists, and is not a file of rows that rsicd-embed wrote" in run(*export).error
        assert file.read_bytes() == foreign
    pq.write_table(pa.table({"path": ["a.png"]}), file)
    assert "name another file, or remove it" in run(*export).error
    assert pq.read_table(file).column_names == ["path"]


def test_where_no_file_can_be(tmp_path: Path, uri: str) -> None:
    filled(uri)
    nowhere = tmp_path / "none" / "rows.parquet"
    assert "its folder is not there; make it first" in (
        run("export", "--store", uri, "-o", nowhere).error
    )
    assert not nowhere.parent.exists()
    for wrong in ("rows.csv", "rows", "rows.npy"):
        outcome = run("export", "--store", uri, "-o", tmp_path / wrong)
        assert outcome.status == 2
        assert "expected an output named *.parquet" in outcome.stderr
    assert run("export", "--store", uri, "-o", tmp_path).status == 2
    assert run("export", "--store", uri, "-o", "x.parquet", "--format", "csv").status == 2
    assert run("export", "--store", uri).status == 2


def test_no_such_store(file: Path, tmp_path: Path) -> None:
    assert "no store at exact:" in run("export", "--store", f"exact:{tmp_path}/x", "-o", file).error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk(file: Path, uri: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    exported(file)
    before = file.read_bytes()
    filled(uri, batch(["a"]))
    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        error = run("export", "--store", uri, "-o", file).error
    assert error.endswith("rows.parquet: No space left on device; free some space and try again")
    assert file.read_bytes() == before
    assert sorted(one.name for one in file.parent.iterdir()) == ["rows.parquet", "store"]


def test_a_read_only_folder(file: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.parent == file.parent:
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    filled(uri)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        error = run("export", "--store", uri, "-o", file).error
    assert error.endswith(
        "rows.parquet: Permission denied; make the folder writable or use another one"
    )
    assert not file.exists()


# ------------------------------------------------------------------ import


def test_only_what_differs_is_written(
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
    real = importing.open_store_for

    def watched(*arguments: Any) -> VectorStore:
        store = real(*arguments)
        upsert = store.upsert

        def counting(batches: Any) -> int:
            given = list(batches)
            written.extend(id_ for one in given for id_ in one["id"].to_pylist())
            return upsert(given)

        store.upsert = counting  # type: ignore[method-assign]
        return store

    monkeypatch.setattr(importing, "open_store_for", watched)
    summary = ingest(file, uri)
    assert (summary["imported"], summary["unchanged"]) == (2, 5)
    assert sorted(written) == sorted([ROWS["id"][2].as_py(), ROWS["id"][4].as_py()])
    with open_store(uri) as store:
        assert stored(store)["a\nb"]["vector"] == vectors[2].tobytes()
        assert stored(store)[""]["label"] == "other"


def test_columns_that_the_file_lacks_are_kept(file: Path, uri: str) -> None:
    exported(file, batch(["a", "b", "c"], unit(3, seed=1), n=[1, 2, 3]))
    filled(uri, batch(["a", "b", "z"], label=["x", "y", "z"], n=[7, 7, 7]))
    summary = ingest(file, uri)
    assert (summary["imported"], summary["unchanged"]) == (3, 0)
    rows = content(uri)[2]
    assert {key: (row["n"], row["label"]) for key, row in rows.items()} == {
        "a": (1, "x"), "b": (2, "y"), "c": (3, None), "z": (7, "z"),
    }  # fmt: skip
    assert rows["b"]["vector"] == unit(3, seed=1)[1].tobytes()
    assert ingest(file, uri)["unchanged"] == 3


def test_columns_of_narrower_types_are_the_same(file: Path, uri: str) -> None:
    filled(uri, batch(["a", "b"], n=[1, 2], at=pa.array([1, None], pa.timestamp("us"))))
    narrow = batch(
        ["a", "b"], n=pa.array([1, 2], pa.int8()), at=pa.array([1, None], pa.timestamp("us"))
    )
    assert ingest(exported(file, narrow), uri)["unchanged"] == 2


def test_new_columns_are_added(file: Path, uri: str) -> None:
    filled(uri, batch(["a", "b"], n=[1, 2]))
    exported(file, batch(["a", "b"], n=[1, 2], label=["x", None], other=pa.nulls(2, pa.int64())))
    summary = ingest(file, uri)
    assert (summary["imported"], summary["unchanged"]) == (1, 1)
    assert content(uri)[2]["a"]["label"] == "x"
    assert ingest(file, uri)["unchanged"] == 2


def test_an_interrupted_import_goes_on(
    file: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_STEP_ROWS", 10)
    rows = batch([f"i{i}" for i in range(9000)], n=list(range(9000)))
    exported(file, rows)
    turns = count()
    real = importing._changed

    def interrupted(*arguments: Any) -> pa.Table:
        if next(turns) == 1:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(importing, "_changed", interrupted)
        outcome = run("ingest", file, "--store", uri)
    assert (outcome.status, outcome.stderr) == (
        130, "interrupted; run the same command again to go on\n",
    )  # fmt: skip
    with open_store(uri) as store:
        had = len(store)
    assert 0 < had < 9000
    summary = ingest(file, uri)
    assert (summary["imported"], summary["unchanged"]) == (9000 - had, had)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_models_store_is_refused(scheme: str, file: Path, tmp_path: Path) -> None:
    exported(file)
    uri = filled(f"{scheme}:{tmp_path}/store", batch(["a"]), OTHER)
    before = content(uri)
    error = run("ingest", file, "--store", uri).error
    assert f"{file} holds vectors of model 'small', {uri} is of 'large' (weights bbb ≠ aaa)" in (
        error
    )
    assert "use another store" in error
    assert content(uri) == before


def test_a_model_that_is_named_must_fit(
    pictures: Path, tiny_model: Path, other_model: Path, file: Path, uri: str
) -> None:
    run("embed", pictures, "-o", file, "--model", tiny_model)
    error = run("ingest", file, "--store", uri, "--model", other_model).error
    assert f"holds vectors of model '{tiny_model}', --model {other_model} is of" in error
    assert not Path(uri.partition(":")[2]).exists()
    assert ingest(file, uri, "--model", str(tiny_model))["imported"] == 5
    # A manifest of images is what it is for embed.
    run("embed", file, "-o", file.with_name("other.parquet"), "--model", other_model)
    error = run("ingest", file, file.with_name("other.parquet"), "--store", uri).error
    assert f"rows.parquet is of '{tiny_model}' (weights" in error


def test_images_and_rows_do_not_mix(
    pictures: Path, tiny_model: Path, file: Path, uri: str, tmp_path: Path
) -> None:
    exported(file)
    for sources in ((file, pictures), (pictures, file)):
        outcome = run("ingest", *sources, "--store", uri, "--model", tiny_model)
        assert outcome.status == 2
        assert f"{file} holds vectors, {pictures} does not" in outcome.stderr
    assert run("ingest", file, "--store", uri, "--prune").status == 2
    assert not (tmp_path / "store").exists()


def test_several_files(file: Path, uri: str, tmp_path: Path) -> None:
    exported(file, batch(["a", "b"]))
    second = exported(tmp_path / "second.parquet", batch(["c"], label=["x"]))
    both = run("ingest", file, second, "--store", uri)
    assert both.stdout.startswith("3 imported, 0 unchanged, 0 removed, 0 skipped in ")
    assert both.stdout.endswith(f" rows/s); 3 rows in {uri}\n")
    exported(second, batch(["d", "b"]))
    error = run("ingest", file, second, "--store", uri).error
    assert f"{file} and {second} both have the id 'b'; ingest one after the other" in error
    assert set(content(uri)[2]) == {"a", "b", "c"}


def test_a_manifest_with_vectors_is_a_manifest(pictures: Path, tiny_model: Path, uri: str) -> None:
    """A column named vector is none of ours without the metadata: the images are embedded."""
    manifest = pictures / "m.parquet"
    table = pa.table({"path": ["a.png"], "vector": [[1.0, 0.0]]})
    pq.write_table(table, manifest)
    done = run("ingest", manifest, "--store", uri, "--model", tiny_model, "--json").document
    assert (done["embedded"], done["imported"]) == (1, 0)


def test_repeated_ids_are_told(file: Path, uri: str) -> None:
    exported(file, batch(["a", "b"], n=[1, 2]))
    table = pq.read_table(file)
    later = table.slice(0, 1).set_column(6, "n", pa.array([3]))
    pq.write_table(pa.concat_tables([table, later]), file)
    assert run("ingest", file, "--store", uri, "--strict").error.endswith(
        "rows.parquet: row 1: a later one has the same id 'a'"
    )
    done = ingest(file, uri)
    assert done["imported"] == 2
    assert done["skipped"] == [
        {"uri": str(file), "reason": "row 1: a later one has the same id 'a'"}
    ]
    assert content(uri)[2]["a"]["n"] == 3
    assert ingest(file, uri)["unchanged"] == 2


def test_a_split(file: Path, uri: str) -> None:
    exported(file, batch(["a", "b"], split=["train", "val"]))
    assert ingest(file, uri, "--split", "val")["imported"] == 1
    assert set(content(uri)[2]) == {"b"}
    assert "found train, val" in run("ingest", file, "--store", uri, "--split", "test").error


def damaged(file: Path) -> bytes:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 4] ^= 16
    return bytes(raw)


def with_vectors(file: Path, vectors: np.ndarray) -> None:
    table = pq.read_table(file)
    wrong = batch(["x"] * len(vectors), vectors)["vector"]
    pq.write_table(table.set_column(1, "vector", wrong), file)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-20]), "cannot be read as parquet: "),
        (lambda file: file.write_bytes(damaged(file)), "cannot be read as Parquet: "),
        (lambda file: with_vectors(file, unit(7, 9)), "vectors of length 8, as it says"),
        (lambda file: with_vectors(file, unit(7) * np.float32(np.nan)), "found norm nan at row 1"),
        (lambda file: with_vectors(file, unit(7) * 2), "found norm 2 at row 1; divide each"),
        (lambda file: file.unlink(), "found nothing at "),
    ],
)
def test_files_that_are_wrong_change_nothing(
    scheme: str, spoil: Any, words: str, file: Path, tmp_path: Path
) -> None:
    exported(file)
    spoil(file)
    new, old = f"{scheme}:{tmp_path}/new", filled(f"{scheme}:{tmp_path}/old", batch(["a"]))
    before = content(old)
    for uri in (new, old):
        assert words in run("ingest", file, "--store", uri).error
    assert not (tmp_path / "new").exists()
    assert content(old) == before


def test_columns_that_do_not_fit_the_store(file: Path, uri: str) -> None:
    filled(uri, batch(["z"], label=[1]))
    before = content(uri)
    error = run("ingest", exported(file), "--store", uri).error
    assert "column 'label': expected int64, found string" in error
    assert content(uri) == before


def test_rows_that_the_store_cannot_write(
    file: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    exported(file)
    filled(uri, batch(["a"]))
    before = content(uri)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device; free some" in run("ingest", file, "--store", uri).error
    assert content(uri) == before
    assert ingest(file, uri)["imported"] == 7


def test_profile_and_progress(file: Path, uri: str) -> None:
    exported(file)
    lines = run("ingest", file, "--store", uri, "--profile").stderr.splitlines()
    stages = [line.split()[0] for line in lines]
    assert stages == ["check", "load", "compare", "write", "index", "limited"]
    assert lines[-1].endswith(" rows/s alone")


def test_stores_are_closed_when_they_are_refused(file: Path, uri: str) -> None:
    filled(uri, batch(["a"]), OTHER)
    (opened,) = importing.open_files([exported(file)])
    with pytest.raises(FingerprintError):
        importing.open_store_for(opened, uri)
    with open_store(uri) as store, pytest.raises(FingerprintError):
        importing.import_rows(importing.check_rows([opened]), store)
    with pytest.raises(StoreError):
        importing.open_store_for(opened, "nothing:here")
